"""Every documented command does what its page says, on small files of the same names."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support.command import exit_code, inside
from support.labelled import write_mask
from support.palettes import with_palette
from support.scenes import scene_pixels, write_scene
from support.specimens import MOTE
from support.speck import SPECK
from support.weights import S2_INPUT, encoder_state, write_pth

from eosfm_edge.api.imagery import describe_imagery, keep_imagery
from eosfm_edge.deploying import road
from eosfm_edge.device import cross, package
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.pruning import promise

pytestmark = [
    pytest.mark.slow,
    # Networks of random weights keep little, and small scenes have few tiles.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DRONE = ("B04", "B03", "B02", "B08")
LINE = re.compile(r"^ {4}(eosfm-edge [a-z].*)$", re.MULTILINE)

# What stands for a file of the reader's own.
OWN = {
    "ENSEMBLE": "six",
    "BUNDLE": "six.eosfm",
    "DIRECTORY": "six",
    "SCENE": "scene.tif",
    "SCENE...": "scene.tif",
    "SOURCES...": "A/specialists/rgb.safetensors A/specialists/clouds.safetensors "
    "A/ensemble.safetensors",
    "FOLDER": "features",
    "FILE": "features.eosp",
    "TARGET": "jetson",
    "LABELS": "labels.tif",
    "landuse.gpkg": "labels.tif",
    "HEAD": "labels",
}
# What tests/engines and a machine with TensorRT show.
NEEDS_TENSORRT = re.compile(
    r"eosfm-edge build six\.eosfm$|eosfm-edge build BUNDLE$|--backend tensorrt"
)


def lines_of(page: Path) -> list[str]:
    """Return a page's command lines; `[...]` is what may be left out, and `{a,b}` the shell's."""
    text = page.read_text().replace("\\\n", " ")
    found = []
    for line in LINE.findall(text):
        line = re.sub(r" \[.*?\]", "", line.split("  #")[0])
        line = re.sub(r"(\S*){(\w+),(\w+)}(\S*)", r"\1\2\4 \1\3\4", line)
        found.append(line.strip())
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small file under each name that pages use for the reader's own."""
    folder = tmp_path_factory.mktemp("files")
    six = folder / "six"
    for name in ("six.pth", "eosfm.pth", "terratorch.ckpt"):
        write_pth(folder / name, (3, 4), f"convnextv2_{MOTE}")
    torch.save(encoder_state(3), folder / "model.ckpt")
    import_ensemble([folder / "six.pth"], six, ImportOptions(input=S2_INPUT))
    with_palette(six)
    rgb, clouds = sorted((six / "specialists").iterdir())
    for name, file in (("A/specialists/rgb", rgb), ("A/specialists/clouds", clouds),
                       ("B/specialists/rgb", rgb), ("A/ensemble", six / "ensemble.safetensors"),
                       ("a/model", rgb), ("b/model", clouds),
                       ("ensemble", six / "ensemble.safetensors")):  # fmt: skip
        place = folder / f"{name}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    pixels = scene_pixels(13, 480, 480)
    scene = write_scene(folder / "scene.tif", pixels, S2_L1C)
    keep_imagery(six, describe_imagery([scene], seed=0))
    (folder / "scene").mkdir()
    for number, name in enumerate(S2_L1C):
        write_scene(folder / "scene" / f"T_{name}.tif", pixels[number : number + 1])
    (folder / "drone").mkdir()
    for number in range(4):
        write_scene(folder / "drone" / f"{number}.tif", pixels[number : number + 1])
    squares = np.random.default_rng(0).choice([10, 20], (15, 15))
    write_mask(folder / "labels.tif", np.kron(squares, np.ones((32, 32), int)).astype(np.uint8))
    write_pth(folder / "one.pth", (3,), f"convnextv2_{SPECK}")
    drones = tuple(InputBand(name=name, scale=1e-4) for name in DRONE)
    for name, bands in (("one", S2_INPUT), ("four", drones)):
        import_ensemble([folder / "one.pth"], folder / "others" / name, ImportOptions(input=bands))
        with_palette(folder / "others" / name)
    drone = write_scene(folder / "drone.tif", pixels[:4], DRONE)
    for source, name, imagery in ((six, "six", scene), (six, "six-50", scene),
                                  (folder / "others/one", "six-75", scene),
                                  (folder / "others/four", "four", drone)):  # fmt: skip
        options = ExportOptions(tile=96, purpose="all")
        export_bundle(source, imagery, folder / f"{name}.eosfm", options)
    inside("run", folder / "six.eosfm", scene, "-o", folder / "sent", "--packets", "100kB")
    (folder / "sent" / "features.eosp").rename(folder / "features.eosp")
    shutil.copy(ROOT / "targets" / "cpu-x86-64-v3.yaml", folder / "our-board.yaml")
    return folder


def timed(folder: Path, name: str, milliseconds: float) -> None:
    """Write what bench prints of a bundle on a board where it takes so long."""
    report = json.loads((folder / name).read_text())
    report["macs"] = report["macs"] * (224 * 224) // (96 * 96)  # bundles here have smaller tiles
    for one in report["timings"]:
        one["round_ms"] = [milliseconds for _ in one["round_ms"]]
    (folder / name).write_text(json.dumps(report))


@pytest.mark.parametrize("page", [page for page in PAGES if lines_of(page)], ids=lambda p: p.stem)
def test_documented_commands_do_what_the_page_says(
    page: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    here = Path(shutil.copytree(files, tmp_path / "here"))
    if page.stem == "scenes":
        shutil.rmtree(here / "six.eosfm")
        (here / "four.eosfm").rename(here / "six.eosfm")
    monkeypatch.chdir(here)
    monkeypatch.setattr(promise, "_DECIBELS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(road, "RATIOS", (0.0, 0.5))
    monkeypatch.setattr(package, "build_libraries", build_nothing)
    monkeypatch.setattr(package, "build_program", lambda folder: (folder / "eosfm").touch())
    monkeypatch.setattr(cross, "require_tools", lambda: None)
    for line in lines_of(page):
        if NEEDS_TENSORRT.search(line):
            continue
        command, _, printed = line.partition(" > ")
        words = [own for word in shlex.split(command)[1:] for own in OWN.get(word, word).split()]
        if "-o" in words and (old := here / words[words.index("-o") + 1]).is_dir():
            shutil.rmtree(old)
        if (here / "six").exists():
            keep_imagery(here / "six", describe_imagery([here / "scene.tif"], seed=0))
        before = set(here.iterdir())
        capsys.readouterr()
        code = exit_code(*words)
        out, err = capsys.readouterr()
        assert code == 0, f"{line}\n{err}"
        if (
            "-o" not in words
        ):  # the line stands alone: what it named is not of the next one's folder
            for made in set(here.iterdir()) - before:
                shutil.rmtree(made)
        if printed:
            (here / printed).write_text(out)
            timed(here, printed, 60 if words[1] == "six.eosfm" else 30)


def build_nothing(folder: Path, glibc: str, names: Sequence[str]) -> None:
    """Stand for the cross compiler, which tests/device runs."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"built for the board")
