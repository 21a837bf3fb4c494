"""Fidelity: against numpy, and what no budget may let pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eosfm_edge.calibration.judge import Judge
from eosfm_edge.calibration.mixed import Budget

SHAPES = ((12, 16, 16), (20, 8, 8), (24, 4, 4), (16, 2, 2))


def levels_of(seed: int, tiles: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tiles, *shape, generator=generator) for shape in SHAPES]


def noisy(levels: list[Tensor], amount: float, seed: int = 99) -> list[Tensor]:
    noise = levels_of(seed, len(levels[0]))
    return [x + amount * n for x, n in zip(levels, noise, strict=True)]


def split(levels: list[Tensor], sizes: list[int]) -> list[list[Tensor]]:
    """Return levels as batches of so many tiles."""
    return [list(batch) for batch in zip(*(x.split(sizes) for x in levels), strict=True)]


@pytest.mark.parametrize("amount", [0.01, 0.3, 10.0])
def test_cosine_and_noise_are_those_of_numpy(amount: float) -> None:
    exact = levels_of(0)
    found = noisy(exact, amount)
    judged = Judge(split(exact, [4, 2])).compare(split(found, [4, 2]))
    assert len(judged) == 4
    for level, x, y in zip(judged, exact, found, strict=True):
        a, b = (v.double().numpy().transpose(0, 2, 3, 1).reshape(-1, v.shape[1]) for v in (x, y))
        cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        assert level.cosine == pytest.approx(cosines.mean(), abs=1e-5)
        noise = np.square(a - b).sum()
        assert level.sqnr_db == pytest.approx(10 * np.log10(np.square(a).sum() / noise), abs=1e-3)


def test_batches_do_not_matter() -> None:
    exact = levels_of(1)
    found = noisy(exact, 0.5)
    whole = Judge([exact]).compare([found])
    for sizes in ([1] * 6, [5, 1]):
        parts = Judge(split(exact, sizes)).compare(split(found, sizes))
        for one, other in zip(parts, whole, strict=True):
            assert one.cosine == pytest.approx(other.cosine, abs=1e-5)
            assert one.sqnr_db == pytest.approx(other.sqnr_db, abs=1e-4)
            assert one.drop == pytest.approx(other.drop)


def test_the_same_levels_lose_nothing() -> None:
    exact = levels_of(2)
    for level in Judge([exact]).compare([exact]):
        assert level.cosine == pytest.approx(1, abs=1e-6)
        assert (level.sqnr_db, level.drop) == (None, 0)


def test_unrelated_levels_keep_no_label_but_by_chance() -> None:
    exact, other = levels_of(3, tiles=40), levels_of(4, tiles=40)
    for level, shape in zip(Judge([exact]).compare([other]), SHAPES, strict=True):
        if 40 * shape[1] * shape[2] >= 1000:
            assert level.drop == pytest.approx(100 * (1 - 1 / 16), abs=3)
        assert abs(level.cosine) < 0.05


def test_the_drop_is_the_share_of_cells_that_moved() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 100 * torch.eye(8)[torch.randint(8, (64,), generator=generator)]
    cells = centres + 0.1 * torch.randn(64, 8, generator=generator)
    moved = cells.clone()
    moved[:16] = -moved[:16]  # to where the nearest is any but its own
    exact, found = (x.T.reshape(1, 8, 8, 8) for x in (cells, moved))
    (level,) = Judge([[exact]]).compare([[found]])
    assert level.drop == 25


def test_levels_are_normalised_before_they_are_compared() -> None:
    """A mean that all cells share flatters the cosine."""
    exact, other = ([x + 50 for x in levels_of(seed)] for seed in (5, 6))
    plain = Judge([exact]).compare([other])
    centred = Judge([exact], lambda levels: [x - 50 for x in levels]).compare([other])
    assert min(level.cosine for level in plain) > 0.99
    assert max(abs(level.cosine) for level in centred) < 0.3
    # Both are: the same levels are the same.
    for level in Judge([exact], lambda levels: [x - 50 for x in levels]).compare([exact]):
        assert (level.sqnr_db, level.drop) == (None, 0)
    # And the drop is that of the normalised ones.
    shifted = Judge([exact], lambda levels: [0 * x for x in levels]).compare([other])
    assert {level.drop for level in shifted} == {0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["one value", "all"])
def test_levels_that_are_not_finite_pass_no_budget(value: float, where: str) -> None:
    exact = levels_of(7)
    judge = Judge([exact])
    found = [x.clone() for x in exact]
    if where == "all":
        found[2].fill_(value)
    else:
        found[2][1, 3, 1, 1] = value
    levels = judge.compare([found])
    assert levels[2].sqnr_db == -math.inf
    for budget in (Budget(0.0), Budget(0.0, 100.0), Budget(0.995, 50.0)):
        assert budget.failing(levels) == [2]


def test_budgets_name_the_levels_that_fail() -> None:
    exact = levels_of(8)
    found = noisy(exact, 0.001)
    found[1], found[3] = -exact[1], -exact[3]
    levels = Judge([exact]).compare([found])
    assert Budget(0.99).failing(levels) == [1, 3]
    assert Budget(0.0, 30.0).failing(levels) == [1, 3]
    least = levels[0].cosine
    assert 0 not in Budget(least, levels[0].drop).failing(levels)
    assert 0 in Budget(math.nextafter(least, 2)).failing(levels)
    assert Budget(-1.0, None).failing(levels) == []
