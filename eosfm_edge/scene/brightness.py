"""Take tiles of every brightness, so that neither a dark sea nor a field of clouds fills a set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, zip_longest
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_CLASSES = 4  # of brightness
_LEAST_GAIN = 1e-3  # of the variance, for which a class is split

Item = TypeVar("Item")


def in_turn(items: Sequence[Item], brightness: Sequence[float]) -> list[Item]:
    """Reorder items: one of each class of brightness, another of each, and so on."""
    if not items:
        return []
    of = brightness_classes(np.array(brightness))
    queues = [
        [item for item, mine in zip(items, of, strict=True) if mine == number]
        for number in range(_CLASSES)
    ]
    return [one for turn in zip_longest(*queues) for one in turn if one is not None]


def brightness_classes(brightness: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which of up to four classes of like values each value is in, the lowest in class 0.

    Classes of equal numbers would be of no use: of a scene that is nearly all sea, they are nearly
    all sea. So a class is split, again and again, where that leaves the least variance.
    """
    order = np.argsort(brightness, kind="stable")
    values = brightness[order]
    least = _LEAST_GAIN * float(((values - values.mean()) ** 2).sum())
    starts = [0, len(values)]
    for _ in range(_CLASSES - 1):
        splits = [(*_split(values[a:b]), a) for a, b in pairwise(starts)]
        gain, place, start = max(splits)
        if gain <= least:
            break
        starts = sorted([*starts, start + place])
    classes = np.empty(len(values), np.intp)
    classes[order] = np.searchsorted(starts[1:], np.arange(len(values)), side="right")
    return classes


def _split(values: NDArray[np.float64]) -> tuple[float, int]:
    """Return by how much a split of sorted values in two lowers their squares, and where it is."""
    if len(values) < 2:
        return 0.0, 0
    sums = np.cumsum(values - values.mean())[:-1]
    left = np.arange(1, len(values))
    gains = sums**2 * len(values) / (left * (len(values) - left))
    gains[values[1:] == values[:-1]] = 0
    place = int(gains.argmax())
    return float(gains[place]), place + 1
