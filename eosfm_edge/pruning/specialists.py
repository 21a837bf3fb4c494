"""An ensemble without some of its specialists, the fusion refitted in closed form."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from eosfm_edge.ensemble.fusion import Conv1x1
from eosfm_edge.ensemble.model import Ensemble, build_from_state
from eosfm_edge.ensemble.state import SELECTION_WEIGHTS
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import LEVELS, SelectionSpec
from eosfm_edge.pruning.features import (
    FeatureMoments,
    columns_of,
    require_fitting,
    shrunk_correlation,
)
from eosfm_edge.pruning.useless import Duplicate, find_duplicates, live_specialists, regression


@torch.no_grad()
def without_specialists(
    ensemble: Ensemble, removed: Collection[int], moments: Sequence[FeatureMoments]
) -> Ensemble:
    """Return a new ensemble without some specialists, which selects the same of the rest.

    A ``conv1x1`` is refitted to what the full one gives, by least squares on the shrunk
    covariance; a duplicate's weights go to its original before, and the bias takes over the mean.
    ``none`` loses the specialists' channels, and ``addition`` their terms.

    The digests in the spec are the old ones: saving the ensemble replaces them.

    Args:
        ensemble: is not changed.
        removed: places of the specialists.
        moments: of this ensemble, by :func:`feature_moments`.

    Raises:
        UserError: a specialist is not there, none with features would be left, or one with
            features is to go from an ensemble whose fusion is ``mlp`` or ``multiplication``.
    """
    require_fitting(ensemble, moments)
    require_indices(ensemble, removed)
    gone = set(removed)
    if not live_specialists(ensemble) - gone:
        raise UserError(
            f"without {len(gone)} of {len(ensemble.sets)} specialists there are no features left",
            expected="a selected specialist that can be run on the input to stay",
        )
    if any(ensemble.sets[i] for i in gone):
        require_removable_sets(ensemble)
    kept = [i for i in range(len(ensemble.sets)) if i not in gone]
    selection, weights = _selection_of(ensemble, kept)
    specialists = tuple(ensemble.spec.specialists[i] for i in kept)
    spec = ensemble.spec.model_copy(update={"specialists": specialists, "selection": selection})
    state = _state_of(ensemble, kept) | {SELECTION_WEIGHTS: weights}
    if ensemble.spec.fusion == "conv1x1":
        merged = [
            duplicate
            for duplicate in find_duplicates(ensemble, moments)
            if duplicate.index in gone and duplicate.of not in gone
        ]
        for level in LEVELS:
            state |= _refitted(ensemble, level, moments[level], gone, merged)
    return build_from_state(spec, state)


def _selection_of(ensemble: Ensemble, kept: list[int]) -> tuple[SelectionSpec, Tensor]:
    """Return selection and weights that give the kept specialists the factors that they have."""
    spec = ensemble.spec.selection
    weights = ensemble.encoder_selector.specialists_weights
    if spec.k is None or spec.mode == "smooth":
        k = None if spec.k is None else min(spec.k, len(kept))  # smooth makes no use of it
        return spec.model_copy(update={"k": k}), weights[kept]
    chosen = torch.zeros_like(weights, dtype=torch.bool)
    chosen[torch.topk(weights, spec.k).indices] = True
    # Which of equal weights are the largest may be another matter among fewer: those not chosen
    # are put just below.
    least = weights[chosen].min()
    below = torch.nextafter(least, torch.full_like(least, -torch.inf))
    weights = torch.where(chosen, weights, weights.minimum(below))
    return spec.model_copy(update={"k": int(chosen[kept].sum())}), weights[kept]


def _state_of(ensemble: Ensemble, kept: list[int]) -> dict[str, Tensor]:
    places = {str(old): str(new) for new, old in enumerate(kept)}
    state = {}
    for key, value in ensemble.state_dict().items():
        kind, index, *rest = key.split(".")
        if kind not in ("encoders", "feature_normalizers", "feature_projections"):
            state[key] = value
        elif index in places:
            state[".".join((kind, places[index], *rest))] = value
    return state


def _refitted(
    ensemble: Ensemble,
    level: int,
    moments: FeatureMoments,
    gone: Collection[int],
    merged: Sequence[Duplicate],
) -> dict[str, Tensor]:
    """Return weight and bias of a level's 1x1 convolution of what is left."""
    fusion = ensemble.feature_fusion[level]
    assert isinstance(fusion, Conv1x1) and fusion.bias is not None
    full = fusion.weight.flatten(1).double()
    columns = columns_of(ensemble, level)
    weight = full.clone()
    for duplicate in merged:
        mine, of = columns[duplicate.index], columns[duplicate.of]
        weight[:, of] += weight[:, mine] @ regression(moments, mine, of)
        weight[:, mine] = 0
    stays = torch.ones(len(moments.mean), dtype=torch.bool)
    for i in gone:
        stays[columns[i]] = False
    fitted = weight[:, stays] + _correction(moments, weight, stays)
    bias = fusion.bias.double() + full @ moments.mean - fitted @ moments.mean[stays]
    prefix = f"feature_fusion.{level}"
    return {f"{prefix}.weight": fitted.float()[..., None, None], f"{prefix}.bias": bias.float()}


def _correction(moments: FeatureMoments, weight: Tensor, stays: Tensor) -> Tensor:
    """Return what is added to the weights (out, channels that stay) to make up for the others."""
    correlation, deviation = shrunk_correlation(moments)
    factor = torch.linalg.cholesky(correlation[stays][:, stays])
    lost = (weight * deviation)[:, ~stays] @ correlation[~stays][:, stays]
    standardised = torch.cholesky_solve(lost.T, factor).T
    return torch.where(deviation[stays] > 0, standardised / deviation[stays], 0)


def require_indices(ensemble: Ensemble, indices: Collection[int]) -> None:
    """Refuse places where there is no specialist."""
    last = len(ensemble.sets) - 1
    for index in indices:
        if not 0 <= index <= last:
            raise UserError(f"there is no specialist {index}", expected=f"0 to {last}")


def require_removable_sets(ensemble: Ensemble) -> None:
    """Refuse fusions that a specialist with features cannot be taken from."""
    reasons: dict[str, str] = {
        "mlp": "the format fixes its hidden width to 1.25 times the channels that go in",
        "multiplication": "a product is not defined without one of its factors",
    }
    fusion = ensemble.spec.fusion
    if fusion in reasons:
        raise UserError(
            f"whole specialists of an ensemble with fusion '{fusion}' cannot be removed: "
            f"{reasons[fusion]}",
            expected="fusion conv1x1, none or addition",
            remedy="prune channels inside the specialists, or train another fusion",
        )
