"""Scales of layers: by what they gain, and by what must not change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from support.chains import image_of
from support.specimens import MOTE, SPECK, encoder_of, signal_to_noise, tiles_of
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.calibration import activations, ranges
from eosfm_edge.calibration.activations import gather_inputs, watching
from eosfm_edge.calibration.ranges import Choice, set_scales
from eosfm_edge.formats.calibration import METHODS, Method
from eosfm_edge.network.deployed import Dense, DeployedEncoder, Depthwise, Form
from eosfm_edge.network.rounding import Quantisation

TILES = tiles_of(8)
WAVES = [torch.from_numpy(image_of(3, 64, 64, seed)) for seed in range(4)]


def int8(
    encoder: Any, tiles: Sequence[Tensor], method: Method | None
) -> tuple[DeployedEncoder, dict[str, Choice]]:
    """Return an encoder with all matrices in int8, and what was chosen for its layers."""
    rounded = DeployedEncoder(encoder)
    chosen = set_scales(rounded, [torch.stack(list(tiles))], method, 0)
    for layer in rounded.layers().values():
        assert layer.precision == "fp32" and layer.watch is None and layer.watch_output is None
        layer.precision = "half" if isinstance(layer, Depthwise) else "int8"
    return rounded, chosen


@torch.no_grad()
def ill_conditioned(seed: int) -> Any:
    """Return an encoder of which every other input of every matrix is 30 times the others.

    The weights of the others are as much larger, so that all matter.
    """
    encoder = encoder_of(seed)
    for name, module in encoder.named_modules():
        if name.endswith("conv_dw") or name == "stem_1" or name.endswith("downsample.1"):
            module.weight[::2] *= 30
            module.bias[::2] *= 30
        elif name.endswith((".norm", "downsample.0")):
            module.weight[1::2] *= 30
        elif name.endswith("fc1"):
            module.weight[::2] *= 30
        elif name.endswith("fc2"):
            module.weight[:, 1::2] *= 30
            module.weight /= 30
    return encoder


# Equalisers


@pytest.mark.parametrize("seed", [0, *thorough(1, 2, 3)])
def test_equalisers_help_where_inputs_differ_in_size(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ill_conditioned(seed)
    equalised = signal_to_noise(encoder, int8(encoder, WAVES, "minmax")[0], WAVES)
    monkeypatch.setattr(ranges, "EXPONENTS", (0.0,))
    plain, chosen = int8(encoder, WAVES, "minmax")
    assert all(
        one.exponent == 0 and bool((plain.layers()[name].rounding.equaliser == 1).all())  # type: ignore
        for name, one in chosen.items()
        if not name.endswith("conv_dw")
    )
    gains = [a - b for a, b in zip(equalised, signal_to_noise(encoder, plain, WAVES), strict=True)]
    assert min(gains) >= 6, gains


@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
def test_the_pixels_of_a_patch_have_one_equaliser(seed: int) -> None:
    rounded, chosen = int8(ill_conditioned(seed), WAVES, None)
    names = [name for name in chosen if name.endswith("downsample")]
    assert len(names) == 3 and any(chosen[name].exponent for name in names)
    for name in names:
        rounding = rounded.layers()[name].rounding
        assert rounding is not None
        first, *others = rounding.equaliser.chunk(4)
        assert len(first.unique()) > 1 or not chosen[name].exponent
        assert all(torch.equal(first, other) for other in others)


def test_channels_that_are_never_used_have_an_equaliser_too() -> None:
    encoder = encoder_of(0)
    with torch.no_grad():
        mlp = encoder.stages_2.blocks[0].mlp
        mlp.fc1.weight[::3] = 0
        mlp.fc1.bias[::3] = 0
        mlp.fc2.weight[:, 1::3] = 0
        encoder.stages_1.blocks[0].conv_dw.weight[2] = 0
        encoder.stages_1.blocks[0].conv_dw.bias[2] = 0
    rounded, _ = int8(encoder, TILES, None)
    for layer in rounded.layers().values():
        assert layer.rounding is not None
        for scales in (layer.rounding.equaliser, layer.rounding.weight_scale):
            assert bool((scales > 0).all()) and bool(scales.isfinite().all())
    assert min(signal_to_noise(encoder, rounded, TILES)) > 25


def test_depthwise_inputs_are_divided_by_their_peaks() -> None:
    rounded, chosen = int8(encoder_of(1), TILES, None)
    inputs = gather_inputs(DeployedEncoder(encoder_of(1)), [torch.stack(TILES)], 0)
    for name, layer in rounded.layers().items():
        if isinstance(layer, Depthwise):
            assert layer.rounding is not None
            assert torch.allclose(layer.rounding.equaliser, inputs[name].peak)
            bounds = chosen[name].clip
            assert max(-bounds.low, bounds.high) == pytest.approx(1, rel=1e-6)
            output = chosen[name].output
            assert output is not None and layer.rounding.outputs is not None
            assert layer.rounding.outputs.scale == max(-output.low, output.high) / 127


# Methods


@pytest.mark.parametrize(("seed", "backbone"), [(0, SPECK), *thorough((1, MOTE))])
def test_auto_is_about_as_good_as_the_best_method(seed: int, backbone: str) -> None:
    encoder = encoder_of(seed, backbone)
    ratios = {
        method: sum(signal_to_noise(encoder, int8(encoder, TILES, method)[0], TILES)) / 4
        for method in (*METHODS, None)
    }
    assert ratios[None] >= max(ratios.values()) - 0.5, ratios


def product_errors(encoder: DeployedEncoder, rows: dict[str, Tensor]) -> dict[str, float]:
    """Return what int8 leaves of each matrix's product with the rows that it was given."""
    found = {}
    for name, layer in encoder.layers().items():
        if isinstance(layer, Dense):
            assert layer.rounding is not None
            inputs, weight, _ = layer.operands(rows[name] / layer.rounding.equaliser, Form())
            found[name] = float((inputs @ weight - rows[name] @ layer.weight).square().mean())
    return found


@pytest.mark.parametrize("seed", [0, *thorough(1)])
def test_auto_takes_for_each_layer_what_leaves_the_smallest_error(seed: int) -> None:
    encoder = encoder_of(seed)
    exact = DeployedEncoder(encoder)
    rows: dict[str, Tensor] = {}
    layers = exact.layers()
    keep = {n: lambda x, n=n: rows.update({n: x.flatten(0, -2)}) for n in layers}  # type: ignore
    with torch.inference_mode(), watching(layers, keep):
        exact(torch.stack(TILES))
    auto, chosen = int8(encoder, TILES, None)
    assert len({chosen[name].method for name in product_errors(auto, rows)}) > 1
    least = product_errors(auto, rows)
    for method in METHODS:
        single, _ = int8(encoder, TILES, method)
        for name, error in product_errors(single, rows).items():
            # It was compared on a sample of the rows.
            assert least[name] <= 1.1 * error, (name, method, chosen[name])


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_asked_for_is_taken_everywhere(method: Method) -> None:
    rounded, chosen = int8(encoder_of(0), TILES[:2], method)
    assert list(chosen) == list(rounded.layers())
    assert {one.method for one in chosen.values()} == {method}
    for name, layer in rounded.layers().items():
        clip = chosen[name].clip
        spread = Quantisation.around_zero if isinstance(layer, Depthwise) else Quantisation.over
        assert layer.rounding is not None
        assert layer.rounding.inputs == spread(clip.low, clip.high)


# What must not matter


@pytest.mark.parametrize("sizes", [(1,) * 8, (3, 5), (5, 3)])
def test_neither_batches_nor_their_order_change_ranges(
    sizes: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Exponents are chosen by rows that are drawn from each batch.
    monkeypatch.setattr(ranges, "EXPONENTS", (0.6,))
    encoder = encoder_of(0)
    _, chosen = int8(encoder, TILES, "minmax")
    other = DeployedEncoder(encoder)
    parts = torch.stack(TILES[::-1]).split(list(sizes))
    for name, found in set_scales(other, parts, "minmax", 1).items():
        expected = chosen[name]
        assert (found.clip.low, found.clip.high) == pytest.approx(
            (expected.clip.low, expected.clip.high), rel=1e-4, abs=1e-5
        )
        if expected.output:
            assert found.output is not None
            assert (found.output.low, found.output.high) == pytest.approx(
                (expected.output.low, expected.output.high), rel=1e-4, abs=1e-5
            )


def test_the_same_seed_gives_the_same_scales() -> None:
    first, second = (int8(encoder_of(0), TILES, None) for _ in range(2))
    assert first[1] == second[1]
    for one, other in zip(first[0].layers().values(), second[0].layers().values(), strict=True):
        assert one.rounding is not None and other.rounding is not None
        assert torch.equal(one.rounding.weight_scale, other.rounding.weight_scale)
        assert torch.equal(one.rounding.equaliser, other.rounding.equaliser)


# What layers are given


def test_inputs_are_gathered_from_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "ROWS", 60)
    encoder = DeployedEncoder(encoder_of(0))
    batches = [torch.stack(TILES[:4]), torch.stack(TILES[4:7])]
    every: dict[str, list[Tensor]] = {}
    for name, layer in encoder.layers().items():
        layer.watch = lambda x, name=name: every.setdefault(name, []).append(x.flatten(0, -2))  # type: ignore
    with torch.inference_mode():
        for batch in batches:
            encoder(batch)
    found = gather_inputs(encoder, batches, 0)
    for name, parts in every.items():
        rows, mine = torch.cat(parts), found[name]
        assert torch.equal(mine.peak, rows.abs().amax(0))
        assert torch.allclose(mine.energy, rows.square().mean(0), rtol=1e-4)
        assert len(mine.rows) == min(60, sum(min(30, len(part)) for part in parts))
        from_first = [any(torch.equal(row, one) for one in parts[0]) for row in mine.rows[:30]]
        from_second = [any(torch.equal(row, one) for one in parts[1]) for row in mine.rows[-5:]]
        assert from_second == [True] * 5
        assert sum(from_first) >= min(30, len(parts[0]))
