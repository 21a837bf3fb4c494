"""Encoders in the form that is deployed: against timm's, and one form against another."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.chains import narrow
from support.specimens import MOTE, SPECK, encoder_of, signal_to_noise, tiles_of
from support.speck import register
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.calibration.static_grn import make_static
from eosfm_edge.formats.ensemble import Shape
from eosfm_edge.formats.precision import FloatPrecision, LayerPrecision
from eosfm_edge.network.deployed import (
    CPU,
    NATIVE,
    TENSORRT,
    Dense,
    DeployedEncoder,
    Depthwise,
    Downsample,
    Form,
)
from eosfm_edge.network.rounding import Quantisation

# Both the cells of a level and their halves are odd: 12 x 20, 6 x 10, 3 x 5 and 1 x 2.
ODD = [tile[:, :48] for tile in tiles_of(3, 80)]
TILES = tiles_of(6)
EXACT_DB = 110


def set_precision(
    encoder: DeployedEncoder, dense: LayerPrecision, depthwise: LayerPrecision
) -> None:
    for layer in encoder.layers().values():
        layer.precision = depthwise if isinstance(layer, Depthwise) else dense


def with_scales(encoder: Any, tiles: Sequence[Tensor] = TILES) -> DeployedEncoder:
    deployed = DeployedEncoder(encoder)
    set_scales(deployed, [torch.stack(list(tiles))], "minmax", 0)
    return deployed


def levels_in(encoder: DeployedEncoder, form: Form) -> DeployedEncoder:
    """Return another encoder of the same layers, computed in a form."""
    other = copy.deepcopy(encoder)
    other.form = form
    return other


# Exact


@pytest.mark.parametrize("tiles", [TILES, ODD], ids=["64x64", "48x80"])
@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
def test_in_fp32_it_is_what_timm_computes(seed: int, tiles: list[Tensor]) -> None:
    encoder = encoder_of(seed)
    assert min(signal_to_noise(encoder, DeployedEncoder(encoder), tiles)) >= EXACT_DB


@settings(max_examples=10, deadline=None)
@given(
    depths=st.tuples(*[st.integers(1, 3)] * 4),
    widths=st.tuples(*[st.integers(1, 5)] * 4),
    bands=st.integers(1, 4),
    height=st.integers(32, 70),
    width=st.integers(32, 70),
)
def test_any_shape_is_what_timm_computes(
    depths: tuple[int, ...], widths: tuple[int, ...], bands: int, height: int, width: int
) -> None:
    widths = tuple(8 * one for one in widths)
    name = register(f"of_{'_'.join(map(str, depths + widths))}", depths, widths)
    encoder = encoder_of(sum(widths), name, bands)
    image = torch.randn(bands, height, width, generator=torch.Generator().manual_seed(height))
    deployed = DeployedEncoder(encoder)
    assert min(signal_to_noise(encoder, deployed, [image])) >= EXACT_DB
    assert len(deployed.blocks()) == sum(depths)


def test_a_linear_mlp_is_what_timm_computes() -> None:
    encoder = encoder_of(0, "nano")
    assert min(signal_to_noise(encoder, DeployedEncoder(encoder), ODD[:1])) >= EXACT_DB


@pytest.mark.parametrize("seed", [0, *thorough(1)])
def test_a_pruned_one_is_what_timm_computes(seed: int) -> None:
    shape = Shape(widths=(8, 16, 16, 8), hidden=((32,), (64,), (96, 96), (64,)))
    encoder = encoder_of(seed, SPECK, shape=shape)
    narrow(SimpleNamespace(encoders=[encoder]), seed)  # type: ignore[arg-type]
    deployed = DeployedEncoder(encoder)
    assert {one.fc1.weight.shape[1] for one in deployed.blocks().values()} - {32, 64, 96}
    assert min(signal_to_noise(encoder, deployed, ODD)) >= EXACT_DB


def test_the_original_is_neither_changed_nor_shared() -> None:
    encoder = encoder_of(0)
    before = copy.deepcopy(encoder.state_dict())
    deployed = with_scales(encoder)
    with torch.no_grad():
        for parameter in deployed.parameters():
            parameter.zero_()
    after = encoder.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_layers_have_the_names_of_the_engines_files() -> None:
    layers = DeployedEncoder(encoder_of(0)).layers()
    assert [name for name in layers if name.startswith("stages.2")] == [
        "stages.2.downsample",
        *(f"stages.2.blocks.{b}.{part}" for b in (0, 1) for part in ("conv_dw", "fc1", "fc2")),
    ]
    assert len(layers) == 3 + 3 * 5
    assert tuple(layers["stages.2.downsample"].weight.shape) == (4 * 16, 24)


# Int8


def int8(seed: int, backbone: str = SPECK) -> tuple[Any, DeployedEncoder]:
    """Return an encoder and the same with all matrices in int8."""
    encoder = encoder_of(seed, backbone)
    rounded = with_scales(encoder)
    set_precision(rounded, "int8", "half")
    return encoder, rounded


@pytest.mark.parametrize("tiles", [TILES, ODD], ids=["64x64", "48x80"])
@pytest.mark.parametrize("backbone", [SPECK, MOTE])
@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
@torch.no_grad()
def test_signed_integers_are_the_unsigned_ones_less_128(
    seed: int, backbone: str, tiles: list[Tensor]
) -> None:
    """Step by step: a value on an edge that falls to the other side moves all steps behind it.

    Decibels are over the noise of int8 itself.
    """
    encoder, rounded = int8(seed, backbone)
    unsigned, signed = levels_in(rounded, CPU), levels_in(rounded, Form(symmetric=True))
    exact = DeployedEncoder(encoder)
    x, ratios = torch.stack(tiles), {}
    for step, mine, plain in zip(unsigned.steps(), signed.steps(), exact.steps(), strict=True):
        y = step.module(x, unsigned.form)
        noise, cost = (
            (other.module(x, of.form) - y).double().square().mean()
            for other, of in ((mine, signed), (plain, exact))
        )
        if step.name != "stem":
            assert cost > 0
            ratios[step.name] = float(10 * torch.log10(cost / noise))
        x = y
    assert median(ratios.values()) >= 80 and min(ratios.values()) >= 20, ratios
    costs = [signal_to_noise(encoder, one, tiles) for one in (unsigned, signed)]
    assert max(costs[0]) < 50
    assert costs[1] == pytest.approx(costs[0], abs=0.5)


@pytest.mark.parametrize("weights", ["as they are", "halved scales"])
def test_int8_weights_are_integers_within_127(weights: str) -> None:
    rounded = with_scales(encoder_of(1))
    for layer in rounded.layers().values():
        if not isinstance(layer, Dense):
            continue
        rounding = layer.rounding
        assert rounding is not None
        if weights != "as they are":  # as scales of the least squared error clip the largest
            rounding = replace(rounding, weight_scale=rounding.weight_scale / 2)
        integers = layer.int8_weight(rounding)
        assert integers.shape == layer.weight.shape
        assert torch.equal(integers, integers.round())
        assert float(integers.abs().max()) == 127
        # They are what is multiplied by.
        layer.precision, layer.rounding = "int8", rounding
        rows = torch.randn(4, len(layer.weight))
        _, multiplied, _ = layer.operands(rows, CPU)
        assert torch.allclose(multiplied, integers * rounding.weight_scale, rtol=1e-5, atol=0)


def test_depthwise_is_int8_only_where_the_form_has_it() -> None:
    encoder = encoder_of(2)
    rounded = with_scales(encoder)
    set_precision(rounded, "fp32", "int8")
    assert min(signal_to_noise(encoder, levels_in(rounded, Form()), TILES)) >= EXACT_DB
    int8 = signal_to_noise(encoder, levels_in(rounded, Form(depthwise=True)), TILES)
    assert min(int8) > 20 and max(int8) < 60


def test_an_int8_layer_without_scales_is_an_error() -> None:
    encoder = DeployedEncoder(encoder_of(0))
    encoder.layers()["stages.2.blocks.1.fc2"].precision = "int8"
    with pytest.raises(ValueError, match="an int8 layer has no scales"):
        encoder(torch.stack(TILES))


# Halves


@pytest.mark.parametrize(("precision", "least"), [("fp16", 55), ("bf16", 35)])
@pytest.mark.parametrize("dense", ["half", "int8"])
def test_emulated_halves_are_as_good_as_real_ones(
    precision: FloatPrecision, least: float, dense: LayerPrecision
) -> None:
    encoder = encoder_of(0)
    rounded = with_scales(encoder)
    set_precision(rounded, dense, "half")
    emulated = levels_in(rounded, Form(precision, precision, rounded_products=True))
    real = levels_in(rounded, Form(precision, precision, rounded_products=True, emulated=False))
    assert [level.dtype for level in real(torch.stack(TILES))] == [torch.float32] * 4
    if dense == "half":
        assert min(signal_to_noise(emulated, real, TILES)) >= least
    costs = [signal_to_noise(encoder, one, TILES) for one in (emulated, real)]
    assert costs[0] == pytest.approx(costs[1], abs=1.5)
    assert max(costs[0]) < EXACT_DB - 30


def test_what_is_not_half_is_not_rounded_to_it() -> None:
    encoder = encoder_of(0)
    deployed = levels_in(DeployedEncoder(encoder), Form(convolutions="bf16"))
    assert min(signal_to_noise(encoder, deployed, TILES)) >= EXACT_DB
    set_precision(deployed, "fp32", "half")
    assert max(signal_to_noise(encoder, deployed, TILES)) < 70
    # fp32 in CPU's form is all that half can be there.
    set_precision(deployed, "half", "half")
    assert min(signal_to_noise(encoder, levels_in(deployed, CPU), TILES)) >= EXACT_DB


@pytest.mark.parametrize("form", [NATIVE, CPU, TENSORRT], ids=["native", "cpu", "tensorrt"])
def test_all_forms_keep_int8_close(form: Form) -> None:
    encoder = encoder_of(0)
    rounded = with_scales(encoder)
    set_precision(rounded, "int8", "int8")
    assert min(signal_to_noise(encoder, levels_in(rounded, form), TILES)) > 25


# Static GRN


def reach(encoder: DeployedEncoder) -> list[int]:
    """Return how many cells of each level a cell depends on at either side."""
    cells, found = 0, []
    for step in encoder.steps():
        if isinstance(step.module, Downsample):
            cells = -(-cells // 2)
        elif step.name != "stem":
            cells += 3
        if step.level is not None:
            found.append(cells)
    return found


def differences(encoder: DeployedEncoder, image: Tensor, shift: int) -> list[float]:
    """Return by how much two overlapping tiles differ in cells that see nothing outside both."""
    left, right = image[None, :, :, :-shift], image[None, :, :, shift:]
    found = []
    with torch.no_grad():
        for index, (a, b) in enumerate(zip(encoder(left), encoder(right), strict=True)):
            cells, margin = shift // (4 << index), reach(encoder)[index]
            both = a[..., cells:], b[..., : a.shape[-1] - cells]
            inside = [one[..., margin : one.shape[-1] - margin] for one in both]
            assert inside[0].shape[-1] > 0
            found.append(float((inside[0] - inside[1]).abs().max() / a.abs().max()))
    return found


@pytest.mark.parametrize("seed", [0, *thorough(1)])
def test_static_grn_does_not_know_where_a_tile_begins(seed: int) -> None:
    exact, static = (DeployedEncoder(encoder_of(seed)) for _ in range(2))
    make_static(exact, static, [torch.stack(TILES)])
    wide = torch.cat(tiles_of(14, seed=seed + 9), 2)[:, :32]
    wide[..., 400:] *= 0.5  # what one tile sees more of than the other
    assert max(differences(static, wide, 128)) < 1e-5
    assert min(differences(exact, wide, 128)) > 1e-4


@pytest.mark.parametrize("seed", [0, *thorough(1)])
def test_static_grn_is_solved_for_and_the_exact_one_is_left(seed: int) -> None:
    encoder = encoder_of(seed)
    exact, static, naive = (DeployedEncoder(encoder) for _ in range(3))
    tiles = tiles_of(24)
    make_static(exact, static, [torch.stack(tiles)])
    for block in naive.blocks().values():  # with no constants but 0
        block.grn.static = True
    assert min(signal_to_noise(encoder, exact, tiles)) >= EXACT_DB
    solved = signal_to_noise(encoder, static, tiles)
    assert min(solved) > 20
    assert all(
        a > b + 6 for a, b in zip(solved, signal_to_noise(encoder, naive, tiles), strict=True)
    )
    assert all(block.grn.static for block in static.blocks().values())
    assert not any(block.grn.static for block in exact.blocks().values())


# Quantisation

BOUNDS = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=200, deadline=None)
@given(BOUNDS, BOUNDS)
def test_levels_over_a_range_hold_zero_and_all_of_it(one: float, other: float) -> None:
    low, high = sorted((one, other))
    levels = Quantisation.over(low, high)
    assert 0 <= levels.zero <= 255
    assert levels.rounded(torch.zeros(1), symmetric=False).item() == 0
    values = torch.linspace(low, high, 101)
    error = (levels.rounded(values, symmetric=False) - values).abs().max().item()
    assert error <= 0.5001 * levels.scale
    # No finer than 255 steps from end to end allow, nor coarser.
    spread = max(high, 0.0) - min(low, 0.0)
    assert levels.scale * 255 == pytest.approx(spread, rel=1e-6, abs=255e-12)


@settings(max_examples=200, deadline=None)
@given(BOUNDS, BOUNDS)
def test_levels_around_zero_are_even(one: float, other: float) -> None:
    low, high = min(one, other, 0.0), max(one, other, 0.0)
    levels = Quantisation.around_zero(low, high)
    assert (levels.zero, levels.shift) == (128, 0)
    values = torch.linspace(low, high, 101)
    rounded = levels.rounded(values, symmetric=True)
    assert (rounded - values).abs().max().item() <= 0.5001 * levels.scale
    assert torch.equal(levels.rounded(-values, symmetric=True), -rounded)
    assert levels.rounded(torch.zeros(1), symmetric=True).item() == 0
    assert levels.scale * 127 == pytest.approx(max(-low, high), rel=1e-6, abs=1e-10)


@settings(max_examples=100, deadline=None)
@given(BOUNDS, BOUNDS)
def test_shifted_levels_are_the_same_levels(one: float, other: float) -> None:
    levels = Quantisation.over(*sorted((one, other)))
    values = ((torch.arange(256) - levels.zero).double() * levels.scale).float()
    unsigned = levels.rounded(values, symmetric=False)
    signed = levels.rounded(values - levels.shift, symmetric=True) + levels.shift
    tolerance = 1e-3 * levels.scale
    assert (unsigned - values).abs().max().item() <= tolerance
    assert (signed - values).abs().max().item() <= tolerance
    # And there are no others: what lies further out is clipped.
    for sign in (-1, 1):
        far = torch.full((1,), sign * 300 * levels.scale) + sign * values.abs().max()
        ends = float(values[0] if sign < 0 else values[-1])
        assert levels.rounded(far, symmetric=False).item() == pytest.approx(ends, abs=tolerance)
        clipped = levels.rounded(far - levels.shift, symmetric=True) + levels.shift
        assert clipped.item() == pytest.approx(ends, abs=tolerance)
