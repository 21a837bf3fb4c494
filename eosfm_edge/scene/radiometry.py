"""Check that values, read as files and options say, can be what the ensemble means.

A scene's scale and offset are converted to the ensemble's
(:mod:`eosfm_edge.scene.reading`); a file that says nothing is believed to store what the ensemble
takes. Where that is wrong, every feature is wrong, and nothing afterwards would say so. So ``run``
and ``export`` look at pixels from all over the scene, ``prune`` and ``calibrate`` at the tiles that
they take, and refuse values that cannot be right. ``--trust-values`` takes them all the same.

"Dark", "median" and "bright" below are the 1st, 50th and 99th percentile of a band's valid pixels.
Every criterion asks it of every band of a kind, or of most: one strange band is no reason.

**Reflectance.** Bands with a name of Sentinel-2, or with a wavelength of 350 to 2500 nm, whose
scale is 1, or from 1e-5 to 0.01, and whose offset is from -0.5 to 0.5. If the ensemble's scale is
1, its specialists may take any numbers: these bands are only looked at if dark and bright lie
between -0.5 and 2.5, and then only rules 6 and 7 apply. If it has means, they must be reflectances
from -0.1 to 1.5 in the ensemble's scale and offset: then all rules apply.

1. *8 bit into 16.* The file's type ends below a reflectance of 0.1; or nothing is above 255 steps
   of less than 0.001 though every band is bright beyond 100: a picture. Open water is that dark,
   but not nearly white in these steps.
2. *Reflectances taken for stored integers.* Bright is below 2.5 stored steps of at most 0.01. If
   the file has a scale tag, it was kept when the values were scaled.
3. *Stored integers taken for reflectances.* The median is above 2.5.
4. *Landsat's numbers as Sentinel-2's.* Dark is above 0.45, and bright is above 1.25 on average over
   the bands, or one of them is beyond 1300 nm. Landsat stores 0 as 5000 (level 1) or 7273 (level
   2), and 0.15 as 12500 or 12727. Snow and clouds are above 0.45 in visible bands everywhere, but
   not above 1.25, nor beyond 1300 nm.
5. *A nodata value that nobody stated.* Over 1 % of the pixels have the lowest value, and this is
   below -0.5, in most bands.
6. *An offset that the product does not have.* Dark is below -0.02 in most bands. Atmospheric
   correction leaves a little below 0 over dark water, and not in most bands. Where over 1 % have
   one value in most bands, it may be nodata too: a stored 0, read with Landsat's offset.
7. *An offset that was not subtracted.* Sentinel-2 products from processing baseline 04.00 (25
   January 2022) on store 1000 more: ``reflectance = (stored + offset) / 10000`` with
   ``RADIO_ADD_OFFSET`` (L1C) or ``BOA_ADD_OFFSET`` (L2A) of -1000 in the product's metadata, which
   no band file repeats (ESA: https://sentiwiki.copernicus.eu/web/s2-products and
   https://forum.step.esa.int/t/35431). Nothing is below 0.09 in any band and at most 1 % below
   0.095 in each, and bands are dark that should be black. Cirrus (B10) is black under a clear sky,
   and where it is there it decides: below 0.15, or below 0.17 as most bands are. Otherwise most
   bands must be dark below 0.15, one beyond 1300 nm among them: deserts, snow and clouds are
   bright, but not so evenly. Without a band beyond 1300 nm nothing is said: three visible bands of
   a dry land may well have no dark pixel.

**Backscatter.** VV, VH, HH and HV are read as in decibels, as models take them, if the
ensemble's scale is a power of ten from 0.001 to 1, its offset 0, and its mean, if any, negative.

8. *Linear.* Dark is 0 or more in every band: power or amplitude. No landscape has so much
   backscatter.
9. *A scale is missing.* The median is below -80 dB in every band.
10. *A nodata value that nobody stated.* As 5, below -80 dB.

**Standardised values.** Bands of any kind with a mean and a standard deviation, which is what their
specialists were trained with: they see z = (stored - mean) / std.

11. *Too small or too large.* The 1st and 99th percentile of z are less than 0.02 apart in every
    band, as those of reflectances are beside a mean of 1354; or the median of z is above 30 or
    below -30 in every band.
12. *Standardised by scale and offset.* A scale and an offset beyond 0.5 of a band of sunlight or
    radar say what specialists see, and not what is physical. What the file itself or an option says
    cannot be converted to that: it must be the ensemble's own.

Everything else, such as elevation, temperature, or bands without a name, is left alone.

Of a source of many files a tenth may look impossible: a freak among a thousand chips is no reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import S2_L1C, Band, canonical
from eosfm_edge.scene.reading import Declared, FloatImage

if TYPE_CHECKING:
    from eosfm_edge.formats.ensemble import InputBand
    from eosfm_edge.scene.scene import Scene

_SAMPLE = 4096  # pixels that are kept of each tile
_MOST_OF_A_SOURCE = 0.1  # of its files may be doubted

_SUNLIGHT_NM = (350.0, 2500.0)
_SHORTWAVE_NM = 1300.0  # beyond it water, shadow and cirrus-free air are black
_CIRRUS_NM = (1360.0, 1390.0)
_SHORTWAVE, _CIRRUS = ("B10", "B11", "B12"), "B10"
_RADAR = ("VV", "VH", "HH", "HV")
_REFLECTANCE_SCALES = (1e-5, 0.01)
_DECIBEL_SCALES = (1.0, 0.1, 0.01, 0.001)
_MOST_OFFSET = 0.5
_REFLECTANCE_MEANS = (-0.1, 1.5)
_LEAST_SPREAD, _MOST_Z = 0.02, 30.0

_FEW = 0.01  # 1 % of the pixels
_BRIGHT, _ABSURD = 2.5, -0.5
_PICTURE = (255, 100)  # no step above the first, bright beyond the second
_FINE_STEP, _COARSE_STEP = 1e-3, 0.01
_LANDSAT_FLOOR, _LANDSAT_BRIGHT = 0.45, 1.25
_NEGATIVE, _SUBTRACTED = -0.02, -0.12
_DARKEST, _DARK, _DARKISH, _RATHER_DARK = 0.09, 0.095, 0.15, 0.17
_NO_ECHO_DB = -80.0

_EIGHT_BIT = "--scale 0.00392157 --offset 0"
_TRUST = "; if the values are right, pass --trust-values"


@dataclass(frozen=True)
class Doubt:
    """A reason why values cannot be right."""

    found: str
    expected: str
    remedy: str


class Values:
    """The distribution of a file's pixels, by a sample of each band.

    Args:
        declared: how each band of the input is read.
    """

    def __init__(self, declared: Sequence[Declared]) -> None:
        self._declared = tuple(declared)
        self._light = [i for i, one in enumerate(declared) if is_reflectance(one.wanted)]
        self._radar = [i for i, one in enumerate(declared) if _is_decibels(one.wanted)]
        self._standardised = [i for i, one in enumerate(declared) if one.wanted.mean is not None]
        self._samples: list[FloatImage] = []

    def add(self, stored: FloatImage) -> None:
        """Take a sample of valid pixels: the input's stored values (bands, ...)."""
        if self._light or self._radar or self._standardised:
            pixels = stored.reshape(len(stored), -1)
            step = -(-pixels.shape[1] // _SAMPLE)
            self._samples.append(pixels[:, :: max(1, step)].copy())

    def doubt(self) -> Doubt | None:
        """Return what is wrong, if something is."""
        found = _doubt_of_folded(self._declared)
        if found or not any(sample.size for sample in self._samples):
            return found
        stored = np.concatenate(self._samples, axis=1).astype(np.float64)
        wanted = [one.wanted for one in self._declared]
        scale, offset = np.array([(band.scale, band.offset) for band in wanted]).T[..., np.newaxis]
        physical = stored * scale + offset
        if self._standardised:
            some = [self._declared[i] for i in self._standardised]
            found = _doubt_of_standardised(some, stored[self._standardised])
        if found is None and self._light:
            light = _Light([self._declared[i] for i in self._light], physical[self._light])
            found = light.doubt()
        if found is None and self._radar:
            radar = [self._declared[i] for i in self._radar]
            found = _doubt_of_decibels(radar, physical[self._radar])
        return found


def require_plausible_scene(scene: Scene) -> None:
    """Refuse a scene whose values cannot be what they are read as, by pixels from all over it.

    Raises:
        UserError: they cannot, and the caller did not say that they are to be trusted.
    """
    if scene.radiometry.trusted:
        return
    image, valid = scene.sample()
    seen = Values([reading.declared for reading in scene.readings])
    seen.add(image[:, valid])
    doubt = seen.doubt()
    require_plausible(str(scene.path), [(str(scene.path), doubt)] if doubt else [], 1)


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
        remedy=doubt.remedy + mixed + _TRUST,
    )


class _Light:
    """Physical values (bands, pixels) of bands of reflected sunlight, and what may be wrong."""

    def __init__(self, declared: Sequence[Declared], physical: NDArray[np.float64]) -> None:
        self._declared = declared
        self._bands = [one.wanted for one in declared]
        self._physical = physical
        scale, offset = np.array([(one.scale, one.offset) for one in declared]).T
        self._step = np.abs(scale)
        self._stored = (physical - offset[:, np.newaxis]) / scale[:, np.newaxis]
        self._offset = offset
        self._dark, self._median, self._bright = np.percentile(physical, (1, 50, 99), axis=1)
        self._lowest = physical.min(axis=1)

    def doubt(self) -> Doubt | None:
        known = all(band.scale != 1 or band.mean is not None for band in self._bands)
        if known:
            found = self._of_pictures() or self._of_small() or self._of_large()
            if found:
                return found
        elif (self._dark < _ABSURD).any() or (self._bright > _BRIGHT).any():
            return None
        nodata = _doubt_of_nodata(self._declared, self._physical, _ABSURD)
        return (nodata if known else None) or self._of_negatives() or self._of_a_floor()

    def _of_pictures(self) -> Doubt | None:
        kinds = {np.dtype(one.dtype) for one in self._declared}
        ends = max(
            np.iinfo(kind).max if kind.kind in "iu" and kind.itemsize == 1 else np.inf
            for kind in kinds
        )
        limit, bright = _PICTURE
        picture = (
            (self._step < _FINE_STEP).all()
            and (self._stored.max(axis=1) <= limit).all()
            and (np.percentile(self._stored, 99, axis=1) >= bright).all()
        )
        if not picture and not (ends * self._step + self._offset < 0.1).all():
            return None
        return Doubt(
            f"has reflectances up to {self._physical.max():.3g}: an 8-bit picture",
            f"reflectances from 0 to about 1, in steps of {self._step.max():g}",
            f"give the size of an 8-bit step, such as {_EIGHT_BIT}",
        )

    def _of_small(self) -> Doubt | None:
        bright = np.percentile(np.abs(self._stored), 99, axis=1)
        if not ((self._step <= _COARSE_STEP) & (bright < _BRIGHT)).all():
            return None
        step = self._step.max()
        tagged = any(one.tagged and one.scale == step for one in self._declared)
        tag = f" by the file's own scale tag of {step:g}" if tagged else ""
        stale = ", whatever the tag says" if tagged else ""
        return Doubt(
            f"has values up to {self._stored.max():.3g}, which are reflectances up to "
            f"{self._physical.max():.3g}{tag}",
            "reflectances from 0 to about 1",
            f"if the values are reflectances as they are, pass --scale 1 --offset 0{stale}",
        )

    def _of_large(self) -> Doubt | None:
        found = f"has a median reflectance of {np.median(self._median):.3g}"
        shortwave = any(_is_shortwave(band) for band in self._bands)
        raised = (self._dark > _LANDSAT_FLOOR).all() and (
            shortwave or float(self._bright.mean()) > _LANDSAT_BRIGHT
        )
        if (self._median > _BRIGHT).all():
            eight_bit = (self._stored.max(axis=1) <= _PICTURE[0]).all()
            step = _EIGHT_BIT if eight_bit else "--scale 0.0001"
            return Doubt(
                f"{found}, and more than {_BRIGHT:g} in half of the pixels of every band",
                "reflectances from 0 to about 1",
                f"give the size of a stored step, such as {step}",
            )
        if not raised:
            return None
        return Doubt(
            f"{found}, and nothing darker than {self._lowest.min():.3g} in any band",
            "reflectances from 0 to about 1",
            "give the size of a stored step: of Landsat Collection 2, --scale 0.00002 --offset "
            "-0.1 (level 1) or --scale 0.0000275 --offset -0.2 (level 2)",
        )

    def _of_negatives(self) -> Doubt | None:
        negative = self._dark < _NEGATIVE
        if negative.sum() * 2 <= len(self._bands):
            return None
        which = ", ".join(str(b) for b, low in zip(self._bands, negative, strict=True) if low)
        old = "Sentinel-2 before baseline 04.00"
        if (self._offset < 0).any():
            remedy = f"if the product has no offset ({old}), pass --offset 0"
        elif self._lowest.min() >= _SUBTRACTED:
            back = float(self._offset.min()) + 0.1
            remedy = f"if 0.1 was subtracted from values of {old}, pass --offset {back:g}"
        else:
            remedy = "give --scale and --offset, which turn stored values into reflectances"
        fill = _doubt_of_nodata(self._declared, self._physical, _NEGATIVE)
        if fill:
            remedy = f"{fill.remedy}; otherwise, {remedy}"
        return Doubt(
            f"has reflectances down to {self._lowest.min():.3f}, and more than 1 % below "
            f"{_NEGATIVE:g} in {which}",
            "0 or more, but for the noise of dark water",
            remedy,
        )

    def _of_a_floor(self) -> Doubt | None:
        few = np.mean(self._physical < _DARK, axis=1) <= _FEW
        if self._lowest.min() < _DARKEST or not few.all():
            return None
        darkish, rather = (self._dark < edge for edge in (_DARKISH, _RATHER_DARK))
        cirrus = np.array([_is_cirrus(band) for band in self._bands])
        shortwave = np.array([_is_shortwave(band) for band in self._bands])
        if cirrus.any():
            raised = darkish[cirrus].any() or (rather[cirrus].any() and rather.mean() > 0.5)
        else:
            raised = darkish[shortwave].any() and darkish.mean() > 0.5
        if not raised:
            return None
        return Doubt(
            f"has no reflectance below {self._lowest.min():.3f} in any band",
            "dark pixels near 0: water and shadow in the infrared, cirrus (B10) under a clear sky",
            "Sentinel-2 from baseline 04.00 stores 1000 more: pass --offset "
            f"{float(self._offset.max()) - 0.1:g}",
        )


def _doubt_of_nodata(
    declared: Sequence[Declared], physical: NDArray[np.float64], least: float
) -> Doubt | None:
    lowest = physical.min(axis=1, keepdims=True)
    often = np.mean(physical == lowest, axis=1) > _FEW
    suspect = (lowest[:, 0] < least) & often
    if suspect.sum() * 2 <= len(physical):
        return None
    at = int(suspect.argmax())
    value = (float(lowest[at, 0]) - declared[at].offset) / declared[at].scale
    if np.dtype(declared[at].dtype).kind in "iu":
        value = round(value)  # what float32 left of it
    return Doubt(
        f"has over 1 % of its pixels at one value, which would be {float(lowest[at, 0]):.6g}",
        f"{least:g} or more",
        f"if it stands for no data, pass --nodata {value:.9g}",
    )


def _doubt_of_decibels(declared: Sequence[Declared], physical: NDArray[np.float64]) -> Doubt | None:
    dark, median = np.percentile(physical, (1, 50), axis=1)
    if (dark >= 0).all():
        return Doubt(
            f"has a median backscatter of {np.median(median):.3g} and no value below 0: linear "
            "power or amplitude",
            "backscatter in dB, about -30 to 5",
            "convert it to dB: 10 * log10 of power, 20 * log10 of amplitude",
        )
    if (median < _NO_ECHO_DB).all():
        return Doubt(
            f"has a median backscatter of {np.median(median):.3g} dB",
            "backscatter in dB, about -30 to 5",
            "give the size of a stored step, such as --scale 0.01 --offset 0",
        )
    return _doubt_of_nodata(declared, physical, _NO_ECHO_DB)


def _doubt_of_standardised(
    declared: Sequence[Declared], stored: NDArray[np.float64]
) -> Doubt | None:
    mean, std = np.array([(one.wanted.mean, one.wanted.std) for one in declared]).T
    z = (stored - mean[:, np.newaxis]) / std[:, np.newaxis]
    dark, median, bright = np.percentile(z, (1, 50, 99), axis=1)
    if not (bright - dark < _LEAST_SPREAD).all() and not (np.abs(median) > _MOST_Z).all():
        return None
    one = declared[0]
    target = float(mean[0]) * one.wanted.scale + one.wanted.offset
    physical = float(np.median(stored[0])) * one.wanted.scale + one.wanted.offset
    given = (physical - one.offset) / one.scale
    scale = f"{10.0 ** round(math.log10(target / given)):g}" if target / given > 0 else "SCALE"
    return Doubt(
        f"has a median of {np.median(stored[0]):.3g} in {one.wanted}, in the values that the "
        "ensemble takes",
        f"values around its mean of {mean[0]:g}, with a standard deviation of {std[0]:g}",
        f"give the size of a stored step, such as --scale {scale} --offset 0",
    )


def _doubt_of_folded(declared: Sequence[Declared]) -> Doubt | None:
    for one in declared:
        band = one.wanted
        folded = band.mean is None and abs(band.offset) > _MOST_OFFSET
        same = (one.scale, one.offset) == (band.scale, band.offset)
        if folded and not same and (_is_sunlight(band) or _name(band) in _RADAR):
            return Doubt(
                f"has in {band} the scale {one.scale:g} and the offset {one.offset:g}, but the "
                f"ensemble's, {band.scale:g} and {band.offset:g}, standardise",
                "values as the specialists were trained on, without a scale of their own",
                "import the ensemble again with --mean and --std instead of --scale and --offset",
            )
    return None


def is_reflectance(band: InputBand) -> bool:
    """Return whether an ensemble's band is known to be of reflected sunlight, in a usual unit."""
    low, high = _REFLECTANCE_SCALES
    usual = (band.scale == 1 or low <= band.scale <= high) and abs(band.offset) <= _MOST_OFFSET
    if usual and band.mean is not None:
        low, high = _REFLECTANCE_MEANS
        usual = low <= band.mean * band.scale + band.offset <= high
    return usual and _is_sunlight(band)


def _is_sunlight(band: Band) -> bool:
    if band.wavelength_nm is not None:
        return _SUNLIGHT_NM[0] <= band.wavelength_nm <= _SUNLIGHT_NM[1]
    return _name(band) in S2_L1C


def _is_decibels(band: InputBand) -> bool:
    usual = band.scale in _DECIBEL_SCALES and band.offset == 0
    return _name(band) in _RADAR and usual and (band.mean is None or band.mean < 0)


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
