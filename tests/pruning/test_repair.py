"""Repair in closed form: against numpy, and by what it brings back."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from specimens import encoder_of, every_other, same_state, signal_to_noise, tiles_of
from torch import Tensor

from eosfm_edge.pruning import repair as module
from eosfm_edge.pruning.encoder import carry_out, study
from eosfm_edge.pruning.plan import GroupPlan
from eosfm_edge.pruning.recipe import Recipe
from eosfm_edge.pruning.repair import ridge_regression
from eosfm_edge.pruning.statistics import Moments, hidden_moments, level_moments
from eosfm_edge.pruning.steps import blocks

TILES = tiles_of(32)
NONE = Recipe(repair_grn=False, repair_fc2=False)
GRN = Recipe(repair_fc2=False)
BOTH = Recipe()


def batches(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(x.split(70), y.split(70), strict=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10), st.integers(1, 4))
def test_a_tiny_ridge_gives_numpys_least_squares(seed: int, channels: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, channels)) + rng.normal(size=channels)
    y = x @ rng.normal(size=(channels, outputs)) + 2 + 0.5 * rng.normal(size=(200, outputs))
    fit, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(200)]), y, rcond=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_RIDGE", 1e-10)
        weight, bias = ridge_regression(
            batches(torch.from_numpy(x).float(), torch.from_numpy(y).float()),
            torch.zeros(outputs, channels),
        )
    np.testing.assert_allclose(weight.numpy(), fit[:-1].T, atol=1e-3)
    np.testing.assert_allclose(bias.numpy(), fit[-1], atol=2e-3)


def test_what_the_cells_do_not_say_stays_as_it_was() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0.5  # never varies: nothing is known of its weight
    prior = torch.tensor([[1.0, 2.0, 7.0]])
    weight, bias = ridge_regression(iter([(x, x[:, :1] * 3 + 1)]), prior)
    assert torch.allclose(weight, torch.tensor([[3.0, 0.0, 7.0]]), atol=1e-2)
    assert float(bias) == pytest.approx(1 - 7 * 0.5, abs=1e-2)


@torch.no_grad()
def with_duplicates(seed: int, backbone: str = "speck") -> Any:
    """Every odd hidden channel is what the even one before it is, but for its column in fc2."""
    encoder = encoder_of(seed, backbone)
    for block in blocks(encoder):
        mlp = block.module.mlp
        for parameter in (mlp.fc1.weight, mlp.fc1.bias, mlp.grn.weight, mlp.grn.bias):
            parameter[1::2] = parameter[::2]
    return encoder


@pytest.mark.parametrize("seed", range(3))
def test_duplicates_go_without_loss(seed: int) -> None:
    encoder = with_duplicates(seed)
    plan = every_other(encoder)
    assert max(signal_to_noise(encoder, carry_out(encoder, plan, TILES, NONE), TILES)) < 20
    repaired = carry_out(encoder, plan, TILES, BOTH)
    assert min(signal_to_noise(encoder, repaired, TILES)) > 60


def test_a_linear_mlp_is_repaired_as_well() -> None:
    encoder = with_duplicates(0, "nano")
    plan = [one for one in every_other(encoder) if one.of == "stages_0.blocks.1"]
    none, both = (carry_out(encoder, plan, TILES[:4], recipe) for recipe in (NONE, BOTH))
    assert max(signal_to_noise(encoder, none, TILES[:4])) < 40
    assert min(signal_to_noise(encoder, both, TILES[:4])) > 60


@pytest.mark.parametrize("seed", range(4))
def test_every_part_of_the_repair_helps(seed: int) -> None:
    encoder = encoder_of(seed)
    quietest = Recipe(criterion="activation", ranking="uniform", by="channels")
    plan = study(encoder, TILES, quietest).plan(0.5, quietest)
    none, grn, both = (
        signal_to_noise(encoder, carry_out(encoder, plan, TILES, recipe), TILES)
        for recipe in (NONE, GRN, BOTH)
    )
    assert all(a < b for a, b in zip(grn, both, strict=True))
    assert sum(none) < sum(grn)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_mean_over_fewer_channels_is_made_up_for_by_grn_alone(factor: float) -> None:
    """Channels that are louder than the rest but are not read: without them GRN's mean is off."""
    encoder = encoder_of(0)
    with torch.no_grad():
        for block in blocks(encoder):
            mlp = block.module.mlp
            mlp.fc1.weight[1::2] *= factor
            mlp.fc1.bias[1::2] *= factor
            mlp.fc2.weight[:, 1::2] = 0
    plan = every_other(encoder)
    assert max(signal_to_noise(encoder, carry_out(encoder, plan, TILES, NONE), TILES)) < 30
    assert min(signal_to_noise(encoder, carry_out(encoder, plan, TILES, GRN), TILES)) > 25


@pytest.mark.parametrize("scope", ["hidden", "width"])
def test_the_original_is_not_touched(scope: str) -> None:
    encoder = encoder_of(0)
    before = copy.deepcopy(encoder)
    plan = every_other(encoder)
    if scope == "width":
        plan.append(GroupPlan(of="stages_1", keeps=8, removes=tuple(range(8)), error=0))
    pruned = carry_out(encoder, plan, TILES, Recipe(distill=2))
    assert same_state(encoder, before)
    assert [p.requires_grad for p in encoder.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    assert not {p.data_ptr() for p in pruned.parameters()} & {
        p.data_ptr() for p in encoder.parameters()
    }


def test_a_block_that_lost_nothing_is_not_solved() -> None:
    encoder = encoder_of(0)
    plan = [one for one in every_other(encoder) if one.of == "stages_2.blocks.0"]
    pruned = carry_out(encoder, plan, TILES, BOTH)
    changed = {
        key.rsplit(".", 3)[0]
        for key, value in pruned.state_dict().items()
        if not torch.equal(value, encoder.state_dict()[key])
        or value.shape != encoder.state_dict()[key].shape
    }
    assert changed == {"stages_2.blocks.0"}


def test_downsampling_is_solved_where_the_width_was_pruned() -> None:
    """A stage of which every channel is there twice loses half of them without loss."""
    encoder = encoder_of(3)
    gone = tuple(range(4, 8)) + tuple(range(12, 16))
    groups = [GroupPlan(of="stages_3", keeps=8, removes=gone, error=0)]
    kept = [c for c in range(16) if c not in gone]
    none, both = (carry_out(encoder, groups, TILES, recipe) for recipe in (NONE, BOTH))
    with torch.no_grad():
        batch = torch.stack(TILES)
        wanted = encoder(batch)[3][:, kept]
        errors = [float((e(batch)[3] - wanted).square().mean()) for e in (none, both)]
    assert errors[1] < errors[0] / 2


def test_moments_are_those_of_what_fc2_is_given() -> None:
    encoder = encoder_of(0)
    name = "stages_2.blocks.1"
    seen: list[Tensor] = []
    hook = encoder.get_submodule(f"{name}.mlp.fc2").register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    moments = hidden_moments(encoder, [torch.stack(TILES[:5]), torch.stack(TILES[5:12])])[name]
    hook.remove()
    rows = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in seen]).double().numpy()
    assert moments.count == len(rows) == 12 * 16
    np.testing.assert_allclose(moments.mean.numpy(), rows.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        moments.covariance.numpy(), np.cov(rows.T, bias=True), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(moments.energy.numpy(), (rows**2).mean(0), rtol=1e-4)


@torch.no_grad()
def test_moments_of_the_levels_are_those_of_all_cells() -> None:
    encoder = encoder_of(0)
    batch = torch.stack(TILES[:4])
    moments = level_moments(encoder, batch.split(3))
    for level, features in zip(moments, encoder(batch), strict=True):
        rows = features.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
        assert level.count == len(rows)
        np.testing.assert_allclose(
            level.covariance.numpy(), np.cov(rows.T, bias=True), rtol=1e-3, atol=1e-5
        )


def test_empty_moments_hold_nothing() -> None:
    moments = Moments.empty(3)
    assert moments.count == 0
    moments.add(torch.ones(4, 3))
    assert torch.equal(moments.mean, torch.ones(3, dtype=torch.float64))
    assert torch.equal(moments.covariance, torch.zeros(3, 3, dtype=torch.float64))
