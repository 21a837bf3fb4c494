"""Pruning of whole specialists: which an ensemble can do without, and the ensemble without them.

Everything but :func:`rank_by_probe` works without labels, from the mean and covariance of the
features that go into the fusion. Removing columns S of a fusion with weights W, and refitting the
rest in closed form, adds the squared error tr(W_S (P_SS)^-1 W_S^T), where P is the inverse of the
covariance: the optimal brain surgeon (Hassibi and Stork, NIPS 1993) with blocks for weights.

A covariance of few cells would promise that anything can be made of anything, so it is shrunk
towards a diagonal first, by as much as the number of cells says (OAS: Chen, Wiesel, Eldar and Hero,
IEEE Trans. Signal Processing 2010, https://arxiv.org/abs/0907.4698), on the scale of correlations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from eosfm_edge.ensemble.fusion import Conv1x1, Mlp
from eosfm_edge.ensemble.model import Ensemble, build_from_state
from eosfm_edge.ensemble.spec import LEVEL_STRIDES, LEVELS, SelectionSpec
from eosfm_edge.ensemble.state import SELECTION_WEIGHTS
from eosfm_edge.errors import UserError

NO_RULE = "no rule makes its bands of the input's"
NOT_SELECTED = "it is not selected"
DOES_NOT_VARY = "its features do not vary"
NO_WEIGHT = "the fusion gives it no weight"

_DUPLICATE_R2 = 0.999
_LEAST_SHRINKAGE = 1e-6  # keeps the inverse of a covariance with duplicates in it accurate
_CONSTANT = 1e-12  # variance of rounded fp32 numbers, relative to their square
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of a probe, relative to the kernel's mean diagonal


@dataclass(frozen=True)
class FeatureMoments:
    """Mean (C,) and covariance (C, C), float64, of one level's features over ``cells`` cells."""

    mean: Tensor
    covariance: Tensor
    cells: int


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


@dataclass(frozen=True)
class Duplicate:
    """A specialist whose features are a linear function of another's.

    Attributes:
        index: its place in the ensemble.
        of: the earlier specialist's place.
        r2: the share of its features' variance that the other's give, least over the levels.
    """

    index: int
    of: int
    r2: float


# Features


@torch.no_grad()
def feature_moments(ensemble: Ensemble, images: Iterable[Tensor]) -> list[FeatureMoments]:
    """Return for each level the moments of what the fusion is given, over all cells of the images.

    Args:
        ensemble: is not changed.
        images: batches (N, bands, H, W) in physical units, H and W multiples of 32; read once.

    Raises:
        UserError: there are no images, or their features are not finite.
    """
    sums: list[_Sums] = []
    for image in images:
        inputs = _fusion_inputs(ensemble, image)
        rows = [features.movedim(1, -1).flatten(0, 2) for features in inputs]
        sums = sums or [_Sums(first) for first in rows]
        for level, cells in zip(sums, rows, strict=True):
            level.add(cells)
    if not sums:
        raise UserError("there are no images to look at specialists with", expected="one or more")
    return [level.moments() for level in sums]


class _Sums:
    """Running sums of rows (cells, C), about the first batch's mean so that little cancels."""

    def __init__(self, rows: Tensor) -> None:
        self.shift = rows.double().mean(0)
        self.cells = 0
        self.first = torch.zeros_like(self.shift)
        self.second = self.shift.new_zeros(len(self.shift), len(self.shift))

    def add(self, rows: Tensor) -> None:
        centred = rows.double() - self.shift
        self.cells += len(centred)
        self.first += centred.sum(0)
        self.second.addmm_(centred.T, centred)

    def moments(self) -> FeatureMoments:
        if not torch.isfinite(self.second).all():
            raise UserError(
                "features have values that are not finite",
                remedy="look for pixels without data, and for a specialist that is damaged",
            )
        offset = self.first / self.cells
        covariance = (self.second / self.cells).addr_(offset, offset, alpha=-1)
        return FeatureMoments(self.shift + offset, covariance, self.cells)


def _fusion_inputs(ensemble: Ensemble, image: Tensor) -> list[Tensor]:
    """Return each level's sets (N, C, H/s, W/s), scaled by selection and one after the other."""
    factors = ensemble.encoder_selector().tolist()
    per_level: list[list[Tensor]] = [[] for _ in LEVELS]
    for owner, runs in enumerate(ensemble.sets):
        for bands in runs:
            for level, features in enumerate(_scaled_set(ensemble, image, owner, bands, factors)):
                per_level[level].append(features)
    return [torch.cat(sets, dim=1) for sets in per_level]


def _scaled_set(
    ensemble: Ensemble, image: Tensor, owner: int, bands: tuple[int, ...], factors: list[float]
) -> list[Tensor]:
    factor = factors[owner]
    if factor != 0:
        return [features * factor for features in ensemble.set_features(image, owner, bands)]
    # What counts 0 need not be run.
    place = ensemble.set_owners().index(owner)
    count, _, height, width = image.shape
    return [
        image.new_zeros(count, ensemble.set_widths(level)[place], height // stride, width // stride)
        for level, stride in enumerate(LEVEL_STRIDES)
    ]


def _columns(ensemble: Ensemble, level: int) -> list[slice]:
    """Return where each specialist's channels are among those that the fusion is given."""
    counts = [0] * len(ensemble.sets)
    for owner, width in zip(ensemble.set_owners(), ensemble.set_widths(level), strict=True):
        counts[owner] += width
    return [slice(start, end) for start, end in pairwise(accumulate(counts, initial=0))]


def _require_fitting(ensemble: Ensemble, moments: Sequence[FeatureMoments]) -> None:
    found = [len(level.mean) for level in moments]
    expected = [sum(ensemble.set_widths(level)) for level in LEVELS]
    if found != expected:
        raise ValueError(f"moments are of {found} channels, the ensemble has {expected}")


# Covariances


def _shrunk_correlation(moments: FeatureMoments) -> tuple[Tensor, Tensor]:
    """Return the shrunk correlation (C, C), with ones on its diagonal, and the deviations (C,).

    A channel that does not vary has deviation 0 and is not correlated with anything.
    """
    deviation = _deviation(moments)
    inverse = torch.where(deviation > 0, 1 / deviation, 0)
    correlation = moments.covariance * inverse[:, None] * inverse
    correlation *= 1 - _shrinkage(correlation, moments.cells)
    return correlation.fill_diagonal_(1), deviation


def _deviation(moments: FeatureMoments) -> Tensor:
    variance = moments.covariance.diagonal()
    floor = _CONSTANT * (moments.mean.square() + variance.mean())
    return torch.where(variance > floor, variance, 0).sqrt()


def _shrinkage(correlation: Tensor, cells: int) -> float:
    """Return how much of a covariance is to be replaced by a diagonal one, by OAS (eq. 23)."""
    channels = float(correlation.trace())
    if channels < 2:
        return _LEAST_SHRINKAGE
    square = float(correlation.square().sum())
    numerator = (1 - 2 / channels) * square + channels**2
    denominator = (cells + 1 - 2 / channels) * (square - channels)
    # Channels that are not correlated at all make the denominator 0: then all may be replaced.
    return max(_LEAST_SHRINKAGE, 1.0 if denominator <= numerator else numerator / denominator)


# What does nothing, or nothing of its own


def find_dead(ensemble: Ensemble, moments: Sequence[FeatureMoments]) -> dict[int, str]:
    """Return the specialists that do nothing for the fused features, with the reason."""
    _require_fitting(ensemble, moments)
    dead = _without_features(ensemble)
    for reason, channels in ((DOES_NOT_VARY, _constant), (NO_WEIGHT, _weightless)):
        idle = [channels(ensemble, level, moments[level]) for level in LEVELS]
        for i in range(len(ensemble.sets)):
            if all(idle[level][_columns(ensemble, level)[i]].all() for level in LEVELS):
                dead.setdefault(i, reason)
    return dict(sorted(dead.items()))


def _without_features(ensemble: Ensemble) -> dict[int, str]:
    """Return the specialists that need not even be run, with the reason."""
    factors = ensemble.encoder_selector().tolist()
    reasons = {i: NOT_SELECTED for i, factor in enumerate(factors) if factor == 0}
    return reasons | {i: NO_RULE for i, sets in enumerate(ensemble.sets) if not sets}


def _constant(ensemble: Ensemble, level: int, moments: FeatureMoments) -> Tensor:
    return _deviation(moments) == 0


def _weightless(ensemble: Ensemble, level: int, moments: FeatureMoments) -> Tensor:
    fusion = ensemble.feature_fusion[level]
    layer = fusion[0] if isinstance(fusion, Mlp) else fusion
    if not isinstance(layer, torch.nn.Conv2d):
        return torch.zeros(len(moments.mean), dtype=torch.bool)
    return (layer.weight == 0).all(0).flatten()


def find_duplicates(ensemble: Ensemble, moments: Sequence[FeatureMoments]) -> list[Duplicate]:
    """Return the specialists whose features are a linear function of an earlier one's.

    That is, at each level they are either the same, or the earlier one's give them with an adjusted
    R² of 0.999 or more, which takes at least twice as many cells as it has channels. The earlier
    one is never a duplicate itself, so all that are found can be removed together.
    """
    dead = find_dead(ensemble, moments)
    originals: list[int] = []
    found = []
    for i in range(len(ensemble.sets)):
        if i in dead:
            continue
        fits = [Duplicate(i, of, _least_r2(ensemble, moments, i, of)) for of in originals]
        best = max(fits, key=lambda fit: fit.r2, default=None)
        if best is not None and best.r2 >= _DUPLICATE_R2:
            found.append(best)
        else:
            originals.append(i)
    return found


def _least_r2(ensemble: Ensemble, moments: Sequence[FeatureMoments], i: int, of: int) -> float:
    least = 1.0
    for level in LEVELS:
        columns = _columns(ensemble, level)
        least = min(least, _adjusted_r2(moments[level], columns[i], columns[of]))
        if least < _DUPLICATE_R2:
            break
    return least


def _adjusted_r2(moments: FeatureMoments, wanted: slice, given: slice) -> float:
    """Return R² less what as many channels give by chance; 0 if there are too few cells to say."""
    channels = int(given.stop - given.start)
    variance = float(moments.covariance[wanted, wanted].trace())
    if variance == 0 or _same(moments, wanted, given):
        return 1.0
    if moments.cells < 2 * channels + 2:
        return 0.0
    left = max(0.0, float(_residual(moments, wanted, given).trace()) / variance)
    return 1 - left * (moments.cells - 1) / (moments.cells - channels - 1)


def _same(moments: FeatureMoments, one: slice, other: slice) -> bool:
    """Return whether two specialists' features differ by constants only, however few the cells."""
    across = moments.covariance[one, other]
    if across.shape[0] != across.shape[1]:
        return False
    variance = moments.covariance.diagonal()
    difference = variance[one] + variance[other] - 2 * across.diagonal()
    return float(difference.sum()) <= _CONSTANT * float(variance[one].sum())


def _regression(moments: FeatureMoments, wanted: slice, given: slice) -> Tensor:
    """Return the coefficients (wanted, given) that give features from others', not shrunk."""
    if _same(moments, wanted, given):
        return torch.eye(int(given.stop - given.start), dtype=torch.float64)
    deviation = _deviation(moments)[given]
    inverse = torch.where(deviation > 0, 1 / deviation, 0)
    correlation = moments.covariance[given, given] * inverse[:, None] * inverse
    factor = torch.linalg.cholesky(correlation.fill_diagonal_(1 + 1e-9))
    across = moments.covariance[given, wanted] * inverse[:, None]
    return torch.cholesky_solve(across, factor).T * inverse


def _residual(moments: FeatureMoments, wanted: slice, given: slice) -> Tensor:
    """Return the covariance of what others' features do not give."""
    given_part = _regression(moments, wanted, given) @ moments.covariance[given, wanted]
    return moments.covariance[wanted, wanted] - given_part


# Rankings


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
    _require_fitting(ensemble, moments)
    _require_removable_sets(ensemble)
    _require_indices(ensemble, protected)
    dead = [entry for entry in _ranked_dead(ensemble) if entry.index not in protected]
    candidates = _live(ensemble) - set(protected)
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
        self.columns = _columns(ensemble, level)
        correlation, self.deviation = _shrunk_correlation(moments)
        self.weights = _weights(ensemble, level, len(self.deviation)) * self.deviation
        self.variance = float(torch.einsum("oc,oc->", self.weights @ correlation, self.weights))
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(correlation))

    def merge(self, duplicate: Duplicate) -> float:
        """Give a duplicate's weights to its original; return what that costs."""
        mine, of = self.columns[duplicate.index], self.columns[duplicate.of]
        # Where a channel does not vary its weight is 0 here.
        raw = torch.where(self.deviation > 0, self.weights / self.deviation, 0)[:, mine]
        lost = float(torch.einsum("oc,oc->", raw @ _residual(self.moments, mine, of), raw))
        self.weights[:, of] += raw @ _regression(self.moments, mine, of) * self.deviation[of]
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
    mine = _columns(ensemble, level)[i]
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
    _require_removable_sets(ensemble)
    weights = ensemble.encoder_selector.specialists_weights.tolist()
    if len(set(weights)) == 1:
        raise UserError(
            f"all {len(weights)} selection weights are {weights[0]:g}",
            expected="a trained selection, whose weights differ",
            remedy="rank by reconstruction",
        )
    return _ranked_dead(ensemble) + [
        _ranked(ensemble, i, weights[i], f"its selection weight is {weights[i]:.4g}")
        for i in sorted(_live(ensemble), key=lambda i: weights[i])
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
    _require_removable_sets(ensemble)
    one_hot = _one_hot([label for _, label in chips])
    kernels = _kernels(ensemble, [image for image, _ in chips])
    remaining = _live(ensemble)

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
        [level[0].double().mean((1, 2)) for level in _fusion_inputs(ensemble, image[None])]
        for image in images
    ]
    kernels = {i: torch.zeros(len(images), len(images)).double() for i in range(len(ensemble.sets))}
    for level in LEVELS:
        features = _standardised(torch.stack([chip[level] for chip in pooled]))
        for i, columns in enumerate(_columns(ensemble, level)):
            kernels[i] += features[:, columns] @ features[:, columns].T
    return kernels


def _standardised(features: Tensor) -> Tensor:
    """Return features (chips, C) with mean 0 and deviation 1; 0 where they do not vary."""
    mean = features.mean(0)
    variance = (features - mean).square().mean(0)
    varies = variance > _CONSTANT * (mean.square() + variance.mean())
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


def _live(ensemble: Ensemble) -> set[int]:
    return set(range(len(ensemble.sets))) - set(_without_features(ensemble))


def _ranked_dead(ensemble: Ensemble) -> list[RankedSpecialist]:
    dead = sorted(_without_features(ensemble).items())
    return [_ranked(ensemble, i, 0.0, f"dead: {reason}") for i, reason in dead]


def _ranked(ensemble: Ensemble, i: int, cost: float, why: str) -> RankedSpecialist:
    return RankedSpecialist(i, ensemble.spec.specialists[i].name, cost, why)


# Removal


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
    _require_fitting(ensemble, moments)
    _require_indices(ensemble, removed)
    gone = set(removed)
    if not _live(ensemble) - gone:
        raise UserError(
            f"without {len(gone)} of {len(ensemble.sets)} specialists there are no features left",
            expected="a selected specialist that can be run on the input to stay",
        )
    if any(ensemble.sets[i] for i in gone):
        _require_removable_sets(ensemble)
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
    columns = _columns(ensemble, level)
    weight = full.clone()
    for duplicate in merged:
        mine, of = columns[duplicate.index], columns[duplicate.of]
        weight[:, of] += weight[:, mine] @ _regression(moments, mine, of)
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
    correlation, deviation = _shrunk_correlation(moments)
    factor = torch.linalg.cholesky(correlation[stays][:, stays])
    lost = (weight * deviation)[:, ~stays] @ correlation[~stays][:, stays]
    standardised = torch.cholesky_solve(lost.T, factor).T
    return torch.where(deviation[stays] > 0, standardised / deviation[stays], 0)


def _require_indices(ensemble: Ensemble, indices: Collection[int]) -> None:
    last = len(ensemble.sets) - 1
    for index in indices:
        if not 0 <= index <= last:
            raise UserError(f"there is no specialist {index}", expected=f"0 to {last}")


def _require_removable_sets(ensemble: Ensemble) -> None:
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
