"""Count an ensemble's multiply-accumulates, parameters and bytes, from its shapes alone.

MACs are those of convolutions and linear layers, as in fvcore and Torch-Pruning; norms, GELU and
residuals are not counted. They are given for one pixel of the input, which makes them independent
of the tile: an image of H x W pixels takes H * W times as many.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import view_of
from eosfm_edge.ensemble.view import Cost, EncoderView, pixel_share
from eosfm_edge.formats.ensemble import LEVELS


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


def ensemble_cost(ensemble: Ensemble, views: Sequence[EncoderView] | None = None) -> Cost:
    """Return the cost of an ensemble for one image, as it is or with encoders of these views.

    A specialist counts its MACs for each of its runs; one that is not run counts nothing.
    """
    views = views or [view_of(encoder) for encoder in ensemble.encoders]
    total = shared_cost(ensemble)
    for runs, view in zip(runs_of(ensemble), views, strict=True):
        if runs:
            total += Cost(view.cost.macs * runs, view.cost.params)
    return total


def _convolution(layer: nn.Conv2d, share: float, inputs: int) -> Cost:
    """Cost of a 1x1 convolution that reads so many channels, on this share of the pixels."""
    weights = layer.out_channels * inputs
    return Cost(weights * share, weights + layer.out_channels)
