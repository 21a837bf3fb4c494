"""Bundles that are not what was exported, or whose manifest is not of their model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from eosfm_edge.bundle.intact import require_intact
from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.formats.backends import CPU_BACKENDS
from eosfm_edge.formats.bundle import MODEL_NAME, read_manifest
from eosfm_edge.runtime.backends import open_context
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
    "name": (
        lambda m: m["levels"][0].update(name="levelX"),
        "levels.0.name is 'levelX' in manifest.json and 'level1' in chain.gguf",
    ),
    "channels": (
        lambda m: m["levels"][0].update(channels=121),
        "levels.0.channels is 121 in manifest.json and 24 in chain.gguf",
    ),
    "stride": (lambda m: m["levels"][0].update(stride=8), "levels.0.stride is 8 in manifest.json"),
    "tile": (lambda m: m["tile"].update(size=64), "tile.size is 64 in manifest.json"),
    "bands": (
        lambda m: m["input"].append({**m["input"][0], "name": "B99"}),
        "input.13.name is 'B99' in manifest.json and not there in chain.gguf",
    ),
    "missing": (
        lambda m: m["levels"].pop(),
        "levels.3.name is not there in manifest.json and 'level4' in chain.gguf",
    ),
    "surplus": (
        lambda m: m["levels"].append({**m["levels"][0], "name": "level5"}),
        "levels.4.name is 'level5' in manifest.json and not there in chain.gguf",
    ),
}


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("what", MISMATCHES)
def test_a_manifest_of_another_model_is_refused(copied: Path, what: str, backend: str) -> None:
    change, message = MISMATCHES[what]
    edit(copied, change)
    with pytest.raises(CheckFailedError, match=re.escape(message)):
        require_intact(copied, read_manifest(copied), backend)


def test_graphs_of_another_shape_are_refused(copied: Path) -> None:
    """Their digests agree: the chain's shapes are what they are run with."""
    path = copied / MODEL_NAME
    graph = onnx.load(path)
    graph.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    onnx.save(graph, path)
    with pytest.raises(UserError, match=r"onnxruntime cannot be used here: (?s:.*)model\.onnx"):
        open_context(copied, read_manifest(copied), ["onnxruntime"])


def test_onnxruntime_is_what_the_environment_names(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EOSFM_ONNXRUNTIME", "/nowhere/libonnxruntime.so")
    with pytest.raises(UserError, match=r"/nowhere/libonnxruntime\.so"):
        open_context(bundle, read_manifest(bundle), ["onnxruntime"])


def test_a_missing_onnxruntime_is_named_with_what_installs_it(bundle: Path) -> None:
    """In a process of its own: what is loaded already, the loader finds by its name."""
    program = (
        "import importlib.util, sys\n"
        "importlib.util.find_spec = lambda name: None\n"
        "from eosfm_edge.runtime.verify import verify_bundle\n"
        "verify_bundle(__import__('pathlib').Path(sys.argv[1]), 'onnxruntime')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bundle],
        env={name: value for name, value in os.environ.items() if name != "EOSFM_ONNXRUNTIME"},
        capture_output=True,
        text=True,
    )
    assert "ONNX Runtime cannot be loaded" in done.stderr
    assert "pip install '.[run]'" in done.stderr


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
