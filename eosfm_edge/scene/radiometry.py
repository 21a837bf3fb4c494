"""Whether reflectances, read as files and options say, can be reflectances at all.

A scene's scale and offset are converted to the ensemble's (see
:class:`~eosfm_edge.scene.scene.Scene`); what says nothing is believed to store what the ensemble
takes. The classic that this misses: Sentinel-2 products from processing baseline 04.00 (25 January
2022) on store 1000 more, ``reflectance = (stored + offset) / 10000`` with ``RADIO_ADD_OFFSET``
(L1C) and ``BOA_ADD_OFFSET`` (L2A) of -1000 in the product's metadata, which no band file repeats;
earlier products have no offset (ESA: https://sentiwiki.copernicus.eu/web/s2-products and
https://forum.step.esa.int/t/35431). Ranges found on the wrong values clip the right ones, and
nothing afterwards would say so.

Only bands of reflected sunlight are looked at: those with a name of Sentinel-2 or with a wavelength
of 350 to 2500 nm, and with a scale from 1e-5 to 1e-3, that of stored integers. With a scale of 1
the stored values may be anything, digital numbers too: they are looked at if nearly all lie
between -0.5 and 2.5, and their size is not doubted. Radar, 8-bit images (a scale of 1/255) and
temperatures are thus left alone. A file is refused if its sampled valid pixels have

1. a median above 2.5, or values (without the offset) of which the median is below 0.0001, in every
   band: a scale is missing, or one too many was applied;
2. more than 1 % below -0.02 in most bands: an offset was subtracted that the product does not have.
   Atmospheric correction leaves a little below 0 over dark water, and not in most bands;
3. nothing below 0.09 in any band and at most 1 % below 0.095 in each, although there is a band
   beyond 1300 nm that has 1 % below 0.15: an offset was not subtracted. Cirrus (B10) is black
   under a clear sky, and where it is there it decides. Otherwise most bands must come that near to
   0.1: deserts, snow and clouds are bright, but not so evenly. Without a band beyond 1300 nm
   nothing is said: three visible bands of a dry land may well have no dark pixel.

Of a source of many files a tenth may look impossible: a freak among a thousand chips is no reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.ensemble.bands import S2_L1C, Band, canonical
from eosfm_edge.ensemble.spec import InputBand
from eosfm_edge.errors import UserError
from eosfm_edge.scene.reading import FloatImage

_SUNLIGHT_NM = (350.0, 2500.0)
_SHORTWAVE_NM = 1300.0  # beyond it water, shadow and cirrus-free air are black
_CIRRUS_NM = (1360.0, 1390.0)
_SHORTWAVE, _CIRRUS = ("B10", "B11", "B12"), "B10"
_INTEGER_SCALES = (1e-5, 1e-3)
_FEW = 0.01  # a percentile
_MOST_OF_A_SOURCE = 0.1  # of its files may be doubted

_EDGES = (-0.5, -0.02, 0.095, 0.15, 2.5)
_ABSURD, _NEGATIVE, _DARK, _DARKISH, _BRIGHT = _EDGES
_TINY = 1e-4
_DARKEST = 0.09


@dataclass(frozen=True)
class Doubt:
    """Why values cannot be reflectances."""

    found: str
    expected: str
    remedy: str


class Reflectances:
    """How the pixels of a file are distributed, in a few counts for each band."""

    def __init__(self, wanted: Sequence[InputBand]) -> None:
        self._at = [i for i, band in enumerate(wanted) if _is_reflectance(band)]
        self._bands = [wanted[i] for i in self._at]
        self._below = np.zeros((len(_EDGES), len(self._at)))
        self._tiny = np.zeros(len(self._at))
        self._lowest = np.full(len(self._at), np.inf)
        self._sum = np.zeros(len(self._at))
        self._pixels = 0

    def add(self, stored: FloatImage) -> None:
        """Count a tile of valid pixels: stored values (bands, H, W)."""
        self._pixels += stored[0].size
        for i, (at, band) in enumerate(zip(self._at, self._bands, strict=True)):
            light = stored[at].astype(np.float64) * band.scale
            physical = light + band.offset
            self._below[:, i] += [np.count_nonzero(physical < edge) for edge in _EDGES]
            self._tiny[i] += np.count_nonzero(np.abs(light) < _TINY)
            self._lowest[i] = min(self._lowest[i], physical.min())
            self._sum[i] += physical.sum()

    def doubt(self) -> Doubt | None:
        """Return what is wrong, if something is."""
        if not self._pixels or not self._bands:
            return None
        if any(band.scale == 1 for band in self._bands):
            between = self._share(_BRIGHT) - self._share(_ABSURD)
            if (between < 1 - _FEW).any():
                return None
        else:
            doubt = self._doubt_of_size()
            if doubt:
                return doubt
        return self._doubt_of_negatives() or self._doubt_of_a_floor()

    def _share(self, edge: float) -> NDArray[np.float64]:
        """Return for each band which share of the pixels is below an edge."""
        share: NDArray[np.float64] = self._below[_EDGES.index(edge)] / self._pixels
        return share

    def _doubt_of_size(self) -> Doubt | None:
        mean = f"a mean reflectance of {float(np.mean(self._sum)) / self._pixels:.3g}"
        if (self._share(_BRIGHT) < 0.5).all():
            return Doubt(
                f"has {mean}, more than {_BRIGHT:g} in half of the pixels of every band",
                "0 to about 1",
                "say what a stored step is, such as --scale 0.0001",
            )
        if (self._tiny / self._pixels > 0.5).all():
            return Doubt(
                f"has {mean}, less than {_TINY:g} in half of the pixels of every band",
                "0 to about 1",
                "if its values are reflectances as they are, say --scale 1 --offset 0",
            )
        return None

    def _doubt_of_negatives(self) -> Doubt | None:
        negative = self._share(_NEGATIVE) > _FEW
        if negative.sum() * 2 <= len(self._bands):
            return None
        which = ", ".join(str(b) for b, low in zip(self._bands, negative, strict=True) if low)
        return Doubt(
            f"has reflectances down to {self._lowest.min():.3f}, and more than 1 % below "
            f"{_NEGATIVE:g} in {which}",
            "0 or more, but for the noise of dark water",
            "if the product has no offset (Sentinel-2 before baseline 04.00), say --offset 0",
        )

    def _doubt_of_a_floor(self) -> Doubt | None:
        shortwave = [i for i, band in enumerate(self._bands) if _is_shortwave(band)]
        near = self._share(_DARKISH) > _FEW
        raised = self._lowest.min() >= _DARKEST and (self._share(_DARK) <= _FEW).all()
        if not raised or not near[shortwave].any():
            return None
        cirrus = [i for i, band in enumerate(self._bands) if _is_cirrus(band)]
        if not (near[cirrus].any() if cirrus else near.sum() * 2 > len(self._bands)):
            return None
        return Doubt(
            f"has no reflectance below {self._lowest.min():.3f} in any band",
            "dark pixels near 0: water and shadow in the infrared, cirrus (B10) under a clear sky",
            "Sentinel-2 from baseline 04.00 stores 1000 more: say --offset -0.1",
        )


def require_plausible(source: str, doubts: Sequence[tuple[str, Doubt]], files: int) -> None:
    """Refuse data that cannot be what it is read as.

    Args:
        source: where the files are from.
        doubts: the files that cannot be right, with what is wrong.
        files: how many were looked at.

    Raises:
        UserError: that is more than a tenth of them.
    """
    if len(doubts) <= _MOST_OF_A_SOURCE * files:
        return
    file, doubt = doubts[0]
    more = f" (and so with {len(doubts) - 1} more of {files} of {source})" if doubts[1:] else ""
    mixed = "" if len(doubts) == files else "; a manifest says it of some files and not of others"
    raise UserError(
        f"{file}, read as declared, {doubt.found}{more}",
        expected=doubt.expected,
        remedy=doubt.remedy + mixed,
    )


def _is_reflectance(band: InputBand) -> bool:
    if band.wavelength_nm is not None:
        sunlight = _SUNLIGHT_NM[0] <= band.wavelength_nm <= _SUNLIGHT_NM[1]
    else:
        sunlight = _name(band) in S2_L1C
    low, high = _INTEGER_SCALES
    return sunlight and (band.scale == 1 or low <= band.scale <= high)


def _is_shortwave(band: Band) -> bool:
    if band.wavelength_nm is not None:
        return band.wavelength_nm >= _SHORTWAVE_NM
    return _name(band) in _SHORTWAVE


def _is_cirrus(band: Band) -> bool:
    if band.wavelength_nm is not None:
        return _CIRRUS_NM[0] <= band.wavelength_nm <= _CIRRUS_NM[1]
    return _name(band) == _CIRRUS


def _name(band: Band) -> str:
    return canonical(band.name or "")
