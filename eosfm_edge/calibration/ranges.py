"""The scales of every layer: equalisers first, then ranges of the equalised inputs.

Per tensor for activations, per channel for weights. Inputs of one layer differ in size from channel
to channel; an equaliser divides them by ``peak^a / weight^(1 - a)``, which the norm before the
layer does for nothing, and multiplies the weights (SmoothQuant, arXiv:2211.10438). Among exponents
a, methods of clipping activations and of scaling weights, those are taken whose rounded product is
closest to the exact one on rows that the layer was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eosfm_edge.calibration.activations import Inputs, gather_inputs, watching
from eosfm_edge.calibration.observers import Clip, Observer, weight_scales
from eosfm_edge.formats.calibration import METHODS, Method
from eosfm_edge.network.deployed import Dense, DeployedEncoder, Depthwise
from eosfm_edge.network.rounding import Quantisation, Rounding

EXPONENTS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
_LEAST = 1e-6  # of a peak, relative to the layer's largest: channels that are never used


@dataclass(frozen=True)
class Choice:
    """The choice made for a layer.

    Attributes:
        method: what clipped its inputs.
        clip: of the divided inputs.
        exponent: of the equaliser.
        output: of a depthwise convolution's outputs.
    """

    method: Method
    clip: Clip
    exponent: float
    output: Clip | None = None


@torch.no_grad()  # distillation differentiates through what is made here
def set_scales(
    encoder: DeployedEncoder, batches: Sequence[Tensor], method: Method | None, seed: int
) -> dict[str, Choice]:
    """Give every layer its rounding; returns what was chosen, by the layer's name.

    Args:
        encoder: with all layers in fp32, which they stay in.
        batches: calibration tiles (N, bands, H, W) in physical units, gone over twice.
        method: of clipping activations; None chooses for each tensor.
        seed: of the rows that candidates are compared on.
    """
    layers = encoder.layers()
    inputs = gather_inputs(encoder, batches, seed)
    # Channels of a depthwise convolution do not mix: each may have a scale of its own.
    equalisers = {
        name: _equaliser(name, layer, inputs[name])
        if isinstance(layer, Dense)
        else (1.0, _floored(inputs[name].peak))
        for name, layer in layers.items()
    }
    seen = {name: Observer() for name in layers}
    given = {name: Observer() for name, layer in layers.items() if isinstance(layer, Depthwise)}

    def divided(name: str) -> Callable[[Tensor], None]:
        equaliser = equalisers[name][1]
        return lambda values: seen[name].add(values / equaliser)

    with watching(layers, {n: divided(n) for n in layers}, {n: o.add for n, o in given.items()}):
        for batch in batches:
            encoder(batch)
    chosen = {}
    for name, layer in layers.items():
        exponent, equaliser = equalisers[name]
        if isinstance(layer, Depthwise):
            chosen[name] = _set_depthwise(layer, equaliser, seen[name], given[name], method)
        elif isinstance(layer, Dense):
            found = _set_dense(layer, equaliser, inputs[name], seen[name], method)
            chosen[name] = Choice(*found, exponent)
    return chosen


def _equaliser(name: str, layer: Dense, inputs: Inputs) -> tuple[float, Tensor]:
    """Return the exponent and equaliser (inputs,) of a matrix."""
    peak, weight = inputs.peak, layer.weight.abs().amax(1)
    if name.endswith("downsample"):
        peak, weight = _of_patches(peak), _of_patches(weight)
    peak, weight = _floored(peak), _floored(weight)
    best: tuple[float, float, Tensor] | None = None
    for exponent in EXPONENTS:
        equaliser = torch.ones_like(peak)
        if exponent:
            equaliser = peak**exponent / weight ** (1 - exponent)
            equaliser /= equaliser.log().mean().exp()
        rows = inputs.rows / equaliser
        rounding = Rounding(
            equaliser,
            Quantisation.over(float(rows.min()), float(rows.max())),
            weight_scales(layer.weight * equaliser[:, None], "minmax"),
        )
        error = _output_error(layer, rounding, inputs)
        if best is None or error < best[0]:
            best = error, exponent, equaliser
    assert best is not None
    return best[1:]


def _floored(peaks: Tensor) -> Tensor:
    return peaks.clamp_min(max(float(peaks.max()) * _LEAST, 1e-12))


def _of_patches(values: Tensor) -> Tensor:
    """Give the four pixels of a patch the largest of their values."""
    return values.reshape(4, -1).amax(0).repeat(4)


def _set_dense(
    layer: Dense, equaliser: Tensor, inputs: Inputs, seen: Observer, method: Method | None
) -> tuple[Method, Clip]:
    equalised = layer.weight * equaliser[:, None]
    energy = inputs.energy / equaliser.square()
    best: tuple[float, Rounding, Method, Clip] | None = None
    weights = weight_scales(equalised, "minmax"), weight_scales(equalised, "mse", energy)
    for candidate in METHODS if method is None else (method,):
        clip = seen.clip(candidate)
        for scales in weights:
            rounding = Rounding(equaliser, Quantisation.over(clip.low, clip.high), scales)
            error = _output_error(layer, rounding, inputs)
            if best is None or error < best[0]:
                best = error, rounding, candidate, clip
    assert best is not None
    layer.rounding = best[1]
    return best[2:]


def _output_error(layer: Dense, rounding: Rounding, inputs: Inputs) -> float:
    """Return the squared error of the layer's product over the rows that were kept."""
    rows = rounding.inputs.rounded(inputs.rows / rounding.equaliser, symmetric=False)
    product = rows @ (layer.int8_weight(rounding) * rounding.weight_scale)
    return float((product - inputs.rows @ layer.weight).square().sum())


def _set_depthwise(
    layer: Depthwise, equaliser: Tensor, seen: Observer, given: Observer, method: Method | None
) -> Choice:
    # Its inputs are divided by each channel's peak: nothing is there to be clipped. Its outputs
    # are rounded by themselves, and no error of a product is there to choose by but their own.
    clip, output = seen.clip(method or "minmax"), given.clip(method or "mse")
    layer.rounding = Rounding(
        equaliser,
        Quantisation.around_zero(clip.low, clip.high),
        weight_scales(layer.weight * equaliser, "minmax"),
        Quantisation.around_zero(output.low, output.high),
    )
    return Choice(method or "minmax", clip, 1.0, output)
