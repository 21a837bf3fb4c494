"""No bundle is written that computes something else, and none over what is not a bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from support.precise import calibrated
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bundle import Manifest, read_manifest
from eosfm_edge.formats.precision import Precision
from eosfm_edge.native.binding import Context

Array = NDArray[np.float32]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def scales(tiny_ensemble: Path, tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scales")
    return calibrated(folder, tiny_ensemble, tiny_scene, tile=32)


@pytest.fixture(scope="module")
def export(tiny_ensemble: Path, tiny_scene: Path, scales: Path) -> Callable[..., Manifest]:
    def export(bundle: Path, precision: Precision = "fp32", overwrite: bool = False) -> Manifest:
        options = ExportOptions(
            tile=32, precision=precision, calibration=scales, overwrite=overwrite
        )
        return export_bundle(tiny_ensemble, tiny_scene, bundle, options)

    return export


@pytest.fixture(scope="module")
def exported(export: Callable[..., Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tiny.eosfm"
    export(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for bundles."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def change_levels(
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    index: int,
    change: Change,
    after: int,
) -> None:
    """Let a method that returns the levels change one of them, but not in its first calls."""
    original = getattr(owner, method)
    calls = 0

    def changed(self: Any, *args: Any, **kwargs: Any) -> list[Any]:
        nonlocal calls
        calls += 1
        levels = list(original(self, *args, **kwargs))
        if calls > after:
            levels[index] = change(levels[index])
        return levels

    monkeypatch.setattr(owner, method, changed)


def off_at_the_peak(share: float) -> Change:
    def change(level: Array | Tensor) -> Array | Tensor:
        values = np.asarray(level)  # PyTorch's too: a view
        values.flat[np.abs(values).argmax()] *= 1 + share
        return level

    return change


def refusal(export: Callable[..., Manifest], out: Path, precision: Precision = "fp32") -> str:
    with pytest.raises(CheckFailedError) as error:
        export(out / "tiny.eosfm", precision)
    assert error.value.exit_code == ExitCode.CHECK_FAILED
    assert list(out.iterdir()) == []
    return str(error.value)


WHO = [
    (Ensemble, "forward", "the exported ONNX model differs"),
    (onnxruntime.InferenceSession, "run", "the exported ONNX model differs"),
    (Context, "run", "the native engine differs"),
]
on_every_side = pytest.mark.parametrize(
    ("owner", "method", "message"), WHO, ids=["pytorch", "onnxruntime", "native"]
)


@on_every_side
@pytest.mark.parametrize("index", [3, *thorough(0)])
def test_a_level_that_differs_is_refused(
    export: Callable[..., Manifest],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    message: str,
    index: int,
) -> None:
    # In the last of the four tiles alone, and in one value of it.
    change_levels(monkeypatch, owner, method, index, off_at_the_peak(2e-3), after=3)
    found = refusal(export, out)
    assert message in found
    assert [i for i in range(4) if f"level{i + 1} by" in found] == [index]


@on_every_side
@pytest.mark.parametrize("value", [np.nan, *thorough(np.inf)])
def test_a_level_that_is_not_finite_is_refused(
    export: Callable[..., Manifest],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    method: str,
    message: str,
    value: float,
) -> None:
    change_levels(monkeypatch, owner, method, 1, lambda level: level * value, after=3)
    found = refusal(export, out)
    assert message in found
    assert "level2 by inf" in found


@pytest.mark.parametrize("precision", ["int8", *thorough("bf16")])
@pytest.mark.parametrize(
    "change", [lambda level: -level, lambda level: level * np.nan], ids=["negated", "nan"]
)
def test_a_rounded_level_without_signal_is_refused(
    export: Callable[..., Manifest],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
    change: Change,
) -> None:
    change_levels(monkeypatch, Context, "run", 2, change, after=3)
    found = refusal(export, out, precision)
    assert f"the native engine in {precision} differs" in found
    assert "level3 has -" in found


def test_a_difference_within_the_tolerance_is_written_down(
    export: Callable[..., Manifest], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_levels(monkeypatch, Ensemble, "forward", 1, off_at_the_peak(5e-5), after=3)
    export(out / "tiny.eosfm")
    for parity in read_manifest(out / "tiny.eosfm").parity:
        assert (parity.tiles, parity.tolerance) == (4, 1e-4)
        differences = [level.relative for level in parity.levels]
        assert 2e-5 < differences[1] < 8e-5
        assert max(differences[0], differences[2], differences[3]) < 1e-5


def test_a_refused_bundle_leaves_the_old_one(
    export: Callable[..., Manifest], exported: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = shutil.copytree(exported, out / "tiny.eosfm")
    before = contents(out)
    change_levels(monkeypatch, Ensemble, "forward", 0, lambda level: level + 1, after=0)
    with pytest.raises(CheckFailedError):
        export(bundle, overwrite=True)
    assert contents(out) == before


def test_a_bundle_is_not_replaced_unasked(
    export: Callable[..., Manifest], exported: Path, out: Path
) -> None:
    bundle = shutil.copytree(exported, out / "tiny.eosfm")
    before = contents(out)
    with pytest.raises(UserError, match=r"tiny\.eosfm exists\n.*--overwrite") as error:
        export(bundle)
    assert error.value.exit_code == ExitCode.WRONG_USE
    assert contents(out) == before


def test_a_bundle_is_replaced_when_asked(
    export: Callable[..., Manifest], exported: Path, out: Path
) -> None:
    bundle = shutil.copytree(exported, out / "tiny.eosfm")
    (bundle / "specialists" / "old.gguf").touch()
    (bundle / "manifest.json").write_text("{}")
    export(bundle, overwrite=True)
    assert contents(out).keys() == {f"tiny.eosfm/{name}" for name in contents(exported)}
    assert read_manifest(bundle).name == "tiny"
    assert list(out.iterdir()) == [bundle]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("thesis.tex", "thesis.tex"),
        (".hidden", ".hidden"),
        ("model.onnx.bak", "model.onnx.bak"),
        ("specialists/thesis.tex", "specialists/thesis.tex"),
        ("more/manifest.json", "more"),
    ],
)
def test_what_we_did_not_write_is_never_replaced(
    export: Callable[..., Manifest], exported: Path, out: Path, path: str, named: str
) -> None:
    bundle = shutil.copytree(exported, out / "tiny.eosfm")
    (bundle / path).parent.mkdir(exist_ok=True)
    (bundle / path).write_text("years of work")
    before = contents(out)
    with pytest.raises(UserError, match=f"holds {named}.*, which eosfm-edge did not write there"):
        export(bundle, overwrite=True)
    assert contents(out) == before


def test_a_file_or_a_link_is_never_replaced(
    export: Callable[..., Manifest], exported: Path, out: Path
) -> None:
    (out / "file.eosfm").write_text("years of work")
    (out / "link.eosfm").symlink_to(exported)
    (out / "dangling.eosfm").symlink_to(out / "nowhere")
    for path in sorted(out.iterdir()):
        with pytest.raises(UserError, match="exists and is not a directory"):
            export(path, overwrite=True)
    assert (out / "file.eosfm").read_text() == "years of work"
    assert (out / "link.eosfm").readlink() == exported
    assert (out / "dangling.eosfm").is_symlink()
