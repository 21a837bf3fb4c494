"""A bundle in libeosfm without the specialists' files, from which only native and cuda compute."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.chains import image_of, random_ensemble, spec_of, write

from eosfm_edge.formats.bundle import MODEL_NAME
from eosfm_edge.native.binding import Model
from eosfm_edge.native.header import NOT_FOUND, EosfmError
from eosfm_edge.runtime.backends import onnxruntime_library

BAD_BUNDLE, UNSUPPORTED = 3, 4
BANDS, TILE = 2, 32


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = spec_of((2, 2), BANDS, backbone="speck")
    folder = tmp_path_factory.mktemp("files")
    return write(folder / "b", random_ensemble(spec), TILE, layout="whole")


def delete_all(bundle: Path) -> None:
    shutil.rmtree(bundle / "specialists")


def delete_one(bundle: Path) -> None:
    (bundle / "specialists" / "s1.gguf").unlink()


def empty_one(bundle: Path) -> None:
    (bundle / "specialists" / "s0.gguf").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "named"),
    [(delete_all, "s0.gguf"), (delete_one, "s1.gguf"), (empty_one, "s0.gguf is empty")],
)
def test_graphs_are_enough_for_who_computes_from_them(
    whole: Path, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    image = list(image_of(BANDS, TILE, TILE))
    with Model(whole) as model, model.context() as native:
        expected = native.run(image)
        described = model.describe(), model.specialist(1)
    bundle = shutil.copytree(whole, tmp_path / "b")
    change(bundle)
    warnings: list[str] = []
    library = onnxruntime_library()
    with Model(bundle, warnings.append) as model:
        for backends in (None, "native"):
            with pytest.raises(EosfmError, match=named) as error:
                model.context(backends=backends)
            assert error.value.status == NOT_FOUND
            assert "native and cuda compute from the specialists' files" in str(error.value)
        with pytest.raises(EosfmError, match=named) as error:
            model.requirements()
        assert error.value.status == NOT_FOUND
        info, one = model.describe(), model.specialist(1)
        assert list(info.channels) == list(described[0].channels)
        assert (one.name, one.bands, one.runs) == (b"s1", BANDS, described[1].runs)
        assert (one.backbone, one.licence) == (b"", b"")
        warnings.clear()
        with model.context(backends="native onnxruntime", backend_library=library) as context:
            assert context.backend == "onnxruntime"
            for got, right in zip(context.run(image), expected, strict=True):
                np.testing.assert_allclose(got, right, atol=1e-4 * np.abs(right).max())
            good, _ = context.verify()
            assert good
            with pytest.raises(EosfmError, match="runs all specialists"):
                context.set_active([True, False])
        assert any(named in line and "onnxruntime is next" in line for line in warnings)


def test_a_host_s_engine_needs_no_files(whole: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(whole, tmp_path / "b")
    delete_all(bundle)
    with (
        Model(whole) as complete,
        complete.context() as native,
        Model(bundle) as model,
        model.context(lambda image: native.run(list(image)), backends="host native") as context,
    ):
        assert context.backend == "host"


def test_a_damaged_specialist_is_no_missing_one(whole: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(whole, tmp_path / "b")
    with (bundle / "specialists" / "s0.gguf").open("r+b") as file:
        file.write(b"FFUG")
    with pytest.raises(EosfmError, match=r"s0\.gguf"):
        Model(bundle)


def test_a_tolerance_belongs_to_the_files(whole: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(whole, tmp_path / "b")
    chain = bundle / "chain.gguf"
    content = chain.read_bytes()
    assert content.count(b"eosfm.known.tolerances") == 1
    chain.write_bytes(content.replace(b"eosfm.known.tolerances", b"eosfm.other.tolerances"))
    with pytest.raises(EosfmError, match=r"has no eosfm\.known\.tolerances") as error:
        Model(bundle)
    assert error.value.status == BAD_BUNDLE
    delete_all(bundle)
    library = onnxruntime_library()
    with (
        Model(bundle) as model,
        model.context(None, backends="onnxruntime", backend_library=library) as context,
    ):
        assert context.verify()[0]


def test_without_graphs_the_specialists_are_needed(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b", random_ensemble(spec_of((2, 2), BANDS, backbone="speck")), TILE)
    with Model(bundle) as model, pytest.raises(EosfmError, match="has no ONNX graph") as error:
        model.context(backends="onnxruntime", backend_library=onnxruntime_library())
    assert error.value.status == UNSUPPORTED
    delete_one(bundle)
    with pytest.raises(EosfmError, match=r"s1\.gguf") as error:
        Model(bundle)
    assert error.value.status == NOT_FOUND


def test_graphs_that_are_missing_are_named(whole: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(whole, tmp_path / "b")
    (bundle / MODEL_NAME).unlink()
    with Model(bundle) as model:
        with pytest.raises(EosfmError, match=MODEL_NAME) as error:
            model.context(backends="onnxruntime", backend_library=onnxruntime_library())
        assert error.value.status == NOT_FOUND
        with model.context() as context:
            assert context.backend == "native"
