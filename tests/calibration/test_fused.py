"""Budgets of the fused levels, which may need more than those of the specialists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.specimens import ensemble_of, settle, write_ensemble

from eosfm_edge.calibration import calibrate
from eosfm_edge.calibration.calibrate import CalibrateOptions, calibrate_ensemble
from eosfm_edge.calibration.encoder import Recipe
from eosfm_edge.calibration.judge import Judge, normaliser_of
from eosfm_edge.calibration.mixed import Budget
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.formats.calibration import Calibration
from eosfm_edge.network.batches import in_batches
from eosfm_edge.network.calibration import deploy, read_calibration
from eosfm_edge.network.deployed import NATIVE, TENSORRT
from eosfm_edge.network.tiles import inputs_of, load_tiles


@pytest.fixture(scope="module")
def cancelling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two specialists that say almost the same, of which the fusion takes the difference.

    What they say goes, what rounding leaves stays.
    """
    ensemble: Any = ensemble_of()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        one, other = ensemble.encoders
        for mine, theirs in zip(other.parameters(), one.parameters(), strict=True):
            noise = torch.randn(theirs.shape, generator=generator)
            mine.copy_(theirs + 0.05 * noise * theirs.abs().mean())
        settle(ensemble)
        for fusion in ensemble.feature_fusion:
            half = fusion.weight.shape[1] // 2
            fusion.weight[:, half:] = -fusion.weight[:, :half]
            fusion.bias.zero_()
    return write_ensemble(tmp_path_factory.mktemp("cancelling") / "two", ensemble)


def calibrated(ensemble: Path, imagery: Path, output: Path, min_cosine: float) -> Calibration:
    recipe = Recipe("minmax", budget=Budget(min_cosine))
    options = CalibrateOptions(recipe=recipe, tiles=8, tile=32)
    return calibrate_ensemble(ensemble, [imagery], output, options)


def least(calibration: Calibration) -> tuple[float, float]:
    """Return the smallest cosine of specialists, and that of the fused levels."""
    native = min(level.cosine for one in calibration.specialists for level in one.native)
    return native, min(level.cosine for level in calibration.fused)


def lowered(calibration: Calibration) -> int:
    layers = [layer for one in calibration.specialists for layer in one.layers]
    return sum(layer.output is None and layer.precision != "int8" for layer in layers)


@pytest.fixture(scope="module")
def loose(cancelling: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return calibrated(cancelling, imagery, tmp_path_factory.mktemp("loose") / "c", 0.0)


def test_layers_are_lowered_until_the_fused_levels_keep_the_budget(
    cancelling: Path, imagery: Path, loose: Calibration, tmp_path: Path
) -> None:
    native, fused = least(loose)
    assert fused < native - 0.01 and not lowered(loose)
    asked = (native + fused) / 2
    found = calibrated(cancelling, imagery, tmp_path / "c", asked)
    assert least(found)[1] >= asked
    assert 0 < lowered(found) < sum(len(one.layers) for one in found.specialists)
    assert found.fused == read_calibration(tmp_path / "c")[0].fused


def test_the_figures_of_a_lowered_specialist_are_its_own(
    cancelling: Path, imagery: Path, loose: Calibration, tmp_path: Path
) -> None:
    calibrated(cancelling, imagery, tmp_path / "c", sum(least(loose)) / 2)
    found, tensors = read_calibration(tmp_path / "c")
    ensemble = load_ensemble(cancelling)
    tiles = load_tiles(ensemble, [imagery], 32, asked=8, least=0, seed=0)
    for owner, one in enumerate(found.specialists):
        encoder = deploy(ensemble.encoders[owner], one, tensors, "exact")
        batches = in_batches(inputs_of(ensemble, owner, tiles.held_out))
        with torch.inference_mode():
            exact = [ensemble.encoders[owner](batch) for batch in batches]
            judge = Judge(exact, normaliser_of(ensemble, owner))
            for form, said in ((NATIVE, one.native), (TENSORRT, one.tensorrt)):
                again = judge.compare([encoder.in_form(form)(batch) for batch in batches])
                for a, b in zip(again, said, strict=True):
                    assert a.cosine == pytest.approx(b.cosine, abs=1e-6)


def test_what_no_precision_keeps_is_said(
    cancelling: Path, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Specialists keep what is asked, and no precision would let the fused levels keep it."""
    real = calibrate.fit_fused

    def never(ensemble: Any, *arguments: Any) -> Any:
        specialists, fused = real(ensemble, *arguments)
        return specialists, tuple(level.model_copy(update={"cosine": 0.1}) for level in fused)

    monkeypatch.setattr(calibrate, "fit_fused", never)
    with pytest.raises(CheckFailedError, match=r"level1 of the fused levels has a cosine of 0\.1"):
        calibrated(cancelling, imagery, tmp_path / "c", 0.5)
    assert not list(tmp_path.iterdir())
