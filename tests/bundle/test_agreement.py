"""The manifest is held against the files that the engine reads: an edit of it never passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.runtime.verify import verify_bundle

Path_ = tuple[str | int, ...]

# What is in the manifest alone; every other field is in another file too.
ONLY_THERE = {
    ("format",), ("schema_version",), ("created_with",), ("target",), ("profile",), ("precision",),
    ("candidates",), ("calibration",), ("macs",), ("tile", "batch"), ("left_out",), ("layout",),
    ("files",), ("specialists", "*", "bands"), ("specialists", "*", "pruning"),
    ("specialists", "*", "provenance", "source_sha256"),
    ("specialists", "*", "provenance", "citation"),
    ("parity", "*", "backend"), ("parity", "*", "version"), ("parity", "*", "tiles"),
    ("parity", "*", "levels"), ("parity", "*", "agreement"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(motes: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agreement") / "motes.eosfm"
    export_bundle(motes, imagery, path, ExportOptions(tile=64))
    return path


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "motes.eosfm")


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Give the path of every number, text or null of a manifest that other files have too."""
    if tuple("*" if isinstance(part, int) else part for part in path) in ONLY_THERE:
        return
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from leaves(below, (*path, key))
    elif not isinstance(value, dict | list):
        yield path


def changed(path: Path_, value: Any) -> Any:
    """Return another value that the format allows there."""
    if path[-1] == "size":
        return value + 32
    if path[-1] == "stride":
        return 4 if value == 32 else value * 2
    if isinstance(value, str):
        return value[:-1] + ("1" if value[-1] == "0" else "0") if value else "B99"
    if value is None:
        return {"licence": "none", "name": "B99"}.get(str(path[-1]), 1234.5)
    if "runs" in path:
        return (value + 1) % 3
    return value * 2 if value else 1


def edited(manifest: dict[str, Any], path: Path_) -> dict[str, Any]:
    copy = json.loads(json.dumps(manifest))
    place = copy
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = changed(path, place[path[-1]])
    return copy


def test_every_field_that_is_in_two_files_must_agree(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    verify_bundle(copied, "native")
    paths = [path for path in leaves(manifest) if path[-1] not in ("widths", "hidden")]
    assert len(paths) > 50
    assert {"name", "scale", "offset", "nodata", "fill", "wavelength_nm", "factor", "licence",
            "tolerance", "channels", "size", "backbone", "weights_sha256"} <= {
        part for path in paths for part in path
    }  # fmt: skip
    passed = []
    for path in paths:
        (copied / "manifest.json").write_text(json.dumps(edited(manifest, path)))
        try:
            verify_bundle(copied, "native")
            passed.append(path)
        except UserError:
            pass
    assert passed == []


@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("input", 0, "scale"), "input.0.scale"),
        (("input", 1, "nodata"), "input.1.nodata"),
        (("input", 2, "name"), "input.2.name"),
        (("parity", 0, "tolerance"), "parity.native.tolerance"),
        (("parity", 1, "tolerance"), "parity.onnxruntime.tolerance"),
        (("specialists", 0, "provenance", "licence"), "specialists.0.provenance.licence"),
        (("specialists", 1, "factor"), "specialists.1.factor"),
        (("specialists", 0, "runs", 0, 0), "specialists.0.runs"),
    ],
)
def test_run_and_verify_name_the_field_and_write_nothing(
    copied: Path, imagery: Path, tmp_path: Path, path: Path_, field: str, backend: str
) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(edited(manifest, path)))
    with pytest.raises(CheckFailedError, match=rf"{field} is .* in manifest\.json and .* in "):
        verify_bundle(copied, backend)
    with pytest.raises(CheckFailedError, match=field):
        run_scene(copied, imagery, tmp_path / "out", RunOptions(backend=backend))
    assert sorted(tmp_path.iterdir()) == [copied]


def test_swapped_bands_are_named(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    for index, name in enumerate(("B02", "B03", "B04")):
        manifest["input"][index]["name"] = name
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckFailedError, match=r"input\.0\.name is 'B02' in manifest\.json"):
        verify_bundle(copied, "native")


def test_complaints_are_not_endless(copied: Path) -> None:
    for index in range(1000):
        (copied / f"surplus{index}").touch()
    with pytest.raises(CheckFailedError, match="and 980 more") as error:
        verify_bundle(copied, "native")
    assert len(str(error.value).splitlines()) < 30
