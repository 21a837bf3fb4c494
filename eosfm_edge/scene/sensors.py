"""Sensors: how their products are called, and what the numbers of their bands mean.

One number means different bands on different sensors: B5 is a red edge on Sentinel-2, the near
infrared on Landsat 8 and a short-wave infrared on Landsat 7. Ranges of wavelengths are from

- Landsat: USGS, https://www.usgs.gov/faqs/what-are-band-designations-landsat-satellites
- HLS: its user guide, https://lpdaac.usgs.gov/documents/1698/HLS_User_Guide_V2.pdf
- MODIS: https://modis.gsfc.nasa.gov/about/specifications.php
- PlanetScope: https://docs.planet.com/data/imagery/planetscope/
- Sentinel-2: :data:`eosfm_edge.formats.bands.SENTINEL_2`

To add a sensor, add a row to :data:`SENSORS`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from eosfm_edge.formats.bands import SENTINEL_2, Band, canonical

# A band wider than a quarter of its wavelength (panchromatic, the last one of Landsat's MSS) is of
# another kind than those that are looked for: it stands for no wavelength.
_WIDEST = 0.25


@dataclass(frozen=True)
class Response:
    """The light that a band measures: its common name, if it has one, and its first and last nm."""

    common: str | None
    first: float
    last: float

    @property
    def centre(self) -> float | None:
        """The central wavelength in nm, or None for a band that spans several colours."""
        centre = (self.first + self.last) / 2
        return centre if self.last - self.first <= _WIDEST * centre else None


Bands = Mapping[str, Response | None]


@dataclass(frozen=True)
class Sensor:
    """A sensor, or several with the same bands.

    Attributes:
        title: as messages name it.
        products: what product, file and folder names of it contain, a pattern; upper and lower
            case count the same.
        bands: by number, as ``B4``. None where Sentinel-2's own name is the meaning.
        bare: how its bands are often numbered in files that do not name the sensor: ``B4``,
            ``B04``. Empty: only names that contain ``products`` are taken for it.
        beside: what lies beside its bands and tells it from others, such as a file of flags.
        order: common names of a file's bands, where its products come without names.
    """

    title: str
    products: str
    bands: Bands = field(default_factory=dict)
    bare: Collection[str] = ()
    beside: Collection[str] = ()
    order: tuple[str, ...] = ()

    def named_in(self, text: str) -> bool:
        """Return whether a name says that it is this sensor's."""
        return re.search(self.products, text, re.IGNORECASE) is not None

    def band(self, number: str) -> Band | None:
        """Return what a band's number (``B4``) means, or None: the sensor has no such band."""
        if number not in self.bands:
            return None
        response = self.bands[number]
        if response is None:
            return Band(name=canonical(number))
        if response.common in ("pan", "lwir", "lwir11", "lwir12"):
            return Band(name=canonical(response.common), wavelength_nm=response.centre)
        return Band(name=f"{number} of {self.title}", wavelength_nm=response.centre)

    def by_common_name(self, name: str) -> Band | None:
        """Return the band with a common name, in this project's spelling (``B04``), if it has it.

        A sensor with one near infrared has it for both of Sentinel-2's.
        """
        common = {
            canonical(response.common): number
            for number, response in self.bands.items()
            if response is not None and response.common
        }
        number = common.get(name) or (common.get("B8A") if name == "B08" else None)
        return self.band(number) if number else None


def _word(pattern: str) -> str:
    return rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])"


def _landsat(letters: str, missions: str) -> str:
    """Return how Landsat's products are called, in Collections 1 and 2 and before."""
    return (
        rf"(?<![a-z0-9])l[{letters}]0[{missions}]_"
        rf"|(?<![a-z0-9])l[{letters}][{missions}]\d{{13}}[a-z]{{3}}\d\d"
    )


_TM = {
    "B1": Response("blue", 450, 520),
    "B2": Response("green", 520, 600),
    "B3": Response("red", 630, 690),
    "B4": Response("nir08", 760, 900),
    "B5": Response("swir16", 1550, 1750),
    "B6": Response("lwir", 10400, 12500),
    "B7": Response("swir22", 2080, 2350),
}
_OLI = {
    "B1": Response("coastal", 430, 450),
    "B2": Response("blue", 450, 510),
    "B3": Response("green", 530, 590),
    "B4": Response("red", 640, 670),
    "B5": Response("nir08", 850, 880),
    "B6": Response("swir16", 1570, 1650),
    "B7": Response("swir22", 2110, 2290),
    "B9": Response("cirrus", 1360, 1380),
    "B10": Response("lwir11", 10600, 11190),
    "B11": Response("lwir12", 11500, 12510),
}
_FLAGS = ("BQA", "QA_PIXEL", "QA_RADSAT", "SR_QA_AEROSOL")

SENSORS = (
    Sensor(
        "Sentinel-2",
        _word("s2[abcd]?") + "|" + _word("sentinel[-_ ]?2[abcd]?") + r"|HLS\.?S30"
        r"|S2[ABCD]_(?:MSI|OPER)|(?<![a-z0-9])t\d{2}[a-z]{3}_\d{8}t\d{6}",
        bands={("B8A" if name == "B8A" else f"B{int(name[1:])}"): None for name in SENTINEL_2},
        bare=("B04", "B4"),
        beside=("SCL", "TCI", "AOT", "WVP", "QA60"),
    ),
    Sensor(
        "Landsat 8-9",
        _landsat("cot", "89") + "|" + _word("landsat[-_ ]?0?[89]"),
        bands={**_OLI, "B8": Response("pan", 500, 680)},
        bare=("B4",),
        beside=_FLAGS,
    ),
    Sensor(
        "Landsat 7",
        _landsat("e", "7") + "|" + _word("landsat[-_ ]?0?7"),
        bands={**_TM, "B8": Response("pan", 520, 900)},
        bare=("B4",),
        beside=_FLAGS,
    ),
    Sensor(
        "Landsat 4-5 TM",
        _landsat("t", "45") + "|" + _word("landsat[-_ ]?0?[45]"),
        bands=_TM,
        bare=("B4",),
        beside=_FLAGS,
    ),
    Sensor(
        "Landsat 4-5 MSS",
        _landsat("m", "45"),
        bands={
            "B1": Response("green", 500, 600),
            "B2": Response("red", 600, 700),
            "B3": Response(None, 700, 800),
            "B4": Response(None, 800, 1100),
        },
    ),
    Sensor(
        "Landsat 1-3",
        _landsat("m", "123") + "|" + _word("landsat[-_ ]?0?[123]"),
        bands={
            "B4": Response("green", 500, 600),
            "B5": Response("red", 600, 700),
            "B6": Response(None, 700, 800),
            "B7": Response(None, 800, 1100),
        },
    ),
    Sensor("HLS L30", r"HLS\.?L30", bands=_OLI),
    Sensor(
        "MODIS",
        _word("m[oyc]d09[a-z0-9]*|mcd43[a-z0-9]*|modis") + "|sur_refl_b",
        bands={
            "B1": Response("red", 620, 670),
            "B2": Response("nir08", 841, 876),
            "B3": Response("blue", 459, 479),
            "B4": Response("green", 545, 565),
            "B5": Response(None, 1230, 1250),
            "B6": Response("swir16", 1628, 1652),
            "B7": Response("swir22", 2105, 2155),
        },
    ),
    Sensor("NAIP", r"(?<![a-z0-9])m_\d{7}_[ns][ew]_\d{2}_", order=("red", "green", "blue", "nir")),
    Sensor(
        "PlanetScope",
        r"\d{8}_\d{6}_.*_3B_AnalyticMS(?!.*_8b)",
        order=("blue", "green", "red", "nir"),
    ),
)


def sensor_of(text: str) -> Sensor | None:
    """Return the sensor that a name says, or None: none, or several."""
    found = [sensor for sensor in SENSORS if sensor.named_in(text)]
    return found[0] if len(found) == 1 else None
