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
_SENTINEL_2 = {
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
_ALIASES = {
    "R": "B04", "RED": "B04", "G": "B03", "GREEN": "B03", "B": "B02", "BLUE": "B02",
    "N": "B08", "NIR": "B08", "IR": "B08",
}  # fmt: skip
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
        """Whether the band can be told from others otherwise than by its place."""
        return self.name is not None or self.wavelength_nm is not None

    def __str__(self) -> str:
        return self.name or (f"{self.wavelength_nm:g}nm" if self.wavelength_nm else "?")


def canonical(name: str) -> str:
    """Return the name in this project's spelling: ``B4``, ``b04``, ``red`` all give ``B04``."""
    upper = name.strip().upper()
    if upper in _ALIASES:
        return _ALIASES[upper]
    numbered = re.fullmatch(r"B(\d+)(A?)", upper)
    if numbered:
        number, letter = numbered.groups()
        return f"B{int(number)}A" if letter else f"B{int(number):02d}"
    return upper


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
    if text in PRESETS or canonical(text) in (*_SENTINEL_2, *S1):
        return
    if re.match(r"(S\d|RGB|SENTINEL)[^,]*$", text) or difflib.get_close_matches(text, PRESETS):
        raise UserError(f"{text!r} is no preset", expected=f"one of {', '.join(PRESETS)}, or bands")


def find(wanted: Band, available: Sequence[Band]) -> int | None:
    """Return the index of the available band that is ``wanted``, or None.

    Wavelengths decide where both bands have one, since names clash between sensors (``B2`` is
    blue on Landsat 8 and Sentinel-2, but ``B5`` is not the same): the nearest one within half of
    the wanted band's bandwidth. Otherwise names decide.
    """
    by_name = [i for i, band in enumerate(available) if band.name and band.name == wanted.name]
    centre, bandwidth = _spectrum(wanted)
    if centre is None:
        return by_name[0] if by_name else None
    near = [
        (abs(band.wavelength_nm - centre), i)
        for i, band in enumerate(available)
        if band.wavelength_nm is not None and abs(band.wavelength_nm - centre) <= bandwidth / 2
    ]
    if near:
        return min(near)[1]
    named_only = [i for i in by_name if available[i].wavelength_nm is None]
    if named_only:
        return named_only[0]
    if wanted.name is not None:
        return None
    # Wanted by wavelength alone, offered by a name whose wavelength is known.
    near = [
        (abs(_SENTINEL_2[band.name][0] - centre), i)
        for i, band in enumerate(available)
        if band.name in _SENTINEL_2
        and abs(_SENTINEL_2[band.name][0] - centre) <= _SENTINEL_2[band.name][1] / 2
    ]
    return min(near)[1] if near else None


def _spectrum(band: Band) -> tuple[float | None, float]:
    table_centre, bandwidth = _SENTINEL_2.get(band.name or "", (None, _BANDWIDTH_OF_UNKNOWN))
    return band.wavelength_nm or table_centre, bandwidth
