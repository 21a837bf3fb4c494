"""Compare the view of an encoder with timm's network and with the deployed one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.specimens import MOTE, encoder_of, imagery_of

from eosfm_edge.ensemble.specialist import build_encoder, full_shape, view_of
from eosfm_edge.ensemble.view import EncoderView
from eosfm_edge.formats.ensemble import Shape
from eosfm_edge.formats.plan import GroupPlan
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network.deployed import DeployedEncoder
from eosfm_edge.network.steps import steps
from eosfm_edge.pruning.encoder import carry_out, pruned_view

UNEVEN = Shape(widths=(8, 24, 16, 32), hidden=((16,), (8,), (40, 24), (8,)))


@pytest.mark.parametrize("backbone", ["convnextv2_atto", "convnextv2_nano"])
def test_steps_hold_every_parameter_of_timms_network(backbone: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(backbone, 5)
    view = view_of(encoder)
    assert view == EncoderView(5, full_shape(backbone))
    found = [
        f"{module}.{name}"
        for step in view.steps
        for module in step.modules
        for name, _ in encoder.get_submodule(module).named_parameters()
    ]
    assert sorted(found) == sorted(name for name, _ in encoder.named_parameters())
    for step in view.steps:
        held = [encoder.get_submodule(module).parameters() for module in step.modules]
        assert step.cost.params == sum(p.numel() for each in held for p in each), step.name


def test_steps_give_images_of_their_width_and_end_in_the_levels() -> None:
    encoder: Any = encoder_of(shape=UNEVEN, backbone=MOTE, bands=4)
    x = torch.rand(1, 4, 64, 64)
    levels = []
    expected = encoder(x)
    for step in view_of(encoder).steps:
        for module in step.modules:
            x = encoder.get_submodule(module)(x)
        assert x.shape[1] == step.width
        if step.level is not None:
            assert step.level == len(levels)
            levels.append(x)
    assert all(torch.equal(a, b) for a, b in zip(levels, expected, strict=True))


def test_deployed_and_original_networks_have_the_steps_of_one_view() -> None:
    encoder: Any = encoder_of(shape=UNEVEN, backbone=MOTE)
    deployed = DeployedEncoder(encoder)
    assert deployed.view == view_of(encoder)
    names = [step.name for step in deployed.view.steps]
    assert [step.name for step in deployed.steps()] == names
    assert names[0] == "stem" and names[-1] == "stages.3.blocks.0"
    assert [step.name for step in steps(encoder)] == [
        module for step in deployed.view.steps for module in step.modules
    ]


def test_groups_are_what_plans_may_name() -> None:
    assert EncoderView(3, UNEVEN).groups == {
        "stages_0": 8, "stages_1": 24, "stages_2": 16, "stages_3": 32,
        "stages_0.blocks.0": 16, "stages_1.blocks.0": 8, "stages_2.blocks.0": 40,
        "stages_2.blocks.1": 24, "stages_3.blocks.0": 8,
    }  # fmt: skip


def test_the_view_after_a_plan_is_that_of_the_pruned_encoder() -> None:
    encoder = encoder_of(shape=UNEVEN, backbone=MOTE)
    groups = [
        GroupPlan(of="stages_1", keeps=16, removes=tuple(range(0, 24, 3)), error=0.0),
        GroupPlan(of="stages_2.blocks.1", keeps=16, removes=tuple(range(8)), error=0.0),
    ]
    pruned = carry_out(
        encoder, groups, imagery_of(2, 1).calibration, Recipe(repair_grn=False, repair_fc2=False)
    )
    assert view_of(pruned) == pruned_view(view_of(encoder), groups)
    assert view_of(pruned).cost.macs < view_of(encoder).cost.macs
