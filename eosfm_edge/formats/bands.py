"""Spectral and radar bands: their names, wavelengths, and when two of them are the same.

Central wavelengths and bandwidths are Sentinel-2A's, from ESA's MSI user guide
(https://sentiwiki.copernicus.eu/web/s2-mission).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from eosfm_edge.errors import UserError

S2_L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
S2_L2A = tuple(name for name in S2_L1C if name != "B10")
S1 = ("VV", "VH")
RGB = ("B04", "B03", "B02")

PRESETS: dict[str, tuple[str, ...]] = {
    "S1": S1,
    "RGB": RGB,
    "RGBN": (*RGB, "B08"),
    "RGBS1": (*RGB, *S1),
    "S2L2A": S2_L2A,
    "S2L1C": S2_L1C,
    "S1S2L2A": (*S1, *S2_L2A),
}

# name: (central wavelength, bandwidth), nm
SENTINEL_2 = {
    "B01": (442.7, 21.0),
    "B02": (492.4, 66.0),
    "B03": (559.8, 36.0),
    "B04": (664.6, 31.0),
    "B05": (704.1, 15.0),
    "B06": (740.5, 15.0),
    "B07": (782.8, 20.0),
    "B08": (832.8, 106.0),
    "B8A": (864.7, 21.0),
    "B09": (945.1, 20.0),
    "B10": (1373.5, 31.0),
    "B11": (1613.7, 91.0),
    "B12": (2202.4, 175.0),
}
# Common names: those of the STAC extension "eo" (https://github.com/stac-extensions/eo), and other
# spellings that catalogues use. All but letters and digits counts as "_".
COMMON_NAMES = {
    "COASTAL": "B01", "COASTAL_AEROSOL": "B01", "COASTAL_BLUE": "B01",
    "BLUE": "B02", "GREEN": "B03", "RED": "B04",
    "REDEDGE1": "B05", "RED_EDGE_1": "B05", "REDEDGE_1": "B05", "REDEDGE071": "B05",
    "REDEDGE2": "B06", "RED_EDGE_2": "B06", "REDEDGE_2": "B06", "REDEDGE075": "B06",
    "REDEDGE3": "B07", "RED_EDGE_3": "B07", "REDEDGE_3": "B07", "REDEDGE078": "B07",
    "NIR": "B08", "NEAR_INFRARED": "B08", "NIR_BROAD": "B08",
    "NIR08": "B8A", "NIR_NARROW": "B8A",
    "NIR09": "B09", "WATER_VAPOUR": "B09", "WATER_VAPOR": "B09",
    "CIRRUS": "B10",
    "SWIR16": "B11", "SWIR1": "B11", "SWIR_1": "B11",
    "SWIR22": "B12", "SWIR2": "B12", "SWIR_2": "B12",
    "PAN": "PAN", "PANCHROMATIC": "PAN",
}  # fmt: skip
_LETTERS = {"R": "B04", "G": "B03", "B": "B02", "N": "B08", "IR": "B08"}
_BANDWIDTH_OF_UNKNOWN = 30.0  # nm, for a band known by its wavelength alone


class Band(BaseModel):
    """A band, by name (``B04``, ``VV``), by central wavelength in nm, by both, or by neither.

    A band with neither is only known by its place; everything then goes by the number of bands.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    wavelength_nm: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def known(self) -> bool:
        """Return whether a name or a wavelength identifies the band."""
        return self.name is not None or self.wavelength_nm is not None

    def __str__(self) -> str:
        return self.name or (f"{self.wavelength_nm:g}nm" if self.wavelength_nm else "?")


def canonical(name: str) -> str:
    """Return the name in this project's spelling: ``B4``, ``b04``, ``red`` all give ``B04``."""
    upper = name.strip().upper()
    common = common_name(upper)
    if common is not None:
        return common
    numbered = re.fullmatch(r"B(\d+)(A?)", upper)
    if numbered:
        number, letter = numbered.groups()
        return f"B{int(number)}A" if letter else f"B{int(number):02d}"
    return upper


def common_name(text: str) -> str | None:
    """Return the band that a common name means, in this project's spelling, or None."""
    upper = text.strip().upper()
    return _LETTERS.get(upper) or COMMON_NAMES.get(re.sub(r"[^A-Z0-9]+", "_", upper).strip("_"))


def parse_bands(text: str) -> tuple[Band, ...]:
    """Read ``S2L1C`` (a preset), ``B04,B03,B02`` (names) or ``665nm,560nm`` (wavelengths).

    Raises:
        UserError: an empty or repeated entry, a wavelength of 0, or a misspelt preset.
    """
    _refuse_misspelt_preset(text.strip().upper())
    entries = PRESETS.get(text.strip().upper()) or [entry.strip() for entry in text.split(",")]
    bands = []
    for entry in entries:
        wavelength = re.fullmatch(r"(\d+(?:\.\d+)?) *nm", entry, re.IGNORECASE)
        if not entry:
            raise UserError(
                f"bands {text!r} have an empty entry",
                expected=f"names (B04,B03), wavelengths (665nm,560nm) or one of "
                f"{', '.join(PRESETS)}",
            )
        if wavelength and not 0 < float(wavelength[1]) < math.inf:
            raise UserError(f"bands {text!r} have a wavelength of {entry}", expected="665nm, say")
        if wavelength:
            bands.append(Band(wavelength_nm=float(wavelength[1])))
        else:
            bands.append(Band(name=canonical(entry)))
    if len(set(bands)) != len(bands):
        raise UserError(f"bands {text!r} name a band twice", expected="each band once")
    return tuple(bands)


def _refuse_misspelt_preset(text: str) -> None:
    """Refuse ``S2L1D``: any word may be a band's name, but that one was meant to be more."""
    if text in PRESETS or canonical(text) in (*SENTINEL_2, *S1):
        return
    if re.match(r"(S\d|RGB|SENTINEL)[^,]*$", text) or difflib.get_close_matches(text, PRESETS):
        raise UserError(f"{text!r} is no preset", expected=f"one of {', '.join(PRESETS)}, or bands")


def find(wanted: Band, available: Sequence[Band]) -> int | None:
    """Return the index of the available band that is ``wanted``, or None.

    The first of :func:`nearest`.
    """
    found = nearest(wanted, available)
    return found[0] if found else None


def nearest(wanted: Band, available: Sequence[Band]) -> list[int]:
    """Return the indices of the available bands that are ``wanted``: several are equally near.

    Sentinel-2's bands are told apart by their names: B08 and B8A overlap and are not the same. Of
    other bands names clash between sensors (Landsat 8's ``B5`` is a near infrared), so wavelengths
    decide where both bands have one: those within half of the wanted band's bandwidth, and of
    them the nearest. Otherwise names decide. A band that spans several colours, as a panchromatic
    one, and radar have no wavelength, and so are only ever found by name.
    """
    distances = [_distance(wanted, band) for band in available]
    known = [distance for distance in distances if distance is not None]
    return [i for i, distance in enumerate(distances) if known and distance == min(known)]


def _distance(wanted: Band, offered: Band) -> float | None:
    """Return how far apart, in nm, the centres of two bands are that are the same, or None."""
    names = _sentinel_2(wanted), _sentinel_2(offered)
    if all(names):
        return 0.0 if names[0] == names[1] else None
    centre, width = _spectrum(wanted)
    centre_there, width_there = _spectrum(offered)
    if centre is None or centre_there is None:
        same = wanted.name and offered.name and canonical(wanted.name) == canonical(offered.name)
        return 0.0 if same else None
    distance = abs(centre - centre_there)
    within = (width or width_there or _BANDWIDTH_OF_UNKNOWN) / 2
    return distance if distance <= within else None


def _sentinel_2(band: Band) -> str | None:
    """Return which of Sentinel-2's bands this is by its name, if its wavelength agrees."""
    name = canonical(band.name) if band.name else ""
    if name not in SENTINEL_2:
        return None
    centre, width = SENTINEL_2[name]
    agrees = band.wavelength_nm is None or abs(band.wavelength_nm - centre) <= width / 2
    return name if agrees else None


def _spectrum(band: Band) -> tuple[float | None, float | None]:
    """Return a band's centre and bandwidth in nm, where they are known."""
    name = _sentinel_2(band)
    if name is None:
        return band.wavelength_nm, None
    centre, width = SENTINEL_2[name]
    return band.wavelength_nm or centre, width
