"""Test with the lowest and the highest versions of PyTorch that are allowed.

``python packaging/torch_ends.py build/torch-ends`` makes an environment for each end of the ranges
that the extras ``export`` and ``prune`` give for PyTorch, torchvision, timm and Torch-Pruning, and
runs the tests of every change that use them in it. It is run by an environment that has the extra
``dev``, which says what tests need.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

import tomllib  # of Python 3.11 and later
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
RANGES = ("torch", "torchvision", "timm", "torch-pruning")
TOOLS = ("hypothesis", "pytest", "pytest-xdist")
# What the layers say of packages that need torch (docs/design.md), and their tests.
TESTS = ("ensemble", "network", "calibration", "pruning", "export", "deploy")
DEEP = "sanitizers or cross or engines or slow"


def requirements() -> dict[str, Requirement]:
    """Return what pyproject.toml says of the ranges and of what tests need, by name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    found = [Requirement(line) for extra in ("export", "prune", "dev") for line in extras[extra]]
    return {one.name: one for one in found if one.name in (*RANGES, *TOOLS)}


def pins(end: str, needed: dict[str, Requirement]) -> list[str]:
    """Return what pip is given for an end: the lowest versions, or the ranges."""
    if end == "highest":
        return [f"{name}{needed[name].specifier}" for name in RANGES]
    lowest = {
        name: bound.version
        for name in RANGES
        for bound in needed[name].specifier
        if bound.operator == ">="
    }
    return [f"{name}=={version}" for name, version in lowest.items()]


def check_end(end: str, folder: Path) -> int:
    """Make the environment of an end, and run the tests in it; returns pytest's exit code."""
    needed = requirements()
    tools = [f"{name}{needed[name].specifier}" for name in TOOLS]
    venv.create(folder / end, with_pip=True, clear=True)
    python = folder / end / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--editable",
         f"{ROOT}[calibrate,prune]", *pins(end, needed), *tools],
        check=True,
    )  # fmt: skip
    versions = [
        "from importlib.metadata import version",
        f"print('{end}:', ', '.join(f'{{one}} {{version(one)}}' for one in {RANGES}))",
    ]
    subprocess.run([python, "-c", "\n".join(versions)], check=True)
    tests = [ROOT / "tests" / name for name in TESTS]
    command = [python, "-m", "pytest", "--quiet", "--numprocesses", "auto", "--dist", "loadfile"]
    return subprocess.run([*command, "-m", f"not ({DEEP})", *tests], cwd=ROOT).returncode


def main() -> None:
    """Test both ends, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environments go")
    parser.add_argument("--end", action="append", choices=["lowest", "highest"])
    arguments = parser.parse_args()
    failed = [
        end for end in arguments.end or ("lowest", "highest") if check_end(end, arguments.folder)
    ]
    if failed:
        sys.exit(f"error: tests fail with the {' and the '.join(failed)} versions")


if __name__ == "__main__":
    main()
