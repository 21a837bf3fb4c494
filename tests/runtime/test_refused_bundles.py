"""Bundles that are not what was exported, or whose manifest is not of their model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.formats.backends import CPU_BACKENDS
from eosfm_edge.formats.bundle import MODEL_NAME, read_manifest
from eosfm_edge.runtime.backends import open_backend
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.runtime.verify import verify_bundle

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "small.eosfm")


def edit(bundle: Path, change: Change) -> None:
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_altered_weights_are_not_run(
    copied: Path, scene: Path, tmp_path: Path, backend: str
) -> None:
    model = bytearray((copied / MODEL_NAME).read_bytes())
    middle = len(model) // 2
    model[middle : middle + 4000] = bytes(4000)
    (copied / MODEL_NAME).write_bytes(model)
    with pytest.raises(CheckFailedError, match=r"model\.onnx was altered") as error:
        run_scene(copied, scene, tmp_path / "out", RunOptions(backend=backend))
    assert error.value.exit_code == ExitCode.CHECK_FAILED
    assert sorted(tmp_path.iterdir()) == [copied]
    with pytest.raises(CheckFailedError) as same:
        verify_bundle(copied, backend)
    assert str(same.value) == str(error.value)


MISMATCHES: dict[str, tuple[Change, str]] = {
    "name": (lambda m: m["levels"][0].update(name="levelX"), r"no levelX|level1 of 120 x 24 x 24"),
    "channels": (
        lambda m: m["levels"][0].update(channels=121),
        "level1 of 121 x 24 x 24",
    ),
    "stride": (lambda m: m["levels"][0].update(stride=8), "expected: level1 of 120 x 12 x 12"),
    "tile": (lambda m: m["tile"].update(size=64), "expected: image of 13 x 64 x 64"),
    "bands": (lambda m: m["input"].append({**m["input"][0], "name": "B99"}), "image of 14 x 96"),
    "missing": (lambda m: m["levels"].pop(), "level4 of 960 x 3 x 3"),
    "surplus": (lambda m: m["levels"].append({**m["levels"][0], "name": "level5"}), "no level5"),
}


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("what", MISMATCHES)
def test_a_manifest_of_another_model_is_refused(copied: Path, what: str, backend: str) -> None:
    change, message = MISMATCHES[what]
    edit(copied, change)
    with pytest.raises(UserError, match=message) as error:
        open_backend(backend, copied, read_manifest(copied))
    assert error.value.exit_code == ExitCode.WRONG_USE
    assert "as the manifest says" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["levels"][0].update(name="../x"), "levels.0.name"),
        (lambda m: m["levels"][0].update(name=""), "levels.0.name"),
        (lambda m: m["levels"][1].update(name="level1"), "levels have the same name: level1, l"),
        (lambda m: m["levels"][0].update(stride=3), "levels.0.stride"),
        (lambda m: m["levels"][0].update(stride=64), "levels.0.stride"),
        (lambda m: m["parity"][0].update(levels=[]), "parity.0.levels"),
        (lambda m: m.update(parity=[]), "parity"),
    ],
)
def test_a_manifest_that_no_model_can_have_is_refused(
    copied: Path, change: Change, message: str
) -> None:
    edit(copied, change)
    with pytest.raises(UserError, match=r"manifest\.json is not valid") as error:
        read_manifest(copied)
    assert message in str(error.value)
