"""Residual widths: what specialists share is sliced to match, and solved again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.specimens import ensemble_of, imagery_of, signal_to_noise, write_ensemble
from support.tiers import thorough

from eosfm_edge.ensemble.cost import ensemble_cost
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import shape_of
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.plan import GroupPlan, Plan
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.pruning.apply import apply_plan
from eosfm_edge.pruning.narrow import narrowed_state
from eosfm_edge.pruning.planner import Planner
from eosfm_edge.pruning.prune import PruneOptions, prune_ensemble

NARROW = Recipe(scope="width", tiles=4)
TILES = imagery_of(4, 2, size=128)
SOLVED = [("conv1x1", False), ("conv1x1", True), ("addition", True), ("mlp", True), ("none", True)]


def quiet(*_: object) -> None:
    return None


def plan_of(ensemble: Ensemble, ratio: float = 0.4, recipe: Recipe = NARROW) -> Plan:
    return Planner(ensemble, TILES, recipe, None, quiet).plan(ratio, "")


def with_duplicates(fusion: str, projection: bool, normalisation: str = "batch") -> Any:
    """An ensemble whose last levels have each channel twice, which half of them can stand for."""
    ensemble: Any = ensemble_of(fusion=fusion, projection=projection, normalisation=normalisation)
    with torch.no_grad():
        for encoder, normalisers in zip(
            ensemble.encoders, ensemble.feature_normalizers, strict=True
        ):
            stage = encoder.stages_3
            mlp, convolution = stage.blocks[0].mlp, stage.downsample[1]
            for parameter in (convolution.weight, convolution.bias, mlp.fc2.weight, mlp.fc2.bias):
                parameter[8:] = parameter[:8]
            for statistic in (normalisers[3].running_mean, normalisers[3].running_var):
                statistic[8:] = statistic[:8]
            for parameter in stage.blocks[0].conv_dw.parameters():
                parameter[8:] = parameter[:8]
            stage.blocks[0].mlp.fc2.weight.zero_()
    return ensemble


@pytest.mark.parametrize(
    ("fusion", "projection"), [SOLVED[0], *thorough(*SOLVED[1:3], ("none", False))]
)
def test_a_narrowed_ensemble_is_written_and_read_again(
    fusion: str, projection: bool, imagery: Path, tmp_path: Path
) -> None:
    source = write_ensemble(tmp_path / "e", ensemble_of(fusion=fusion, projection=projection))
    options = PruneOptions(recipe=NARROW, ratio=0.4, tile=128)
    report = prune_ensemble(source, [imagery], tmp_path / "narrow", options)
    narrow, before = load_ensemble(tmp_path / "narrow"), load_ensemble(source)
    assert report.after == ensemble_cost(narrow)
    assert ensemble_cost(narrow).macs < 0.65 * ensemble_cost(before).macs
    for specialist, encoder in zip(narrow.spec.specialists, narrow.encoders, strict=True):
        assert specialist.shape == shape_of(encoder)
        assert all(a <= b for a, b in zip(specialist.shape.widths, (8, 16, 24, 16), strict=True))
        assert specialist.shape.widths != (8, 16, 24, 16)
    if fusion == "none" and not projection:
        assert report.fidelity is None  # the levels have other channels
    else:
        assert report.fidelity is not None
        assert min(level.cosine for level in report.fidelity) > 0.75


@pytest.mark.parametrize(("fusion", "projection"), SOLVED)
def test_channels_that_are_there_twice_cost_nothing(fusion: str, projection: bool) -> None:
    ensemble = with_duplicates(fusion, projection)
    plan = plan_of(ensemble, 0.2, Recipe(scope="width", criterion="magnitude"))
    groups = (GroupPlan(of="stages_3", keeps=8, removes=tuple(range(8, 16)), error=0),)
    only = [one.model_copy(update={"groups": groups}) for one in plan.specialists]
    pruned = apply_plan(ensemble, plan.model_copy(update={"specialists": tuple(only)}), TILES)
    assert min(signal_to_noise(ensemble, pruned, TILES.calibration, centred=True)) > 50


@pytest.mark.parametrize(("fusion", "projection"), [SOLVED[0], *thorough(*SOLVED[1:3])])
def test_solving_what_reads_the_levels_again_helps(fusion: str, projection: bool) -> None:
    """Against the same ensemble whose shared layers are only sliced."""
    ensemble = ensemble_of(fusion=fusion, projection=projection)
    plan = plan_of(ensemble)
    pruned: Any = apply_plan(ensemble, plan, TILES)
    solved = signal_to_noise(ensemble, pruned, TILES.calibration)
    kept = {
        owner: tuple(
            torch.tensor([c for c in range(width) if c not in set(removed.get(level, ()))])
            if removed.get(level)
            else None
            for level, width in enumerate((8, 16, 24, 16))
        )
        for owner, removed in enumerate(
            {int(g.of[-1]): g.removes for g in one.groups if "." not in g.of}
            for one in plan.specialists
        )
    }
    pruned.load_state_dict(narrowed_state(ensemble, kept), strict=False)
    sliced = signal_to_noise(ensemble, pruned, TILES.calibration)
    assert all(a >= b for a, b in zip(solved, sliced, strict=True))
    assert sum(solved) > sum(sliced) + 4


@pytest.mark.parametrize("normalisation", ["layer", "none"])
def test_other_normalisations_can_be_narrowed_too(normalisation: str) -> None:
    ensemble = ensemble_of(normalisation=normalisation)
    pruned = apply_plan(ensemble, plan_of(ensemble), TILES)
    assert min(signal_to_noise(ensemble, pruned, TILES.held_out)) > 0


@pytest.mark.parametrize("fusion", ["mlp", "addition", "multiplication"])
def test_fusions_that_fix_the_widths_are_refused(fusion: str) -> None:
    ensemble = ensemble_of(fusion=fusion)
    with pytest.raises(UserError, match=f"width cannot be pruned under fusion '{fusion}'") as error:
        plan_of(ensemble)
    assert "--scope hidden" in str(error.value)
    plan = plan_of(ensemble, 0.2, Recipe(criterion="magnitude"))
    groups = plan.specialists[1].groups
    edited = plan.specialists[1].model_copy(
        update={
            "groups": (groups[0].model_copy(update={"of": "stages_1", "removes": tuple(range(8))}),)
        }
    )
    plan = plan.model_copy(update={"specialists": (plan.specialists[0], edited)})
    with pytest.raises(UserError, match="width cannot be pruned"):
        apply_plan(ensemble, plan, TILES)


def test_a_specialist_that_is_kept_keeps_its_columns_of_the_fusion() -> None:
    ensemble = ensemble_of()
    plan = plan_of(ensemble)
    kept = plan.specialists[0].model_copy(update={"action": "keep"})
    plan = plan.model_copy(update={"specialists": (kept, plan.specialists[1])})
    pruned: Any = apply_plan(ensemble, plan, TILES)
    assert [shape_of(encoder).widths == (8, 16, 24, 16) for encoder in pruned.encoders] == [
        True,
        False,
    ]
    for level in range(4):
        assert pruned.feature_fusion[level].weight.shape[1] == sum(pruned.set_widths(level))
