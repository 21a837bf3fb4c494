"""Sensitivities: against a loop that runs the whole encoder for every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from support.specimens import encoder_of, tiles_of
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.calibration.judge import Judge
from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.calibration.sensitivity import Sensitivity, sensitivities
from eosfm_edge.network.deployed import CPU, DeployedEncoder, Form

TILES = tiles_of(6)
BATCHES = [torch.stack(TILES[:4]), torch.stack(TILES[4:])]


def prepared(seed: int) -> DeployedEncoder:
    encoder = DeployedEncoder(encoder_of(seed))
    set_scales(encoder, BATCHES, "minmax", 0)
    return encoder


def normalise(levels: Sequence[Tensor]) -> list[Tensor]:
    """Do to every level something that a batch norm may do."""
    found = []
    for index, level in enumerate(levels):
        channels = torch.arange(level.shape[1])[:, None, None]
        found.append((level - 0.1 * channels) * (1 + channels + index))
    return found


@torch.inference_mode()
def slowly(encoder: DeployedEncoder) -> Sensitivity:
    judge = Judge([encoder(batch) for batch in BATCHES], normalise)
    found = {}
    for name, layer in encoder.layers().items():
        layer.precision, encoder.form = "int8", Form(depthwise=True)
        levels = judge.compare([encoder(batch) for batch in BATCHES])
        layer.precision, encoder.form = "fp32", CPU
        found[name] = tuple(200.0 if one.sqnr_db is None else one.sqnr_db for one in levels)
    return found


@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
def test_each_layer_costs_what_it_costs_in_the_whole_encoder(seed: int) -> None:
    encoder = prepared(seed)
    found, expected = sensitivities(encoder, BATCHES, normalise), slowly(encoder)
    assert list(found) == list(expected) == list(encoder.layers())
    for name, decibels in found.items():
        assert decibels == pytest.approx(expected[name], abs=1e-3), name
    costs = [level for decibels in found.values() for level in decibels if level < 200]
    assert min(costs) > 20 and max(costs) < 90


def test_a_layer_cannot_be_seen_at_levels_before_it() -> None:
    for name, decibels in sensitivities(prepared(0), BATCHES, normalise).items():
        stage = int(name.split(".")[1])
        assert decibels[:stage] == (200.0,) * stage
        assert max(decibels[stage:]) < 100


def test_the_encoder_is_left_as_it_was() -> None:
    encoder = prepared(0)
    form, roundings = encoder.form, [layer.rounding for layer in encoder.layers().values()]
    sensitivities(encoder, BATCHES, normalise)
    assert encoder.form is form
    layers = encoder.layers().values()
    assert {layer.precision for layer in layers} == {"fp32"}
    assert all(a is layer.rounding for a, layer in zip(roundings, layers, strict=True))


def test_a_layer_of_coarser_levels_costs_more() -> None:
    encoder = prepared(1)
    before = sensitivities(encoder, BATCHES, normalise)
    name = "stages.2.blocks.0.fc1"
    layer = encoder.layers()[name]
    assert layer.rounding is not None
    layer.rounding = replace(layer.rounding, weight_scale=8 * layer.rounding.weight_scale)
    after = sensitivities(encoder, BATCHES, normalise)
    assert all(a < b - 6 for a, b in zip(after[name][2:], before[name][2:], strict=True))
    assert {n for n, value in after.items() if value != before[n]} == {name}
