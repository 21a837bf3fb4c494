"""Count an ensemble's multiply-accumulates, parameters and bytes, from its shapes alone.

MACs are those of convolutions and linear layers, as in fvcore and Torch-Pruning; norms, GELU and
residuals are not counted. They are given for one pixel of the input, which makes them independent
of the tile: an image of H x W pixels takes H * W times as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import shape_of
from eosfm_edge.formats.ensemble import LEVELS, Shape

STEM_STRIDE = 4
_WEIGHT_BYTES = 4  # fp32, as an ensemble is exported unless it is asked otherwise


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates for one input pixel, and parameters."""

    macs: float
    params: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params)

    @property
    def bytes(self) -> int:
        """Bytes of the parameters in fp32."""
        return self.params * _WEIGHT_BYTES


def pixel_share(stage: int) -> float:
    """Return the cells of a stage for one pixel of the input: 1/16 ... 1/1024."""
    return float((STEM_STRIDE << stage) ** -2)


def hidden_price(width: int, stage: int) -> Cost:
    """Return what a hidden channel of a block costs: fc1's row, fc2's column, GRN's two values."""
    return Cost(2 * width * pixel_share(stage), 2 * width + 3)


def encoder_cost(shape: Shape, bands: int) -> Cost:
    """Return the cost of a ConvNeXtV2 encoder on an image of some bands."""
    before = shape.widths[0]
    patch = bands * STEM_STRIDE**2
    total = Cost(patch * before * pixel_share(0), patch * before + before + 2 * before)
    for stage, (width, hidden) in enumerate(zip(shape.widths, shape.hidden, strict=True)):
        if stage > 0:
            weights = 4 * before * width
            total += Cost(weights * pixel_share(stage), weights + width + 2 * before)
        for channels in hidden:
            depthwise = 49 * width
            total += Cost(depthwise * pixel_share(stage), depthwise + width + 2 * width + width)
            price = hidden_price(width, stage)
            total += Cost(channels * price.macs, channels * price.params)
        before = width
    return total


def runs_of(ensemble: Ensemble) -> list[int]:
    """Return how often each specialist runs for one image: not at all if it is not selected."""
    factors = ensemble.encoder_selector()
    return [
        len(sets) if float(factor) != 0 else 0
        for sets, factor in zip(ensemble.sets, factors, strict=True)
    ]


def shared_cost(ensemble: Ensemble) -> Cost:
    """Return the cost of projections and fusion, for the specialists that are run."""
    runs = runs_of(ensemble)
    total = Cost(0.0, 0)
    for level in LEVELS:
        share = pixel_share(level)
        if ensemble.feature_projections:
            for owner, times in enumerate(runs):
                projection = ensemble.feature_projections[owner][level][0]  # type: ignore[index]
                if times:
                    total += _convolution(projection, share * times, projection.in_channels)
        widths = zip(ensemble.set_widths(level), ensemble.set_owners(), strict=True)
        used = sum(width for width, owner in widths if runs[owner])
        for part in ensemble.feature_fusion[level].modules():
            if isinstance(part, nn.Conv2d):
                total += _convolution(part, share, used)
                used = part.out_channels
    return total


def ensemble_cost(ensemble: Ensemble, shapes: Sequence[Shape] | None = None) -> Cost:
    """Return the cost of an ensemble for one image, as it is or with specialists of these shapes.

    A specialist counts its MACs for each of its runs; one that is not run counts nothing.
    """
    shapes = shapes or [shape_of(encoder) for encoder in ensemble.encoders]
    total = shared_cost(ensemble)
    for specialist, runs, shape in zip(
        ensemble.spec.specialists, runs_of(ensemble), shapes, strict=True
    ):
        if runs:
            one = encoder_cost(shape, len(specialist.bands))
            total += Cost(one.macs * runs, one.params)
    return total


def _convolution(layer: nn.Conv2d, share: float, inputs: int) -> Cost:
    """Cost of a 1x1 convolution that reads so many channels, on this share of the pixels."""
    weights = layer.out_channels * inputs
    return Cost(weights * share, weights + layer.out_channels)
