"""Ridge regression of class indicators on features, judged on places that are held out.

With standardised features X (n, D), indicators Y (n, K) of classes and their means subtracted, the
weights are W = (XᵀX + αnI)⁻¹ XᵀY. Sums XᵀX of the places are added and subtracted, so that holding
one out costs a solution and no pass over the cells. Scores are brought to probabilities by one
temperature, fitted to the cells that were held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
Indices = NDArray[np.int64]

FOLDS = 5
STRENGTHS = (1e-2, 1e-1, 1.0, 10.0)  # of the penalty, over the number of cells
_CHUNK = 4096  # cells that are widened to double at once


@dataclass(frozen=True)
class Solution:
    """A fit, and how it does in places that it has not seen.

    Attributes:
        weights: (D, K), for features as they are.
        bias: (K,).
        strength: α of the fit.
        confusion: (K, K), cells that judged: labelled as the row, classified as the column.
        temperature: by which scores are multiplied before softmax; it is in the weights.
    """

    weights: FloatArray
    bias: FloatArray
    strength: float
    confusion: Indices
    temperature: float


@dataclass
class _Sums:
    """Sums over some cells, of which others can be taken away."""

    count: float
    x: DoubleArray
    y: DoubleArray
    xx: DoubleArray
    xy: DoubleArray

    def less(self, *others: _Sums) -> _Sums:
        """Return the sums without those of others."""
        return _Sums(
            self.count - sum(one.count for one in others),
            self.x - sum(one.x for one in others),
            self.y - sum(one.y for one in others),
            self.xx - sum(one.xx for one in others),
            self.xy - sum(one.xy for one in others),
        )

    def solve(self, strength: float) -> tuple[DoubleArray, DoubleArray]:
        """Return weights (D, K) and bias (K,)."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        left = self.xx - self.count * np.outer(mean_x, mean_x)
        left[np.diag_indices_from(left)] += strength * self.count
        right = self.xy - self.count * np.outer(mean_x, mean_y)
        weights = np.linalg.solve(left, right).astype(np.float64, copy=False)
        return weights, mean_y - mean_x @ weights


def fit(
    features: FloatArray,
    labels: Indices,
    fold: Indices,
    judges: NDArray[np.bool_],
    classes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Solution:
    """Fit to all cells, and judge fits to those of all folds but one on that one.

    α is chosen for each fold by another one, which neither learns nor judges there.

    Args:
        features: (n, D).
        labels: (n,), from 0 to ``classes`` - 1.
        fold: (n,), from 0 to F - 1, two or more.
        judges: (n,), which cells of the fold that is held out judge.
        classes: K.
        progress: told of folds.
    """
    folds = int(fold.max()) + 1
    mean = features.mean(axis=0, dtype=np.float64)
    spread = features.std(axis=0, dtype=np.float64)
    spread[spread == 0] = 1
    scaled = ((features - mean) / spread).astype(np.float32)
    sums = [_sums_of(scaled[fold == one], labels[fold == one], classes) for one in range(folds)]
    whole = sums[0].less()
    for part in sums[1:]:
        whole = _Sums(*(getattr(whole, n) + getattr(part, n) for n in vars(whole)))

    confusion = np.zeros((classes, classes), np.int64)
    judged: list[Indices] = []
    # Scores of the cells that judge, for each strength, by fits that have not seen their fold.
    scored: list[list[DoubleArray]] = []
    for one in range(folds):
        progress(one, folds)
        other = (one + 1) % folds
        tuning, judging = judges & (fold == other), judges & (fold == one)
        # With two folds there is no third to learn from: the strength is then one for all.
        best = len(STRENGTHS) // 2
        if folds > 2 and tuning.any():
            rest = whole.less(sums[one], sums[other])
            right = [
                _right(_scores(rest.solve(s), scaled[tuning]), labels[tuning]) for s in STRENGTHS
            ]
            best = int(np.argmax(right))
        rest = whole.less(sums[one])
        scored.append([_scores(rest.solve(s), scaled[judging]) for s in STRENGTHS])
        judged.append(labels[judging])
        np.add.at(confusion, (labels[judging], scored[-1][best].argmax(axis=1)), 1)
    progress(folds, folds)
    true = np.concatenate(judged)
    by_strength = [np.concatenate(scores) for scores in zip(*scored, strict=True)]
    best = int(np.argmax([_right(scores, true) for scores in by_strength]))
    # Of this strength: a stronger one makes all scores smaller.
    temperature = _temperature(by_strength[best], true)
    strength = STRENGTHS[best]
    weights, bias = whole.solve(strength)
    weights = weights / spread[:, None]
    return Solution(
        weights=(temperature * weights).astype(np.float32),
        bias=(temperature * (bias - mean @ weights)).astype(np.float32),
        strength=strength,
        confusion=confusion,
        temperature=temperature,
    )


def _sums_of(features: FloatArray, labels: Indices, classes: int) -> _Sums:
    width = features.shape[1]
    total = _Sums(
        0.0,
        np.zeros(width),
        np.zeros(classes),
        np.zeros((width, width)),
        np.zeros((width, classes)),
    )
    for start in range(0, len(features), _CHUNK):
        x = features[start : start + _CHUNK].astype(np.float64)
        y = np.eye(classes)[labels[start : start + _CHUNK]]
        total.count += len(x)
        total.x += x.sum(axis=0)
        total.y += y.sum(axis=0)
        total.xx += x.T @ x
        total.xy += x.T @ y
    return total


def _scores(solved: tuple[DoubleArray, DoubleArray], features: FloatArray) -> DoubleArray:
    weights, bias = solved
    return features @ weights + bias


def _right(scores: DoubleArray, labels: Indices) -> int:
    """Return how many cells the largest score labels rightly."""
    return int((scores.argmax(axis=1) == labels).sum())


def _temperature(scores: DoubleArray, labels: Indices) -> float:
    """Return the factor of scores whose softmax gives the labels the largest likelihood.

    The likelihood has one maximum over the factor: a search by the golden section over its
    logarithm finds it.
    """

    def loss(logarithm: float) -> float:
        scaled = scores * np.exp(logarithm)
        largest = scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled - largest).sum(axis=1)) + largest[:, 0]
        return float((total - scaled[np.arange(len(labels)), labels]).mean())

    low, high = 0.0, 6.0
    ratio = (5**0.5 - 1) / 2
    while high - low > 1e-3:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
