"""The fit against a least-squares solver, and the blocks that judge it."""

from __future__ import annotations

import numpy as np
import pytest

from eosfm_edge.heads.places import MARGIN, places_of
from eosfm_edge.heads.ridge import fit


def example(seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 600)
    centres = rng.normal(0, 2, (3, 12))
    features = (centres[labels] + rng.normal(0, 1, (600, 12))).astype("f4")
    features[:, 3] *= 1000  # of another size
    features[:, 5] = 7  # the same everywhere
    return features, labels, np.arange(600) % 5, np.ones(600, bool)


def test_the_weights_are_those_of_a_least_squares_solver() -> None:
    features, labels, fold, judges = example()
    found = fit(features, labels, fold, judges, 3)
    # Ridge as least squares with a row for each weight, which pulls it to 0.
    x = features.astype("f8")
    spread = np.where(x.std(0) > 0, x.std(0), 1)
    scaled = (x - x.mean(0)) / spread
    y = np.eye(3)[labels]
    pull = np.sqrt(found.strength * len(x)) * np.eye(12)
    weights, *_ = np.linalg.lstsq(
        np.vstack([scaled, pull]), np.vstack([y - y.mean(0), np.zeros((12, 3))]), rcond=None
    )
    expected = found.temperature * (scaled @ weights + y.mean(0))
    assert np.allclose(features @ found.weights + found.bias, expected, atol=2e-3)
    assert (expected.argmax(1) == labels).mean() > 0.9


def test_every_cell_that_judges_is_counted_once() -> None:
    features, labels, fold, judges = example()
    judges[::3] = False
    found = fit(features, labels, fold, judges, 3)
    assert found.confusion.sum(axis=1).tolist() == [
        int((judges & (labels == k)).sum()) for k in range(3)
    ]
    assert np.trace(found.confusion) > 0.9 * judges.sum()


def test_probabilities_are_as_sure_as_they_are_right() -> None:
    """The mean probability of the class that was chosen is how often that is right."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 4000)
    features = (labels[:, None] + rng.normal(0, 1.2, (4000, 2))).astype("f4")
    found = fit(features, labels, np.arange(4000) % 5, np.ones(4000, bool), 2)
    scores = features @ found.weights + found.bias
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    accuracy = (scores.argmax(1) == labels).mean()
    assert 0.6 < accuracy < 0.9
    assert abs(shares.max(1).mean() - accuracy) < 0.02


def test_a_fold_that_holds_a_class_alone_shows_that_it_cannot_be_known() -> None:
    features, labels, fold, judges = example()
    fold = np.where(labels == 2, 4, fold % 4)
    found = fit(features, labels, fold, judges, 3)
    assert found.confusion[2, 2] == 0


@pytest.mark.parametrize("size", [(768, 1536), (224, 224), (100, 101), (1931, 1942), (64, 3000)])
@pytest.mark.parametrize("stride", [4, 8])
def test_no_cell_that_judges_is_near_another_block(size: tuple[int, int], stride: int) -> None:
    places = places_of(*size, stride)
    assert places.block.shape == tuple(-(-pixels // stride) for pixels in size)
    assert set(np.unique(places.block)) == set(range(places.count))
    reach = MARGIN // stride
    for axis in (0, 1):
        for shift in range(1, reach + 1):
            here, there = np.moveaxis(places.block, axis, 0)[shift:], None
            there = np.moveaxis(places.block, axis, 0)[:-shift]
            judges = np.moveaxis(places.judges, axis, 0)
            assert not ((here != there) & (judges[shift:] | judges[:-shift])).any()
    assert all(places.judges[places.block == one].any() for one in range(places.count))
    if min(size) >= 200:
        assert places.count >= 4


def test_places_keep_labels_of_neighbours_apart() -> None:
    """Labels that are the same all over a block, and mean nothing, are found out."""
    rng = np.random.default_rng(0)
    places = places_of(512, 512, 4)
    # Smooth features that tell where a cell is, as those of a real scene do.
    y, x = np.mgrid[0:128, 0:128] / 128
    waves = [np.sin(rng.normal(0, 9) * x + rng.normal(0, 9) * y + i) for i in range(40)]
    features = np.stack(waves, -1).reshape(-1, 40).astype("f4")
    block = places.block.ravel()
    labels = rng.permutation(np.arange(places.count) % 2)[block]
    held_out = fit(features, labels, block % 5, places.judges.ravel(), 2)
    at_random = fit(
        features, labels, rng.integers(0, 5, len(labels)), np.ones(len(labels), bool), 2
    )
    assert np.trace(at_random.confusion) / at_random.confusion.sum() > 0.8
    assert np.trace(held_out.confusion) / held_out.confusion.sum() < 0.65
