"""Repair in closed form: by what it brings back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.specimens import encoder_of, every_other, same_state, signal_to_noise, tiles_of
from support.tiers import thorough

from eosfm_edge.formats.plan import GroupPlan
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network.steps import blocks, hidden_width
from eosfm_edge.pruning import encoder as encoder_module
from eosfm_edge.pruning.encoder import carry_out, distillation_steps, study

TILES = tiles_of(32)
NONE = Recipe(repair_grn=False, repair_fc2=False)
GRN = Recipe(repair_fc2=False)
BOTH = Recipe()


@torch.no_grad()
def with_duplicates(seed: int, backbone: str = "speck") -> Any:
    """Every odd hidden channel is what the even one before it is, but for its column in fc2."""
    encoder = encoder_of(seed, backbone)
    for block in blocks(encoder):
        mlp = block.module.mlp
        for parameter in (mlp.fc1.weight, mlp.fc1.bias, mlp.grn.weight, mlp.grn.bias):
            parameter[1::2] = parameter[::2]
    return encoder


@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
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


@pytest.mark.parametrize("seed", [0, *thorough(1, 2, 3)])
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


def all_but(encoder: Any, kept: int) -> list[GroupPlan]:
    """A plan that leaves so many hidden channels of every block."""
    hidden = {block.name: hidden_width(block.module) for block in blocks(encoder)}
    return [
        GroupPlan(of=name, keeps=kept, removes=tuple(range(kept, channels)), error=0)
        for name, channels in hidden.items()
    ]


def test_the_default_distils_where_most_of_the_macs_go() -> None:
    encoder = encoder_of(0, "mote")
    most, half = all_but(encoder, 8), every_other(encoder)
    assert distillation_steps(encoder, most, Recipe()) > 0
    assert distillation_steps(encoder, half, Recipe()) == 0
    assert distillation_steps(encoder, most, Recipe(distill=0)) == 0
    assert distillation_steps(encoder, half, Recipe(distill=7)) == 7


def test_the_default_is_nearer_than_the_closed_form_where_most_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder_module, "_STEPS", 20)
    encoder = encoder_of(0, "mote")
    plan = all_but(encoder, 8)
    default, closed = (
        signal_to_noise(encoder, carry_out(encoder, plan, TILES, recipe), TILES)
        for recipe in (Recipe(), Recipe(distill=0))
    )
    assert sum(default) > sum(closed) + 1


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
