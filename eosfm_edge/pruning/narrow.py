"""Fit what specialists share to pruned residual widths: slice it to match, then solve it again.

Normalisation statistics lose the removed channels. The layer that reads the sets, a specialist's
projection or the fusion, loses their columns and is solved in closed form, so that it gives what it
gave of the original features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import LEVELS
from eosfm_edge.network.regression import Regression, set_linear
from eosfm_edge.network.steps import as_rows, weight_of
from eosfm_edge.pruning.repair import Kept


def require_narrowable(ensemble: Ensemble) -> None:
    """Check that residual widths of an ensemble's specialists may change.

    Raises:
        UserError: the fusion needs the sets as wide as they are.
    """
    fusion = ensemble.spec.fusion
    if fusion in ("mlp", "addition", "multiplication") and not ensemble.spec.projection:
        raise UserError(
            f"the residual width cannot be pruned under fusion '{fusion}', which needs the feature "
            "sets as wide as they are",
            expected="fusion 'conv1x1' or 'none', or projections",
            remedy="prune hidden channels: --scope hidden",
        )


def narrowed_state(ensemble: Ensemble, kept: Mapping[int, Kept]) -> dict[str, Tensor]:
    """Return what specialists share, under the reference's names, with channels sliced away.

    Args:
        ensemble: the original.
        kept: by specialist, the channels of each level that are left, None for all.
    """
    state = {k: v for k, v in ensemble.state_dict().items() if not k.startswith("encoders.")}
    for level in LEVELS:
        columns: list[Tensor] = []
        for owner, width in zip(ensemble.set_owners(), ensemble.set_widths(level), strict=True):
            left = kept[owner][level] if owner in kept and not ensemble.spec.projection else None
            columns.append(_flags(width, left))
        for owner, per_level in kept.items():
            left = per_level[level]
            if left is None:
                continue
            for key in (
                f"feature_normalizers.{owner}.{level}.running_{s}" for s in ("mean", "var")
            ):
                if key in state:
                    state[key] = state[key][left]
            projection = f"feature_projections.{owner}.{level}.0.weight"
            if projection in state:
                state[projection] = state[projection][:, left]
        fusion = f"feature_fusion.{level}.weight"
        if fusion in state:
            state[fusion] = state[fusion][:, torch.cat(columns)]
    return state


def _flags(width: int, left: Tensor | None) -> Tensor:
    flags = torch.full((width,), left is None)
    if left is not None:
        flags[left] = True
    return flags


@torch.inference_mode()
def refit_shared(original: Ensemble, narrowed: Ensemble, tiles: Sequence[Tensor]) -> None:
    """Solve the layers that read narrowed features again, in place.

    Args:
        original: what it shall equal.
        narrowed: the same specialists with fewer residual channels.
        tiles: images (bands, H, W) in physical units.
    """
    if original.spec.projection:
        _refit_projections(original, narrowed, tiles)
    fits = {
        level: _regression(fusion)
        for level, fusion in enumerate(narrowed.feature_fusion)
        if isinstance(fusion, nn.Conv2d)
    }
    factors = narrowed.encoder_selector()
    for tile in tiles if fits else ():
        image = tile[None]
        features = [
            [f * factors[owner] for f in narrowed.set_features(image, owner, bands)]
            for owner, sets in enumerate(narrowed.sets)
            for bands in sets
        ]
        targets = original(image)
        for level, fit in fits.items():
            mine = torch.cat([levels[level] for levels in features], 1)
            fit.add(as_rows(mine, last=False), as_rows(targets[level], last=False))
    for level, fit in fits.items():
        fusion = narrowed.feature_fusion[level]
        set_linear(fusion, *fit.solve(weight_of(fusion)))


def _refit_projections(original: Any, narrowed: Any, tiles: Sequence[Tensor]) -> None:
    """Solve the projections before their activation."""
    for owner, sets in enumerate(original.sets):
        before, after = (
            [per_level[0] for per_level in e.feature_projections[owner]]
            for e in (original, narrowed)
        )
        pairs = zip(before, after, strict=True)
        if not sets or all(weight_of(a).shape == weight_of(b).shape for a, b in pairs):
            continue
        fits = [_regression(layer) for layer in after]
        for tile in tiles:
            for bands in sets:
                image = tile[list(bands)][None]
                features = [
                    map(_call, e.feature_normalizers[owner], e.encoders[owner](image))
                    for e in (original, narrowed)
                ]
                for fit, layer, target, mine in zip(fits, before, *features, strict=True):
                    fit.add(as_rows(mine, last=False), as_rows(layer(target), last=False))
        for fit, layer in zip(fits, after, strict=True):
            set_linear(layer, *fit.solve(weight_of(layer)))


def _call(module: Any, x: Tensor) -> Tensor:
    result: Tensor = module(x)
    return result


def _regression(layer: Any) -> Regression:
    outputs, channels = weight_of(layer).shape
    return Regression(channels, outputs)
