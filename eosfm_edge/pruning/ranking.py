"""Rankings of whole specialists: which an ensemble can do without first.

Everything but :func:`rank_by_probe` works without labels, from the mean and covariance of the
features that go into the fusion. Removing columns S of a fusion with weights W, and refitting the
rest in closed form, adds the squared error tr(W_S (P_SS)^-1 W_S^T), where P is the inverse of the
covariance: the optimal brain surgeon (Hassibi and Stork, NIPS 1993) with blocks for weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eosfm_edge.ensemble.fusion import Conv1x1
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import LEVELS
from eosfm_edge.pruning.features import (
    CONSTANT,
    FeatureMoments,
    columns_of,
    fusion_inputs,
    require_fitting,
    shrunk_correlation,
)
from eosfm_edge.pruning.specialists import require_indices, require_removable_sets
from eosfm_edge.pruning.useless import (
    Duplicate,
    find_duplicates,
    live_specialists,
    regression,
    residual,
    without_features,
)

_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of a probe, relative to the kernel's mean diagonal


@dataclass(frozen=True)
class RankedSpecialist:
    """A specialist in its place in a ranking, which has the one to remove first at its start.

    Attributes:
        index: its place in the ensemble.
        name: its name.
        cost: what its removal costs at its turn: by reconstruction, the error that it adds as a
            share of the fused features' variance, mean over the levels; by probe, the accuracy
            lost, below 0 if some is gained; by selection, its selection weight.
        why: one sentence for the user.
    """

    index: int
    name: str
    cost: float
    why: str


def rank_by_reconstruction(
    ensemble: Ensemble, moments: Sequence[FeatureMoments], protected: Collection[int] = ()
) -> list[RankedSpecialist]:
    """Rank specialists by what the fused features lose without them: backward elimination.

    At each turn the specialist goes whose removal adds the least squared error, as a share of the
    fused features' variance and as a mean over the levels, when what is left of the fusion is
    refitted. With fusion ``none`` that is the error of making its channels from the rest's, though
    the output loses them. With ``addition``, which has nothing to refit, it is the variance of
    what the specialist adds. Those without features go first and cost nothing.
    Duplicates are next: their weights go to their originals, without shrinking.

    Args:
        ensemble: is not changed.
        moments: of this ensemble, by :func:`feature_moments`.
        protected: places of specialists that stay; they are not ranked.

    Raises:
        UserError: a protected one is not there, or the fusion is ``mlp`` or ``multiplication``.
    """
    require_fitting(ensemble, moments)
    require_removable_sets(ensemble)
    require_indices(ensemble, protected)
    dead = [entry for entry in _ranked_dead(ensemble) if entry.index not in protected]
    candidates = live_specialists(ensemble) - set(protected)
    if ensemble.spec.fusion == "addition":
        return dead + _ranked_by_variance(ensemble, moments, candidates)
    duplicates = [d for d in find_duplicates(ensemble, moments) if d.index in candidates]
    eliminations = [_Elimination(ensemble, level, moments[level]) for level in LEVELS]
    ranked = []
    for duplicate in duplicates:
        lost = sum(elimination.merge(duplicate) for elimination in eliminations) / len(LEVELS)
        original = ensemble.spec.specialists[duplicate.of].name
        why = f"its features are a linear function of {original}'s, R² {duplicate.r2:.5f}"
        ranked.append(_ranked(ensemble, duplicate.index, lost, why))
        candidates.remove(duplicate.index)

    def cost(i: int) -> float:
        return sum(elimination.cost(i) for elimination in eliminations) / len(LEVELS)

    while candidates:
        costs = {i: cost(i) for i in sorted(candidates)}
        least = min(costs, key=lambda i: costs[i])
        why = f"{costs[least]:.3%} of the fused features cannot be made of what is left"
        ranked.append(_ranked(ensemble, least, costs[least], why))
        candidates.remove(least)
        for elimination in eliminations:
            elimination.remove(least)
    return dead + ranked


class _Elimination:
    """One level's fusion while specialists are taken from it, by block downdates of one inverse.

    All on the scale of standardised features. Columns that are gone stay in place, as zeros.
    """

    def __init__(self, ensemble: Ensemble, level: int, moments: FeatureMoments) -> None:
        self.moments = moments
        self.columns = columns_of(ensemble, level)
        correlation, self.deviation = shrunk_correlation(moments)
        self.weights = _weights(ensemble, level, len(self.deviation)) * self.deviation
        self.variance = float(torch.einsum("oc,oc->", self.weights @ correlation, self.weights))
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(correlation))

    def merge(self, duplicate: Duplicate) -> float:
        """Give a duplicate's weights to its original; return what that costs."""
        mine, of = self.columns[duplicate.index], self.columns[duplicate.of]
        # Where a channel does not vary its weight is 0 here.
        raw = torch.where(self.deviation > 0, self.weights / self.deviation, 0)[:, mine]
        lost = float(torch.einsum("oc,oc->", raw @ residual(self.moments, mine, of), raw))
        self.weights[:, of] += raw @ regression(self.moments, mine, of) * self.deviation[of]
        self.weights[:, mine] = 0
        self.remove(duplicate.index)
        return max(0.0, lost) / self.variance if self.variance > 0 else 0.0

    def cost(self, i: int) -> float:
        if self.variance == 0:
            return 0.0
        gone = self.weights[:, self.columns[i]]
        return float((gone.T @ gone * self._without(i)).sum()) / self.variance

    def remove(self, i: int) -> None:
        mine = self.columns[i]
        across = self.inverse[mine].clone()
        from_rest = self._without(i) @ across
        self.weights.addmm_(self.weights[:, mine].clone(), from_rest, alpha=-1)
        self.inverse.addmm_(across.T, from_rest, alpha=-1)

    def _without(self, i: int) -> Tensor:
        """Return (P_SS)^-1: the covariance of what the rest cannot give of a specialist's."""
        block = self.inverse[self.columns[i], self.columns[i]]
        return torch.cholesky_inverse(torch.linalg.cholesky(block))


def _weights(ensemble: Ensemble, level: int, channels: int) -> Tensor:
    fusion = ensemble.feature_fusion[level]
    if isinstance(fusion, Conv1x1):
        return fusion.weight.detach().flatten(1).double()
    return torch.eye(channels, dtype=torch.float64)


def _ranked_by_variance(
    ensemble: Ensemble, moments: Sequence[FeatureMoments], candidates: Collection[int]
) -> list[RankedSpecialist]:
    shares = {
        i: sum(_share_of_sum(ensemble, level, moments[level], i) for level in LEVELS) / len(LEVELS)
        for i in sorted(candidates)
    }
    return [
        _ranked(ensemble, i, share, f"what it adds has {share:.3%} of the sum's variance")
        for i, share in sorted(shares.items(), key=lambda item: item[1])
    ]


def _share_of_sum(ensemble: Ensemble, level: int, moments: FeatureMoments, i: int) -> float:
    width = ensemble.set_widths(level)[0]
    mine = columns_of(ensemble, level)[i]
    whole = _variance_of_sum(moments.covariance, width)
    return _variance_of_sum(moments.covariance[mine, mine], width) / whole if whole > 0 else 0.0


def _variance_of_sum(covariance: Tensor, width: int) -> float:
    """Return the variance, over all channels, of the sum of sets of ``width`` channels."""
    sets = len(covariance) // width
    return float(torch.einsum("icjc->", covariance.reshape(sets, width, sets, width)))


def rank_by_selection(ensemble: Ensemble) -> list[RankedSpecialist]:
    """Rank specialists by the ensemble's own selection weights, smallest first.

    Those without features go before all others.

    Raises:
        UserError: all weights are equal, or the fusion is ``mlp`` or ``multiplication``.
    """
    require_removable_sets(ensemble)
    weights = ensemble.encoder_selector.specialists_weights.tolist()
    if len(set(weights)) == 1:
        raise UserError(
            f"all {len(weights)} selection weights are {weights[0]:g}",
            expected="a trained selection, whose weights differ",
            remedy="rank by reconstruction",
        )
    return _ranked_dead(ensemble) + [
        _ranked(ensemble, i, weights[i], f"its selection weight is {weights[i]:.4g}")
        for i in sorted(live_specialists(ensemble), key=lambda i: weights[i])
    ]


@torch.no_grad()
def rank_by_probe(
    ensemble: Ensemble, chips: Sequence[tuple[Tensor, int]]
) -> list[RankedSpecialist]:
    """Rank specialists by how well chips can be classified without them: backward elimination.

    A chip's features are the means over all cells of each level and set, standardised over the
    chips. A ridge probe fits one-hot labels to them, and its leave-one-out predictions come in
    closed form (Cawley and Talbot, Neural Networks 2004). At each turn the specialist goes without
    which the leave-one-out accuracy is highest, or at equal accuracies the squared error lowest.
    Those without features go first.

    Args:
        ensemble: is not changed.
        chips: images (bands, H, W) in physical units, of any sizes, with their classes.

    Raises:
        UserError: there are no two classes, or the fusion is ``mlp`` or ``multiplication``.
    """
    require_removable_sets(ensemble)
    one_hot = _one_hot([label for _, label in chips])
    kernels = _kernels(ensemble, [image for image, _ in chips])
    remaining = live_specialists(ensemble)

    def score(kept: Collection[int], ridge: float) -> tuple[float, float]:
        # From zeros, so that no specialists at all are the probe that has just an intercept.
        start = one_hot.new_zeros(len(one_hot), len(one_hot))
        return _leave_one_out(sum((kernels[i] for i in sorted(kept)), start), one_hot, ridge)

    ridge = max(_RIDGES, key=lambda candidate: score(remaining, candidate))
    accuracy, _ = score(remaining, ridge)
    ranked = []
    while remaining:
        scores = {i: score(remaining - {i}, ridge) for i in sorted(remaining)}
        best = max(scores, key=lambda i: scores[i])
        without, _ = scores[best]
        why = f"accuracy is {accuracy:.1%} with it and {without:.1%} without"
        ranked.append(_ranked(ensemble, best, accuracy - without, why))
        remaining.remove(best)
        accuracy = without
    return _ranked_dead(ensemble) + ranked


def _one_hot(labels: Sequence[int]) -> Tensor:
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise UserError(
            f"{len(labels)} chips are of {len(classes)} classes", expected="two classes or more"
        )
    return torch.tensor([[float(label == c) for c in classes] for label in labels]).double()


def _kernels(ensemble: Ensemble, images: Sequence[Tensor]) -> dict[int, Tensor]:
    """Return for each specialist the inner products (chips, chips) of its chips' features."""
    pooled = [
        [level[0].double().mean((1, 2)) for level in fusion_inputs(ensemble, image[None])]
        for image in images
    ]
    kernels = {i: torch.zeros(len(images), len(images)).double() for i in range(len(ensemble.sets))}
    for level in LEVELS:
        features = _standardised(torch.stack([chip[level] for chip in pooled]))
        for i, columns in enumerate(columns_of(ensemble, level)):
            kernels[i] += features[:, columns] @ features[:, columns].T
    return kernels


def _standardised(features: Tensor) -> Tensor:
    """Return features (chips, C) with mean 0 and deviation 1; 0 where they do not vary."""
    mean = features.mean(0)
    variance = (features - mean).square().mean(0)
    varies = variance > CONSTANT * (mean.square() + variance.mean())
    return torch.where(varies, (features - mean) / variance.sqrt(), 0)


def _leave_one_out(kernel: Tensor, one_hot: Tensor, ridge: float) -> tuple[float, float]:
    """Return accuracy, and squared error with a minus, of chips predicted from all the others.

    The intercept is not penalised: it is solved for in the bordered system, whose inverse without
    the border is ``inner``.
    """
    penalty = ridge * float(kernel.diagonal().mean()) or 1.0
    inner = torch.linalg.inv(kernel + penalty * torch.eye(len(kernel), dtype=kernel.dtype))
    sums = inner.sum(1)
    inner -= torch.outer(sums, sums) / sums.sum()
    missed = (inner @ one_hot) / inner.diagonal()[:, None]
    right = (one_hot - missed).argmax(1) == one_hot.argmax(1)
    return float(right.double().mean()), -float(missed.square().mean())


def _ranked_dead(ensemble: Ensemble) -> list[RankedSpecialist]:
    dead = sorted(without_features(ensemble).items())
    return [_ranked(ensemble, i, 0.0, f"dead: {reason}") for i, reason in dead]


def _ranked(ensemble: Ensemble, i: int, cost: float, why: str) -> RankedSpecialist:
    return RankedSpecialist(i, ensemble.spec.specialists[i].name, cost, why)
