"""The TensorRT backend of libeosfm, on a stand-in for TensorRT and CUDA: no GPU is needed.

The list of engines is the one that `eosfm-edge build` writes.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import support.speck  # noqa: F401  (the backbone of these bundles)
from support.chains import random_ensemble, spec_of, write
from support.programs import BUILDS, RUNTIME, build, run

from eosfm_edge.engines.store import save_engine
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.bundle import ENGINES_FOLDER, MODEL_NAME
from eosfm_edge.formats.engines import INDEX_NAME, EngineKey

STANDIN = RUNTIME / "tests" / "tensorrt_standin"


@pytest.fixture(scope="module")
def backend(programs: Path) -> Path:
    """The path of ``libeosfm_tensorrt.so``, built against the stand-in."""
    needed = "#include <nlohmann/json.hpp>\n#include <openssl/evp.h>\n"
    found = subprocess.run(
        ["c++", "-x", "c++", "-E", "-"], input=needed, text=True, capture_output=True
    )
    if found.returncode != 0:
        pytest.skip("there is no nlohmann-json3-dev or no libssl-dev")
    folder = BUILDS / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    standin = folder / "libnvinfer_standin.so"
    run(
        ["c++", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{STANDIN}",
         f"-I{RUNTIME / 'include'}", STANDIN / "standin.cc", programs.parent / "libeosfm.a",
         "-Wl,--exclude-libs,ALL", "-lpthread", "-lm", "-o", standin]
    )  # fmt: skip
    tests = build(
        "tensorrt",
        f"EOSFM_TENSORRT_INCLUDE={STANDIN}",
        f"EOSFM_TENSORRT_LIBRARY={standin}",
        f"EOSFM_CUDA_INCLUDE={STANDIN}",
        f"EOSFM_CUDA_LIBRARY={standin}",
        targets=["eosfm_tensorrt"],
    )
    return tests.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a graph, and ``other`` of other weights beside it."""
    folder = tmp_path_factory.mktemp("bundles")
    spec = spec_of((2, 2), 2, backbone="speck")
    write(folder / "other", random_ensemble(spec, seed=1), 32)
    return write(folder / "bundle", random_ensemble(spec), 32, layout="whole")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def add_engine(
    bundle: Path,
    engine: str,
    version: str = "10.3.0.26",
    capability: str = "8.7",
    graph_sha256: str | None = None,
) -> Path:
    """Do what `eosfm-edge build` does; returns the engine's file."""
    key = EngineKey(
        graph_sha256=graph_sha256 or sha256_file(bundle / MODEL_NAME),
        library="tensorrt",
        version=version,
        compute_capabilities=(capability,),
        precision="fp32",
    )
    entry = save_engine(
        bundle, MODEL_NAME, key, engine.encode(), products={}, time_share=None, seconds=1.0
    )
    return bundle / entry.file


@pytest.fixture
def verify(programs: Path, backend: Path, bundle: Path) -> Callable[[], str]:
    """Return what the example says of the bundle with TensorRT, or else libeosfm."""
    where = {"LD_LIBRARY_PATH": str(backend)}
    return lambda: run([programs / "verify", bundle, "tensorrt native"], where)


@pytest.mark.engines
@pytest.mark.parametrize("mode", ["fixed", "dynamic"])
def test_an_engine_that_was_built_here_computes(
    verify: Callable[[], str], bundle: Path, made: Path, mode: str
) -> None:
    add_engine(bundle, f"{made} fixed", version="8.6.1")
    add_engine(bundle, f"{made} fixed", capability="8.9")
    add_engine(bundle, f"{made} {mode}")
    said = verify()
    assert "(tensorrt, " in said and "is not used" not in said


@pytest.mark.parametrize(
    ("engine", "key", "reason"),
    [
        ("{made} fixed", {"version": "8.6.1"}, "fp32-*.engine was built by tensorrt 8.6.1"),
        ("{made} fixed", {"capability": "8.9"}, "was built for another GPU"),
        ("{made} fixed", {"graph_sha256": "0" * 64}, "was built from another graph"),
        ("/nowhere fixed", {}, "TensorRT does not take the engine of model.onnx: it is no engine"),
        ("{made} half", {}, "image of the engine is not float32"),
        ("{made} fail", {}, "TensorRT failed to run: it was told to fail"),
        ("{other} fixed", {}, "off the known answer"),
    ],
)
def test_what_does_not_fit_is_not_used(
    verify: Callable[[], str],
    bundle: Path,
    made: Path,
    engine: str,
    key: dict[str, str],
    reason: str,
) -> None:
    add_engine(bundle, engine.format(made=made, other=made.parent / "other"), **key)
    said = verify()
    assert "(native, " in said
    assert reason.split("*")[-1] in said


def test_damage_is_found(verify: Callable[[], str], bundle: Path, made: Path) -> None:
    assert "cannot read" in verify(), "nothing was built"
    engine = add_engine(bundle, f"{made} fixed")
    engine.write_bytes(engine.read_bytes()[::-1])
    assert "is not what was built" in verify()
    engine.unlink()
    assert "cannot read" in verify()
    index = bundle / ENGINES_FOLDER / INDEX_NAME
    for text in ("", "[]", index.read_text()[:-20], '{"format": "eosfm-engines"}'):
        index.write_text(text)
        assert "engines.json is damaged" in verify()
    index.write_text('{"format": "other", "schema_version": 1, "engines": []}')
    assert "it is not version 1 of eosfm-engines" in verify()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            {"EOSFM_STANDIN_DRIVER": "11040"},
            "the driver is for CUDA 11.4, expected one for CUDA 12.6",
        ),
        ({"EOSFM_STANDIN_RUNTIME": "null"}, "TensorRT cannot be used: it gives no reason"),
        ({"EOSFM_STANDIN_RUNTIME": "silent"}, "TensorRT cannot be used: it gives no reason"),
        (
            {"EOSFM_STANDIN_RUNTIME": "logged"},
            "TensorRT cannot be used: CUDA initialization failure",
        ),
    ],
)
def test_a_driver_that_does_not_fit_is_no_crash(
    verify: Callable[[], str],
    bundle: Path,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, str],
    reason: str,
) -> None:
    add_engine(bundle, f"{made} fixed")
    for name, value in fault.items():
        monkeypatch.setenv(name, value)
    said = verify()
    assert "(native, " in said
    assert reason in said
