"""Write docs/screens.md from what the command prints: ``python docs/screens.py``."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from eosfm_edge.cli.main import cli

PAGE = Path(__file__).with_name("screens.md")
BUNDLE = Path(__file__).parent.parent / "examples" / "demo" / "coast.eosfm"
WIDTHS = (80, 120)

HEAD = """# Screens

Written by `python docs/screens.py` from what the command prints on terminals of 80 and 120
columns. A whole `deploy` is in [deploy.md](deploy.md#a-whole-run); [cli.md](cli.md) explains the
options.
"""

# A machine that only runs bundles: before everything else, torch is refused.
WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Refuse())
from eosfm_edge.cli.main import main
main()
"""

# One of each kind, in a folder with coast.eosfm.
ERRORS = {
    "An option that does not exist": "run coast.eosfm scene.tif --overlapp 64 -o features",
    "Arguments that are missing": "run coast.eosfm",
    "A value that cannot be": "prune six --ratio 2",
    "An input that does not exist": "run coast.eosfm scene.tif -o features",
    "An input of another kind": "run coast.eosfm notes.txt -o out",
    "An output that is there": "run coast.eosfm notes.txt -o features",
    "A target that is not known": "targets show jetson-nano",
    "An engine for which the bundle has no files": "verify coast.eosfm --backend onnxruntime",
    "A part that is not installed": "import weights.pth -o six --bands S2L1C",
    "A check that fails": "verify altered.eosfm",
}


def page() -> str:
    """Return the page."""
    parts = [HEAD, "## Help\n"]
    for words in ([], *([verb] for verb in cli.commands)):
        line = shlex.join(["eosfm-edge", *words, "--help"])
        parts.append(f"### {' '.join(['eosfm-edge', *words])}\n")
        for width in WIDTHS:
            parts.append(
                _screen(line, [sys.executable, "-m", "eosfm_edge", *words, "--help"], width)
            )
    parts.append("## Errors\n\nWhat was found, what was expected, and the fix.\n")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "features").mkdir()
        (folder / "features" / "level1.tif").touch()
        (folder / "notes.txt").write_text("a scene, perhaps")
        (folder / "weights.pth").write_text("weights, perhaps")
        for name in ("coast.eosfm", "altered.eosfm"):
            shutil.copytree(BUNDLE, folder / name)
        with (folder / "altered.eosfm" / "palette.safetensors").open("a") as file:
            file.write("x")
        for title, line in ERRORS.items():
            parts.append(f"### {title}\n")
            command = [sys.executable, "-c", WITHOUT_TORCH, *shlex.split(line)]
            parts.append(_screen(f"eosfm-edge {line}", command, WIDTHS[0], folder))
    return "\n".join(parts)


def _screen(line: str, command: list[str], width: int, folder: Path | None = None) -> str:
    """Return what a command prints on a terminal, and its exit code if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": str(width)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    text = "\n".join(one.rstrip() for one in done.stdout.rstrip().splitlines())
    code = f"\n$ echo $?\n{done.returncode}" if done.returncode else ""
    return f"```console\n$ {line}\n{text}{code}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
