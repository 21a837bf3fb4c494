"""A linear probe on features: fitted on the original ones, applied unchanged to others.

Ridge regression to one-hot classes. For chips the features are the means of all levels; for regions
those of every cell of level 1, coarser levels repeated, and the label is that of the cell's pixel
at (2, 2).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "specialists"))
from tasks import IGNORE, TASKS, Chips, Region, Task  # noqa: F401

CHIPS = 4000  # that a probe is fitted on, at most
CROPS = 384
CROP = 64
BATCH = 64
RIDGE = 1e-3  # of the mean variance of a feature
STRIDE = 4  # of level 1

Batch = tuple[Tensor, Tensor]


def chips_of(chips: Chips, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
    """Return chips (N, bands, H, W) in physical units."""
    images = chips.images[np.asarray(indices)].astype(np.float32) * chips.scale + chips.offset
    return torch.from_numpy(images.astype(np.float32))


def crops_of(
    regions: Sequence[Region], count: int, seed: int, size: int = CROP
) -> tuple[Tensor, Tensor]:
    """Return random crops (N, bands, size, size) of regions, and their labels (N, size, size)."""
    random = np.random.default_rng(seed)
    large = [r for r in regions if min(r.labels.shape) >= size]
    area = np.array([r.labels.size for r in large], float)
    images, labels = [], []
    for index in random.choice(len(large), size=count, p=area / area.sum()):
        height, width = large[index].labels.shape
        top, left = random.integers(height - size + 1), random.integers(width - size + 1)
        window = slice(top, top + size), slice(left, left + size)
        images.append(large[index].image[:, window[0], window[1]])
        labels.append(large[index].labels[window].astype(np.int64))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def train_batches(task: Task, seed: int) -> Iterator[Batch]:
    """Give labelled images of the training split."""
    if isinstance(task.train, Chips):
        order = np.random.default_rng(seed).permutation(len(task.train.images))[:CHIPS]
        for part in np.array_split(order, max(1, len(order) // BATCH)):
            yield chips_of(task.train, part), torch.from_numpy(task.train.labels[part])
        return
    images, labels = crops_of(task.train, CROPS, seed)
    yield from zip(images.split(BATCH), labels.split(BATCH), strict=True)


def test_batches(task: Task) -> Iterator[Batch]:
    """Give the images of the task's first test, whole."""
    test = next(iter(task.tests.values()))
    if isinstance(test, Chips):
        for part in np.array_split(np.arange(len(test.images)), max(1, len(test.images) // BATCH)):
            yield chips_of(test, part), torch.from_numpy(test.labels[part])
        return
    for region in test:
        yield (
            torch.from_numpy(region.image)[None],
            torch.from_numpy(region.labels.astype(np.int64))[None],
        )


@torch.inference_mode()
def rows_of(encoder: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return features (rows, channels of all levels) and labels (rows,) that count."""
    images, labels = batch
    levels = encoder(images)
    if labels.ndim == 1:
        return torch.cat([level.mean((2, 3)) for level in levels], 1), labels
    size = levels[0].shape[2:]
    wide = [nn.functional.interpolate(level, size=size, mode="nearest") for level in levels]
    rows = torch.cat(wide, 1).permute(0, 2, 3, 1).flatten(0, 2)
    centres = labels[:, STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    centres = centres[:, : size[0], : size[1]].flatten()
    return rows[centres != IGNORE], centres[centres != IGNORE]


class Probe:
    """A linear classifier of features."""

    def __init__(self, encoder: nn.Module, task: Task, seed: int = 0) -> None:
        """Fit it on an encoder's features of the task's training split."""
        classes = len(task.classes)
        count, total, outer, cross = 0, 0.0, 0.0, 0.0
        hits = torch.zeros(classes, dtype=torch.float64)
        for batch in train_batches(task, seed):
            rows, labels = rows_of(encoder, batch)
            truth = nn.functional.one_hot(labels, classes).double()
            wide = rows.double()
            count += len(rows)
            total, outer = total + wide.sum(0), outer + wide.T @ wide
            cross, hits = cross + wide.T @ truth, hits + truth.sum(0)
        mean = total / count
        covariance = outer / count - torch.outer(mean, mean)
        scale = covariance.diagonal().clamp_min(1e-12).sqrt()
        normed = covariance / torch.outer(scale, scale) + RIDGE * torch.eye(len(mean)).double()
        target = (cross / count - torch.outer(mean, hits / count)) / scale[:, None]
        self._weight = torch.linalg.solve(normed, target) / scale[:, None]
        self._bias = hits / count - mean @ self._weight

    def accuracy(self, encoder: nn.Module, task: Task) -> float:
        """Return percent right of the task's first test, on an encoder's features."""
        right = count = 0
        for batch in test_batches(task):
            rows, labels = rows_of(encoder, batch)
            guess = (rows.double() @ self._weight + self._bias).argmax(1)
            right += int((guess == labels).sum())
            count += len(labels)
        return 100 * right / count
