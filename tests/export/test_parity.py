"""A backend is judged by its distance from fp32; a simulation only says how much rounding costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.weights import write_pth

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.exporting import choice, parity, writing
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.exporting.parity import Expected, FloatArray
from eosfm_edge.formats.bundle import Parity, read_manifest
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.formats.precision import Precision
from eosfm_edge.targets.registry import find_target

SHAPES = ((1, 8, 16, 16), (1, 16, 8, 8), (1, 24, 4, 4), (1, 32, 2, 2))


def levels(seed: int, decibels: float = np.inf) -> list[FloatArray]:
    """Return the same exact levels always, with noise of a signal to noise ratio."""
    exact, noise = np.random.default_rng(0), np.random.default_rng(seed)
    found = []
    for shape in SHAPES:
        signal, error = exact.normal(size=shape), noise.normal(size=shape)
        error *= np.linalg.norm(signal) / np.linalg.norm(error) * 10 ** (-decibels / 20)
        found.append((signal + error).astype(np.float32))
    return found


def check(backend: Sequence[FloatArray], simulated: Sequence[FloatArray]) -> Parity:
    tile = np.zeros((3, 64, 64), np.float32)
    expected = Expected([tile], [levels(0)], [simulated], "bf16")
    return parity._check(lambda _: backend, expected, "native", "test")


@pytest.mark.parametrize(
    ("backend", "simulated"), [(40, 40), (46, 40), (60, 40), (140, 40), (np.inf, 40), (38, 40)]
)
def test_a_backend_about_as_good_as_the_simulation_or_better_passes(
    backend: float, simulated: float
) -> None:
    found = check(levels(1, backend), levels(2, simulated))
    assert found.agreement is not None
    assert all(level.sqnr_db is not None and level.sqnr_db > 30 for level in found.agreement)


@pytest.mark.parametrize(("backend", "simulated"), [(35, 40), (26, 60)])
def test_a_backend_much_worse_than_the_simulation_fails(backend: float, simulated: float) -> None:
    with pytest.raises(CheckFailedError, match="does not compute what was calibrated: level1 has"):
        check(levels(1, backend), levels(2, simulated))


def test_errors_that_oppose_the_simulation_fail() -> None:
    """As far from fp32 as the simulation, and on the other side of it."""
    exact, simulated = levels(0), levels(2, 30)
    opposed = [a - (b - a) for a, b in zip(exact, simulated, strict=True)]
    with pytest.raises(CheckFailedError, match="does not compute what was calibrated"):
        check(opposed, simulated)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_not_finite_fails(value: float) -> None:
    backend = levels(1, 40)
    backend[2][0, 3, 1, 1] = value
    with pytest.raises(CheckFailedError, match="level3 has -inf dB"):
        check(backend, levels(2, 40))


def test_a_simulation_that_overflows_does_not_refuse_a_faithful_backend(tmp_path: Path) -> None:
    simulated = levels(2, 40)
    simulated[1][0, 0, 0, 0] = np.inf
    found = check(levels(1, 40), simulated)
    assert found.agreement is None
    assert Parity.model_validate_json(found.model_dump_json()) == found


# Sums that fp16 does not hold


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_large_sums_are_judged_against_fp32(
    tmp_path: Path, tiny_scene: Path, precision: Precision
) -> None:
    """Blocks whose sums pass 65504: exported, or refused with the fidelity against fp32."""
    weights = torch.load(write_pth(tmp_path / "tiny.pth", [3]), weights_only=True)
    for key, value in weights[0][1].items():
        if ".mlp.fc2." in key:
            value *= 30_000
    torch.save(weights, tmp_path / "large.pth")
    bands = tuple(InputBand(name=name, scale=1e-4) for name in ("B04", "B03", "B02"))
    import_ensemble([tmp_path / "large.pth"], tmp_path / "large", ImportOptions(input=bands))
    target = find_target("cpu" if precision == "fp32" else "desktop-tensorrt")
    options = ExportOptions(target=target, precision=precision, tile=32)
    try:
        export_bundle(tmp_path / "large", tiny_scene, tmp_path / "b.eosfm", options)
    except CheckFailedError as error:
        assert precision == "fp16"
        assert "in fp16 differs from the PyTorch ensemble" in str(error), error
    else:
        assert read_manifest(tmp_path / "b.eosfm").precision == precision


# What --precision auto does about it


@pytest.fixture
def bf16_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(ensemble: object, encoders: Any, tile: object) -> dict[Precision, float]:
        return {precision: {"bf16": 1.0, "fp32": 2.0}[precision] for precision in encoders}

    monkeypatch.setattr(choice, "time_precisions", timed)


def refuse(monkeypatch: pytest.MonkeyPatch, *precisions: Precision) -> None:
    original = writing.check_native

    def check_native(bundle: Path, expected: Expected) -> Parity:
        if expected.precision in precisions:
            raise CheckFailedError("the native engine is not itself today", remedy="rest")
        return original(bundle, expected)

    monkeypatch.setattr(writing, "check_native", check_native)


@pytest.mark.usefixtures("bf16_is_fastest")
def test_auto_drops_a_precision_that_fails_its_check(
    tmp_path: Path, tiny_ensemble: Path, tiny_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(precision="auto", tile=32)
    refuse(monkeypatch, "bf16")
    manifest = export_bundle(tiny_ensemble, tiny_scene, tmp_path / "b.eosfm", options)
    assert manifest == read_manifest(tmp_path / "b.eosfm")
    assert [one.precision for one in manifest.candidates] == ["fp32", "bf16"]
    assert manifest.precision == "fp32"
    assert manifest.candidates[0].failed is None
    assert manifest.candidates[1].failed == "the native engine is not itself today"
    assert "dropped: the native engine is not itself today" in manifest.candidates[1].summary
    plain = export_bundle(
        tiny_ensemble, tiny_scene, tmp_path / "plain" / "b.eosfm", ExportOptions(tile=32)
    )
    assert plain.files == manifest.files, "nothing of bf16 is left"


@pytest.mark.usefixtures("bf16_is_fastest")
def test_auto_fails_where_fp32_does(
    tmp_path: Path, tiny_ensemble: Path, tiny_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "bf16", "fp32")
    options = ExportOptions(precision="auto", tile=32)
    with pytest.raises(CheckFailedError, match="not itself today"):
        export_bundle(tiny_ensemble, tiny_scene, tmp_path / "b.eosfm", options)
    assert list(tmp_path.iterdir()) == []
