"""Packages import from the layers below them, never from their own layer nor from above.

docs/design.md draws the layers. What a package is free of follows from its place: torch is wanted
from ``ensemble`` up, by the stages that make bundles.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import eosfm_edge

PACKAGE = Path(eosfm_edge.__file__).parent
# From the ground up. Packages of one layer do not know each other.
LAYERS = (
    ("extras", "machine", "progress", "text"),
    ("errors",),
    ("files",),
    ("resume",),
    ("formats",),
    ("native", "packets", "scene", "targets"),
    ("bundle", "engines"),
    ("device",),
    ("ensemble",),
    ("network",),
    ("calibration", "exporting", "pruning", "runtime"),
    ("deploying", "heads"),
    ("api",),
    ("cli",),
)
LAYER = {package: height for height, layer in enumerate(LAYERS) for package in layer}
# Root modules that only start what is above everything.
ENTRY = ("__init__", "__main__")


def modules() -> Iterator[tuple[str, Path]]:
    """Give every module's package and file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").parts[0], path


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Give the packages of this project that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "eosfm_edge" and len(parts) > 1 and parts[1] != "__version__":
                yield node.lineno, parts[1]


def test_every_package_has_its_layer() -> None:
    assert {package for package, _ in modules()} - set(ENTRY) == set(LAYER)


@pytest.mark.parametrize("package", sorted(LAYER))
def test_a_package_imports_only_from_below(package: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}"
        for mine, path in modules()
        if mine == package
        for line, other in imported(path)
        if other != package and LAYER[other] >= LAYER[package]
    ]
    assert not wrong
