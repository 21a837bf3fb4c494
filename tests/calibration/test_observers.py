"""Observers: what they hold does not depend on batches, and ranges against brute force."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.calibration.observers import BINS, BandObserver, Clip, Observer, weight_scales
from eosfm_edge.formats.calibration import METHODS, Method

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
LISTS = st.lists(FLOATS | st.just(0.0) | st.floats(-8, 8, width=32), min_size=1, max_size=60)
FAMILIES = ("normal", "student", "gelu", "relu", "uniform", "shifted", "negative")


def observed(*batches: Tensor) -> Observer:
    observer = Observer()
    for batch in batches:
        observer.add(batch)
    return observer


def state(observer: Observer) -> tuple[object, ...]:
    counts = observer._counts.tolist()
    held = (observer._exponent, observer._start, observer._zeros, counts)
    return (observer.count, observer.low, observer.high, *held)


def sample(family: str, count: int, seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    normal = random.normal(size=count) * 10.0 ** random.uniform(-4, 4)
    values = {
        "normal": normal,
        "student": random.standard_t(3, count),
        "gelu": torch.nn.functional.gelu(torch.from_numpy(random.normal(size=count) * 2)).numpy(),
        "relu": np.maximum(normal, 0),
        "uniform": random.uniform(-1, 3, count),
        "shifted": random.normal(size=count) + 9,
        "negative": -random.gamma(2, size=count),
    }[family]
    return torch.from_numpy(values.astype(np.float32))


def squared_error(values: Tensor, clip: Clip) -> float:
    x = values.double().numpy()
    scale = (clip.high - clip.low) / 255
    zero = round(-clip.low / scale)
    rounded = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
    return float(np.mean((rounded - x) ** 2))


@settings(max_examples=25, deadline=None)
@given(values=LISTS, seed=st.integers(0, 2**32 - 1))
def test_neither_batches_nor_order_matter(values: list[float], seed: int) -> None:
    random = np.random.default_rng(seed)
    array = np.array(values, np.float32)
    whole = observed(torch.from_numpy(array))
    cuts = np.sort(random.integers(0, len(array) + 1, random.integers(0, 8)))
    shuffled = random.permutation(array)
    for parts in (np.split(array, cuts), np.split(shuffled, cuts), list(shuffled[:, None])):
        other = observed(*(torch.from_numpy(part) for part in parts))
        assert state(other) == state(whole)
    assert [other.clip(method) for method in METHODS] == [whole.clip(m) for m in METHODS]


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_batches_nor_order_matter_to_many_values(family: str) -> None:
    values = sample(family, 150_000, 0)
    whole = observed(values)
    shuffled = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))]
    other = observed(torch.zeros(0, 3), *shuffled.reshape(10, -1, 3).split(3))
    assert state(other) == state(whole)
    assert [other.clip(method) for method in METHODS] == [whole.clip(m) for m in METHODS]


@settings(max_examples=150, deadline=None)
@given(values=LISTS)
def test_nothing_is_lost_from_the_histogram(values: list[float]) -> None:
    observer = observed(*torch.tensor(values, dtype=torch.float32)[:, None])
    width, start = 2.0**observer._exponent, observer._start
    expected = np.zeros(BINS, np.int64)
    for value in values:
        expected[math.floor(value / width) - start] += 1
    assert observer._counts.tolist() == expected.tolist()
    # Bins half as wide would not do.
    span = math.floor(max(*values, 0) * 2 / width) - math.floor(min(*values, 0) * 2 / width)
    assert span >= BINS or not any(values)


@settings(max_examples=60, deadline=None)
@given(values=LISTS)
def test_ranges_lie_in_what_was_seen_and_hold_zero(values: list[float]) -> None:
    observer = observed(torch.tensor(values, dtype=torch.float32))
    low, high = min(*values, 0.0), max(*values, 0.0)
    assert observer.clip("minmax") == Clip(low, high)
    for method in METHODS:
        clip = observer.clip(method)
        assert low <= clip.low <= 0 <= clip.high <= high
        assert math.copysign(1, clip.high) == 1 and str(clip.low) != "-0.0"
        assert clip.low < clip.high or low == high


def test_the_smallest_and_largest_value_are_exact() -> None:
    observer = observed(torch.tensor([3.3, 2.7]), torch.tensor([[9.1], [4.0]]))
    assert (observer.count, observer.low, observer.high) == (
        4, pytest.approx(2.7, abs=1e-6), pytest.approx(9.1, abs=1e-6)
    )  # fmt: skip
    assert observer.clip("minmax") == Clip(0.0, observer.high)


def test_values_may_grow_and_the_memory_does_not() -> None:
    observer = Observer()
    parts = [sample("gelu", 5000, seed) * 10.0 ** (seed - 20) for seed in range(40)]
    for part in parts:
        observer.add(part)
        assert observer._counts.shape == (BINS,)
        assert observer._counts.untyped_storage().nbytes() == BINS * 8
    assert int(observer._counts.sum()) == observer.count == 40 * 5000
    assert state(observer) == state(observed(*reversed(parts)))
    assert observer.high == float(torch.cat(parts).max())


def test_zeros_alone_have_an_empty_range_until_others_come() -> None:
    observer = observed(torch.zeros(4, 4), -torch.zeros(3))
    assert all(observer.clip(method) == Clip(0.0, 0.0) for method in METHODS)
    observer.add(torch.tensor([5.0]))
    assert state(observer) == state(observed(torch.tensor([5.0] + [0.0] * 19)))
    assert all(observer.clip(method).high > 4 for method in METHODS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_not_changed_and_modes_may_be_mixed(dtype: torch.dtype) -> None:
    values = torch.linspace(-2, 5, 1001, dtype=dtype, requires_grad=True)
    before = values.detach().clone()
    with torch.inference_mode():
        observer = observed(before * 0.5)
    observer.add(values)
    assert torch.equal(values.detach(), before)
    assert state(observer) == state(observed(before, before * 0.5))
    assert observer.clip("mse").high <= 5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_without_a_range_are_refused_and_leave_no_trace(bad: float) -> None:
    observer = observed(torch.ones(3))
    before = state(observer)
    with pytest.raises(ValueError, match="NaN or infinite"):
        observer.add(torch.tensor([1.0, bad, 70.0]))
    assert state(observer) == before


def test_nothing_has_no_range() -> None:
    observer = observed(torch.zeros(0))
    assert observer.count == 0
    for method in METHODS:
        with pytest.raises(ValueError, match="no values"):
            observer.clip(method)
    with pytest.raises(ValueError, match="no values"):
        _ = observer.low
    with pytest.raises(ValueError, match="no values"):
        _ = observer.high


@pytest.mark.parametrize("family", FAMILIES)
def test_percentile_is_that_of_numpy(family: str) -> None:
    values = sample(family, 400_000, 1)
    observer = observed(values)
    clip = observer.clip("percentile")
    low, high = np.quantile(values.double().numpy(), [0.5e-4, 1 - 0.5e-4])
    near = 2 * (max(observer.high, 0) - min(observer.low, 0)) / (BINS / 2)
    assert clip.low == pytest.approx(min(low, 0), abs=near)
    assert clip.high == pytest.approx(max(high, 0), abs=near)


@settings(max_examples=40, deadline=None)
@given(
    family=st.sampled_from(FAMILIES), count=st.integers(500, 20_000), seed=st.integers(0, 2**32 - 1)
)
def test_mse_is_no_worse_than_minmax(family: str, count: int, seed: int) -> None:
    values = sample(family, count, seed)
    observer = observed(values)
    least = squared_error(values, observer.clip("mse"))
    assert least <= 1.02 * squared_error(values, observer.clip("minmax"))


@pytest.mark.parametrize("family", FAMILIES)
def test_mse_is_near_the_best_of_a_grid(family: str) -> None:
    values = sample(family, 20_000, 2)
    observer = observed(values)
    whole = observer.clip("minmax")
    factors = np.linspace(0.1, 1.0, 25)
    lows, highs = np.unique(whole.low * factors), np.unique(whole.high * factors)
    best = min(squared_error(values, Clip(low, high)) for low in lows for high in highs)
    assert squared_error(values, observer.clip("mse")) <= 1.02 * best


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_heavy_tails_are_clipped(method: Method, sign: int) -> None:
    random = np.random.default_rng(3)
    values = np.concatenate([random.normal(size=400_000), [30.0, 35.0, 40.0]])
    observer = observed(torch.from_numpy(sign * values.astype(np.float32)))
    whole, clip = observer.clip("minmax"), observer.clip(method)
    assert max(-whole.low, whole.high) == 40
    outer, inner = (-clip.low, clip.high) if sign < 0 else (clip.high, -clip.low)
    assert 3 < outer < 32 and 2 < inner < 6


def divergence(counts: NDArray[np.float64], first: int, last: int) -> float:
    """Return what the range from bin ``first`` up to but not with ``last`` loses, in nats."""
    inside, bins = counts[first:last], last - first
    exact = inside.copy()
    exact[0] += counts[:first].sum()
    exact[-1] += counts[last:].sum()
    there = exact > 0
    level = np.floor((np.arange(bins) + 0.5) / (bins / 255) + 0.5).astype(int)
    share = np.bincount(level, inside) / np.maximum(np.bincount(level, there), 1)
    rounded = np.where(there, share[level], 0)
    if (rounded[there] == 0).any():
        return math.inf
    p, q = exact[there] / exact.sum(), rounded[there] / rounded.sum()
    return float((p * np.log(p / q)).sum())


def histogram(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], int, float]:
    """Return the counts of bins, without zeros, the index of the one of zero, and their width."""
    observer = observed(torch.from_numpy(values))
    width = 2.0**observer._exponent
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    start, bins = math.floor(low / width), math.floor(high / width) - math.floor(low / width) + 1
    places = np.floor(values[values != 0].astype(np.float64) / width).astype(int) - start
    return np.bincount(places, minlength=bins).astype(np.float64), -start, width


@pytest.mark.parametrize("seed", [0, *thorough(1)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("family", ["relu", "gamma", "lognormal", "sparse"])
def test_entropy_on_one_side_of_zero_is_that_of_a_slow_search(
    family: str, sign: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = sign * {
        "relu": np.maximum(random.normal(size=100_000), 0),
        "gamma": random.gamma(2, size=100_000) * 1e-3,
        "lognormal": random.lognormal(0, 0.7, 100_000),
        "sparse": random.gamma(1, size=2000) * 1e4,
    }[family].astype(np.float32)
    clip = observed(torch.from_numpy(values)).clip("entropy")
    counts, zero, width = histogram(values)
    counts = counts if sign > 0 else counts[:zero][::-1]
    inner, outer = (clip.low, clip.high) if sign > 0 else (-clip.high, -clip.low)
    assert inner == 0
    best = min(divergence(counts, 0, last) for last in range(256, len(counts) + 1))
    assert divergence(counts, 0, math.ceil(outer / width)) <= 1.05 * best + 1e-9


@pytest.mark.parametrize("family", ["normal", "student", "gelu", "uniform"])
def test_entropy_on_both_sides_of_zero_is_no_worse_than_many_ranges(family: str) -> None:
    values = sample(family, 200_000, 4).numpy()
    counts, zero, width = histogram(values)
    random = np.random.default_rng(0)
    firsts, lasts = random.integers(0, zero, 2000), random.integers(zero, len(counts), 2000) + 1
    ranges = [(a, b) for a, b in zip(firsts, lasts, strict=True) if b - a >= 256]
    best = min(divergence(counts, a, b) for a, b in ranges)
    clip = observed(torch.from_numpy(values)).clip("entropy")
    chosen = math.floor(clip.low / width) + zero, math.ceil(clip.high / width) + zero
    assert divergence(counts, *chosen) <= 1.05 * best


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile"])
@pytest.mark.parametrize("exponent", [-100, -13, 7, 100])
def test_ranges_scale_with_the_values(method: Method, exponent: int) -> None:
    values = sample("gelu", 20_000, 5)
    clip = observed(values).clip(method)
    scaled = observed(values * 2.0**exponent).clip(method)
    assert scaled == Clip(math.ldexp(clip.low, exponent), math.ldexp(clip.high, exponent))


def test_bands_are_observed_apart() -> None:
    images = torch.randn(4, 3, 16, 16) * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    bands = BandObserver(3)
    for batch in images.split(3):
        bands.add(batch)
    for method in METHODS:
        assert bands.clips(method) == tuple(observed(images[:, i]).clip(method) for i in range(3))
    assert [band.count for band in bands.bands] == [1024] * 3
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        bands.add(images[:, :2])


def brute_force(weight: NDArray[np.float64], energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least error of each column."""
    errors = []
    for factor in np.linspace(0.5, 1, 40):
        scale = factor * np.abs(weight).max(0) / 127
        rounded = np.clip(np.round(weight / scale), -127, 127) * scale
        errors.append(((rounded - weight) ** 2 * energy[:, None]).sum(0))
    return np.min(errors, 0)


@pytest.mark.parametrize("weighted", [False, True])
def test_scales_of_weights_against_brute_force(weighted: bool) -> None:
    random = np.random.default_rng(6)
    weight = (random.standard_t(5, (768, 40)) * random.uniform(0.01, 10, 40)).astype(np.float32)
    energy = (random.gamma(0.3, size=768) if weighted else np.ones(768)).astype(np.float32)
    given_energy = torch.from_numpy(energy) if weighted else None

    def errors(method: Literal["minmax", "mse"]) -> NDArray[np.float64]:
        scale = weight_scales(torch.from_numpy(weight), method, given_energy)
        assert scale.shape == (40,) and scale.dtype == torch.float32
        rounded = np.clip(np.round(weight / scale.numpy()), -127, 127) * scale.numpy()
        return ((rounded - weight) ** 2 * energy[:, None]).sum(0, dtype=np.float64)

    best = brute_force(weight.astype(np.float64), energy.astype(np.float64))
    np.testing.assert_allclose(errors("mse"), best, rtol=1e-3)
    assert errors("mse").sum() < errors("minmax").sum()
    np.testing.assert_allclose(
        weight_scales(torch.from_numpy(weight), "minmax").numpy(),
        np.abs(weight).max(0) / 127,
        rtol=1e-6,
    )


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_columns_of_zeros_have_a_scale(method: Literal["minmax", "mse"]) -> None:
    weight = torch.nn.Parameter(torch.tensor([[0.0, 1.27], [0.0, -0.5]]))
    scale = weight_scales(weight, method)
    assert scale[0] == torch.tensor(1e-12) and not scale.requires_grad
    assert scale[1] == pytest.approx(0.01, rel=0.05)
