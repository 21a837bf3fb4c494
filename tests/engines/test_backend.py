"""Engines as a backend, and the ladder down from it, with real bundles and a GPU's stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.stand_ins import Cuda, TensorRt

from eosfm_edge.engines import cuda as cuda_module
from eosfm_edge.engines import library as library_module
from eosfm_edge.engines.library import Library
from eosfm_edge.engines.store import save_engine
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.formats.backends import LADDERS
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.engines import EngineKey, read_index
from eosfm_edge.runtime import tensorrt
from eosfm_edge.runtime.backends import open_context
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.runtime.verify import verify_bundle

VERSION = "10.3.0.26"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    """A GPU of SM 8.9, by its stand-in."""
    stand_in = Cuda("8.9")
    monkeypatch.setattr(tensorrt, "cuda_runtime", lambda: stand_in)
    monkeypatch.setattr(cuda_module, "cuda_runtime", lambda: stand_in)
    return stand_in


@pytest.fixture
def trt(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> TensorRt:
    stand_in = TensorRt(cuda, VERSION)
    monkeypatch.setattr(
        tensorrt, "load_library", lambda name: Library(name, stand_in, stand_in.__version__)
    )
    return stand_in


@pytest.fixture
def built(bundle: Path, tmp_path: Path) -> Path:
    """The bundle with an engine for SM 8.9, which is what the stand-in runs: its graph."""
    copy = Path(shutil.copytree(bundle, tmp_path / bundle.name))
    manifest = read_manifest(copy)
    for graph in manifest.graphs:
        key = EngineKey(
            graph_sha256=manifest.files[graph].sha256,
            library="tensorrt",
            version=VERSION,
            compute_capabilities=("8.9",),
            precision=manifest.precision,
        )
        engine = (copy / graph).read_bytes()
        save_engine(copy, graph, key, engine, products={}, time_share=None, seconds=0)
    return copy


def test_the_backend_computes_the_known_answer(built: Path, trt: TensorRt) -> None:
    found = verify_bundle(built, "tensorrt")
    assert found.backend == "tensorrt"
    assert max(level.relative for level in found.levels) < found.tolerance


def test_a_wrong_answer_is_a_failed_check(built: Path, trt: TensorRt) -> None:
    trt.off = 0.5
    with pytest.raises(
        CheckFailedError, match=r"wrong answer on tensorrt: .*level \d is off the known answer by"
    ):
        verify_bundle(built, "tensorrt")


def opened(built: Path, told: list[str]) -> str:
    with open_context(
        built, read_manifest(built), LADDERS["tensorrt"], warn=told.append
    ) as context:
        return context.backend


def test_what_works_is_used(built: Path, trt: TensorRt) -> None:
    told: list[str] = []
    assert opened(built, told) == "tensorrt" and not told


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("gpu", "built for SM 8.9"),
        ("version", f"built by tensorrt {VERSION}"),
        ("answer", "off the known answer"),
        ("engine", "altered"),
        ("bytes", "does not take the engine"),
        ("memory", "cudaErrorMemoryAllocation"),
        ("driver", "cudaErrorInsufficientDriver"),
        ("none", "has no engines"),
    ],
)
def test_what_does_not_is_followed_by_the_next(
    built: Path, trt: TensorRt, cuda: Cuda, change: str, reason: str
) -> None:
    (entry,) = read_index(built).engines
    if change == "gpu":
        cuda.capability = "8.7"
    elif change == "version":
        trt.__version__ = "10.3.0.30"
    elif change == "answer":
        trt.off = 0.5
    elif change == "engine":
        (built / entry.file).write_bytes(b"altered")
    elif change == "bytes":
        shutil.rmtree(built / "engines")
        save_engine(
            built, entry.graph, entry.key, b"no engine", products={}, time_share=None, seconds=0
        )
    elif change == "memory":
        cuda.room = 1000
    elif change == "driver":
        cuda.capability = None
    else:
        shutil.rmtree(built / "engines")
    told: list[str] = []
    assert opened(built, told) == "native"
    assert told[0].startswith("tensorrt is not used: ") and reason in told[0]
    assert told[0].endswith("onnxruntime-cuda is next")
    assert "CUDAExecutionProvider" in told[1] and told[1].endswith("native is next")
    assert len(told) == 2
    with pytest.raises(UserError) as error:  # who asks for it alone is not given another
        verify_bundle(built, "tensorrt")
    assert reason in str(error.value)


def test_every_part_of_the_graph_must_be_as_it_was(built: Path, trt: TensorRt) -> None:
    """An engine of a bundle that was exported again is not used for it."""
    manifest = json.loads((built / "manifest.json").read_text())
    manifest["files"]["model.onnx"]["sha256"] = "0" * 64
    (built / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="was built from another graph of that name"):
        open_context(built, read_manifest(built), ["tensorrt"])


def test_a_run_says_who_computed(built: Path, scene: Path, trt: TensorRt, tmp_path: Path) -> None:
    told: list[str] = []

    def run(name: str) -> str:
        options = RunOptions(backend="tensorrt")
        return run_scene(built, scene, tmp_path / name, options, tell=told.append).backend

    assert run("gpu") == "tensorrt" and not told
    trt.off = 0.5
    assert run("ladder") == "native" and len(told) == 2
    pixels = []
    for name in ("gpu", "ladder"):
        with rasterio.open(tmp_path / name / "level1.tif") as level:
            pixels.append(level.read())
    assert np.nanmax(abs(pixels[0] - pixels[1])) < 1e-4 * np.nanmax(abs(pixels[1]))


def test_engines_are_no_part_of_what_was_exported(built: Path) -> None:
    assert verify_bundle(built, "native").files == len(read_manifest(built).files)


def test_old_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = TensorRt(Cuda(), "8.5.2.2")
    monkeypatch.setattr(library_module.importlib, "import_module", lambda name: old)
    with pytest.raises(UserError, match=r"TensorRT 8\.5\.2\.2 is installed(?s:.*)8\.6 or later"):
        library_module.load_library("tensorrt")
