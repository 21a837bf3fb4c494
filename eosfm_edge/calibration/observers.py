"""Ranges for 8-bit integers, from values that come in batches: memory does not grow with them.

An observer keeps a histogram whose bins are a power of two wide: when values arrive that it has no
bins for, neighbours are merged until it does. What it then holds is what it would hold had all
values come at once, whatever their order. From it, a range is clipped in one of four ways:

``minmax`` clips nothing. ``percentile`` clips 0.005 % of the values at either end (McKinstry et
al., arXiv:1809.04191; Wu et al., arXiv:2004.09602). ``entropy`` takes the range whose 256 levels
lose the least information (Migacz, 8-bit Inference with TensorRT, GTC 2017; here with ranges that
need not be symmetric). ``mse`` takes the one of the least squared error, of rounding inside and of
clipping outside (Banner et al., arXiv:1810.05723; Choukroun et al., arXiv:1902.06822).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from eosfm_edge.formats.calibration import Method

BINS = 4096  # more than half of which are in use: at least eight for each level
CUT = 0.5e-4  # of all values, that percentile clips at either end
LEVELS = 256

_FINEST = -170  # the exponent of bins that hold nothing but zeros
_CHUNK = 1 << 16  # values that are counted at a time, for the cache
_EQUAL = 1e-9  # nats: what divergences of equally good ranges differ by, computed in float64
_CANDIDATES = 1024  # ranges of a first round of the search by entropy
_SHRINK = 40  # scales tried for a column of weights, from its largest value down to half of it


@dataclass(frozen=True)
class Clip:
    """The range that the levels of an 8-bit integer are spread over; it always holds zero."""

    low: float
    high: float


class Observer:
    """The values seen of one tensor: the smallest and largest, exactly, and a histogram."""

    def __init__(self) -> None:
        self._low, self._high = math.inf, -math.inf
        self._count, self._zeros = 0, 0
        # Bin i holds values from (start + i) * 2**exponent, up to but not with the next one's.
        self._exponent, self._start = _FINEST, 0
        self._counts = torch.zeros(BINS, dtype=torch.int64)

    @property
    def count(self) -> int:
        """The number of values seen."""
        return self._count

    @property
    def low(self) -> float:
        """The smallest value."""
        self._refuse_nothing()
        return self._low

    @property
    def high(self) -> float:
        """The largest value."""
        self._refuse_nothing()
        return self._high

    def add(self, values: Tensor) -> None:
        """Add values of any shape, float32.

        Raises:
            ValueError: if one is NaN or infinite; then none is added.
        """
        if not values.numel():
            return
        flat = values.detach().reshape(-1)
        low, high = (float(bound) for bound in torch.aminmax(flat))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinite values have no range")
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._widen()
        per_width = math.ldexp(1.0, -self._exponent)
        for at in range(0, flat.numel(), _CHUNK):
            # All of it is exact: a float32 times a power of two, in float64.
            bins = (flat[at : at + _CHUNK].double() * per_width).floor_().sub_(self._start)
            self._counts = self._counts + torch.bincount(bins.long(), minlength=BINS)
        self._count += flat.numel()
        self._zeros += flat.numel() - int(flat.count_nonzero())

    def clip(self, method: Method) -> Clip:
        """Return the range for 8-bit integers, inside of what was seen and zero.

        Raises:
            ValueError: if nothing was seen.
        """
        self._refuse_nothing()
        low, high = min(0.0, self._low), max(0.0, self._high)
        if method == "minmax" or low == high:
            return Clip(low, high)
        # Zero has a level of its own, and no error: zeros stay out of all that follows.
        width = math.ldexp(1.0, self._exponent)
        counts = self._counts.double()
        counts[-self._start] -= self._zeros
        counts = counts[: (math.floor(high / width) + 1 if high else 0) - self._start]
        if method == "percentile":
            found = _percentile(counts, -self._start, CUT * self._count)
        elif method == "entropy":
            found = _entropy(counts, -self._start)
        else:
            found = _mse(counts, -self._start, low / width, high / width)
        return Clip(
            min(0.0, max(low, found[0] * width)),
            max(0.0, min(high, found[1] * width)),
        )

    def _refuse_nothing(self) -> None:
        if not self._count:
            raise ValueError("no values were seen: they have no range")

    def _widen(self) -> None:
        """Merge bins until those of zero and of what was seen are there: as few times as will do.

        The bins follow from the smallest and largest value alone, and not from what came first.
        """
        low, high, exponent = min(0.0, self._low), max(0.0, self._high), self._exponent
        while True:
            start = math.floor(math.ldexp(low, -exponent))
            if math.floor(math.ldexp(high, -exponent)) - start < BINS:
                break
            exponent += 1
        if (exponent, start) == (self._exponent, self._start):
            return
        # Bins that fall out at the end are empty, and clamped for that.
        bins = (self._start + torch.arange(BINS)) >> min(exponent - self._exponent, 63)
        merged = torch.zeros_like(self._counts)
        self._counts = merged.index_add_(0, (bins - start).clamp_max(BINS - 1), self._counts)
        self._exponent, self._start = exponent, start


class BandObserver:
    """An observer for each band of an image.

    Attributes:
        bands: the observers.
    """

    def __init__(self, bands: int) -> None:
        self.bands = tuple(Observer() for _ in range(bands))

    def add(self, values: Tensor) -> None:
        """Add images (N, bands, H, W), float32.

        Raises:
            ValueError: if a value is NaN or infinite, or the bands are others.
        """
        if values.ndim != 4 or values.shape[1] != len(self.bands):
            shape = tuple(values.shape)
            raise ValueError(f"images (N, {len(self.bands)}, H, W) are wanted, but not {shape}")
        for band, observer in enumerate(self.bands):
            observer.add(values[:, band])

    def clips(self, method: Method) -> tuple[Clip, ...]:
        """Return each band's range for 8-bit integers."""
        return tuple(observer.clip(method) for observer in self.bands)


def weight_scales(
    weight: Tensor, method: Literal["minmax", "mse"], energy: Tensor | None = None
) -> Tensor:
    """Return the scale of each column of a matrix for integers -127 ... 127: (outputs,), float32.

    Args:
        weight: (inputs, outputs), float32.
        method: ``minmax`` clips nothing, ``mse`` has the smallest squared error.
        energy: (inputs,), the mean square of each input. With it the error is that of the product,
            were inputs uncorrelated.
    """
    weight = weight.detach()
    largest = weight.abs().amax(0)
    best = (largest / 127).clamp_min(1e-12)
    if method == "minmax":
        return best
    energies = torch.ones_like(weight[:, 0]) if energy is None else energy.to(weight.dtype)
    least = torch.full_like(best, math.inf)
    for factor in torch.linspace(1.0, 0.5, _SHRINK).tolist():
        scale = (factor * largest / 127).clamp_min(1e-12)
        rounded = (weight / scale).round_().clamp_(-127, 127).mul_(scale)
        error = energies @ (rounded - weight).square_()
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


# Below, positions are in bins from zero, and a bin's values lie evenly in it. ``zero`` is the index
# of the bin that starts with zero; ``counts`` (bins,) is float64, its first bin that of the
# smallest value, or that starts with zero, its last that of the largest, or that ends there.


def _percentile(counts: Tensor, zero: int, cut: float) -> tuple[float, float]:
    low = _end(counts[:zero], cut)
    return -low, _end(counts[zero:].flip(0), cut)


def _end(counts: Tensor, cut: float) -> float:
    """Return how far from zero the outermost ``cut`` values end; counts from the outermost in."""
    mass = counts.cumsum(0)
    if not len(counts) or float(mass[-1]) <= cut:
        return 0.0
    index = int(torch.searchsorted(mass, cut, right=True))
    inside = (cut - float(mass[index] - counts[index])) / float(counts[index])
    return len(counts) - index - inside


def _entropy(counts: Tensor, zero: int) -> tuple[float, float]:
    """Return the range of the smallest divergence: on a coarse grid, then around the best."""
    bins, step = len(counts), 1
    while (zero // step + 1) * ((bins - zero) // step + 1) > _CANDIDATES:
        step *= 2
    divergence = _Divergence(counts)
    first, last = torch.arange(0, zero + 1, step), torch.arange(bins, zero - 1, -step)
    best = divergence.smallest(first, last)
    while step > 1:
        near, step = step, max(step // 8, 1)
        around = torch.arange(-near, near + 1, step)
        first, last = best[0] + around, best[1] - around
        first, last = first[(first >= 0) & (first <= zero)], last[(last >= zero) & (last <= bins)]
        best = divergence.smallest(first, last)
    return float(best[0] - zero), float(best[1] - zero)


class _Divergence:
    """Return what ranges lose of a histogram: the Kullback-Leibler divergence, in nats.

    The histogram, with all that is outside a range added to the bins at its ends, is compared with
    its bins inside, each level's shared out evenly among those of its bins that are not empty.
    """

    def __init__(self, counts: Tensor) -> None:
        self._counts = counts
        start = counts.new_zeros(1)
        self._mass = torch.cat([start, counts.cumsum(0)])
        self._filled = torch.cat([start, (counts > 0).double().cumsum(0)])
        self._plogp = torch.cat([start, torch.xlogy(counts, counts).cumsum(0)])

    def smallest(self, first: Tensor, last: Tensor) -> tuple[int, int]:
        """Return the range, from a first bin up to but not with a last, of the smallest divergence.

        Of equally good ones the widest, if ``first`` ascends and ``last`` descends.
        """
        grid = torch.cartesian_prod(first, last)
        # In narrower ones, there are levels without bins.
        grid = grid[grid[:, 1] - grid[:, 0] >= LEVELS]
        found = self.of(grid[:, 0], grid[:, 1])
        index = int((found <= found.min() + _EQUAL).int().argmax())
        return int(grid[index, 0]), int(grid[index, 1])

    def of(self, first: Tensor, last: Tensor) -> Tensor:
        """Return the divergences of ranges (ranges,) of bins, (ranges,)."""
        # A level's bins are those whose middle is nearest to it. The first level is where the
        # range starts, the last where it ends.
        scale = (last - first)[:, None] / (LEVELS - 1)
        between = ((torch.arange(1, LEVELS) - 0.5) * scale - 0.5).ceil().long() + first[:, None]
        edges = torch.cat([first[:, None], between, last[:, None]], 1)
        kept, filled = self._mass[edges].diff(dim=1), self._filled[edges].diff(dim=1)
        below, above = self._mass[first], self._mass[-1] - self._mass[last]
        lowest, highest = self._counts[first], self._counts[last - 1]
        mass = kept.clone()
        mass[:, 0] += below
        mass[:, -1] += above
        filled[:, 0] += (lowest == 0) & (below > 0)
        filled[:, -1] += (highest == 0) & (above > 0)
        own = self._plogp[last] - self._plogp[first]
        own += _added(lowest, below) + _added(highest, above)
        shared = torch.xlogy(mass, kept / filled.clamp_min(1)).sum(1)
        total = self._mass[-1]
        inside = self._mass[last] - self._mass[first]
        return ((own - shared) / total - total.log() + inside.log()).nan_to_num(nan=math.inf)


def _added(counts: Tensor, more: Tensor) -> Tensor:
    return torch.xlogy(counts + more, counts + more) - torch.xlogy(counts, counts)


def _mse(counts: Tensor, zero: int, low: float, high: float) -> tuple[float, float]:
    """Return the range of the smallest error: on a coarse grid, then around the best."""
    # The error is summed by parts: edges between bins of one count cancel.
    empty = counts.new_zeros(1)
    weights = -torch.cat([empty, counts, empty]).diff()
    used = weights != 0
    edges = torch.arange(-zero, len(weights) - zero, dtype=torch.float64)[used]

    def best(lows: Tensor, highs: Tensor) -> tuple[float, float]:
        errors = torch.stack([_antiderivative(edges, one, highs) @ weights[used] for one in lows])
        row, column = divmod(int(errors.argmin()), len(highs))
        return float(lows[row]), float(highs[column])

    factors = torch.cat([torch.exp2(-torch.arange(17, dtype=torch.float64) / 2), empty])
    found = best(low * factors, high * factors)
    for step in (0.25, 0.1, 0.04):
        factors = torch.exp2(-torch.arange(-2, 3, dtype=torch.float64) * step)
        found = best(
            (found[0] * factors).clamp_min(low),
            (found[1] * factors).clamp_max(high),
        )
    return found


def _antiderivative(x: Tensor, low: Tensor, highs: Tensor) -> Tensor:
    """Return the antiderivative of (x - rounded x)**2 at every x, of each range: (ranges, x)."""
    scale = ((highs - low) / (LEVELS - 1)).clamp_min(1e-12)[:, None]
    zero = (-low / scale).round()
    steps = x / scale
    level = steps.round().clamp(-zero, LEVELS - 1 - zero)
    return (level / 12 + steps.sub_(level).pow_(3) / 3) * scale**3
