"""Read descriptions and file names of bands.

A text may give a number (``T18SUG_..._B04_10m``, ``SR_B4``, ``band 4``), a common name (``red``,
``nir08``), a polarisation (``Sigma0_VV_db``) or a wavelength (``665nm``), or several of them
(``B4, central wavelength 665 nm``). A number means nothing without the sensor: it comes from the
names (:mod:`~eosfm_edge.scene.sensors`), or from a set of numbers that only one sensor has, or that
all sensors that have it mean alike. Otherwise the number stays unexplained, and finds no band.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eosfm_edge.formats.bands import COMMON_NAMES, SENTINEL_2, Band, canonical, common_name, find
from eosfm_edge.scene.sensors import SENSORS, Sensor, sensor_of

_START, _END = r"(?<![A-Z0-9])", r"(?![A-Z0-9])"
_NUMBER = re.compile(rf"{_START}B(?:AND[ _-]?)?(\d{{1,2}})(A?){_END}")
_POLARISATION = re.compile(rf"{_START}(VV|VH|HH|HV){_END}")
_MICRO = "\u039c"  # the upper case of both of Unicode's micro signs
_WAVELENGTH = re.compile(
    rf"(?<![\d.A-Z])(\d{{1,6}}(?:\.\d{{1,6}})?)[ _]?"
    rf"(NM|NANOMET(?:ER|RE)S?|[U{_MICRO}]M|MICROMET(?:ER|RE)S?){_END}"
)
# "Red Edge" and "Green I" are not red and green: a common name counts only where no more is said
# than this.
_SAID_BESIDE = re.compile(
    rf"{_START}(?:\d+M|BAND|REFLECTANCE|SURFACE|TOA|BOA|SR|CHANNEL|SENTINEL[-_ ]?2|S2){_END}"
)
# Flags, angles and errors of a band are not the band.
_ABOUT_A_BAND = re.compile(
    rf"{_START}(?:MASK|MSK|QA|QUALITY|FLAGS?|CLOUDS?|ANGLES?|AZIMUTH|ZENITH|STD|ERROR|UNCERTAINTY"
    "|PHASE|COH|COHERENCE|COUNTS?)" + _END
)
_CHANGES_A_COLOUR = ("INFRA", "FAR", "DEEP", "DARK", "EDGE", "THERMAL", "MID", "SHORTWAVE")
_UNEXPLAINED = " of an unknown sensor"
_BESIDE = tuple(sorted({name for sensor in SENSORS for name in sensor.beside}))


@dataclass(frozen=True)
class Label:
    """The meaning of a text that names a band.

    Attributes:
        text: as it is written.
        number: of the band, as ``B4`` or ``B8A``.
        word: a common name or a polarisation, in this project's spelling.
        wavelength_nm: the central wavelength.
    """

    text: str = ""
    number: str | None = None
    word: str | None = None
    wavelength_nm: float | None = None

    @property
    def says_band(self) -> bool:
        """Return whether the text names a band."""
        return bool(self.number or self.word or self.wavelength_nm)


def read_description(text: str) -> Label:
    """Read what a file says of one of its bands."""
    rest = text.upper()
    for known in (_WAVELENGTH, _NUMBER, _SAID_BESIDE):
        rest = known.sub(" ", rest)
    return _read(text, common_name(text) or common_name(rest.strip(" _")))


def read_file_name(stem: str) -> Label:
    """Read a file's name without its suffix. A common name is all of it, or comes last."""
    parts = [part for part in re.split(r"[^A-Z0-9]+", _SAID_BESIDE.sub("", stem.upper())) if part]
    for start in range(max(0, len(parts) - 3), len(parts)):
        word = COMMON_NAMES.get("_".join(parts[start:]))
        if word:
            changed = start > 0 and parts[start - 1] in _CHANGES_A_COLOUR
            return _read(stem, None if changed else word)
    return _read(stem, None)  # a single letter is no colour: chips are called a, b, c


def _read(text: str, word: str | None) -> Label:
    upper = text.upper()
    numbers = {f"B{int(number)}{letter}" for number, letter in _NUMBER.findall(upper)}
    kinds = set(_POLARISATION.findall(upper))
    wavelengths = {
        float(value) * (1 if unit.startswith("N") else 1000)
        for value, unit in _WAVELENGTH.findall(upper)
    } - {0.0}
    several = max(len(numbers), len(kinds), len(wavelengths)) > 1 or (kinds and (numbers or word))
    if several or _ABOUT_A_BAND.search(upper):  # a ratio of two bands is not one of them
        return Label(text)
    word = kinds.pop() if kinds else word
    return Label(
        text,
        numbers.pop() if numbers else None,
        word,
        wavelengths.pop() if wavelengths and word != "PAN" else None,
    )


def meanings(labels: Sequence[Label], *places: str) -> list[Band]:
    """Return what each band of a file or folder is.

    Args:
        labels: what is said of each band.
        places: names that may say the sensor, the nearest first: of the file, of its folder.

    Returns:
        A band for each label: by name, wavelength or both, or by neither where nothing is said.
        What is said but not understood, or a number that means different bands on different
        sensors, becomes a name that no other band has (``B4 of an unknown sensor``).
    """
    place = next((sensor for text in places if (sensor := sensor_of(text))), None)
    sensors = [sensor_of(label.text) or place for label in labels]
    counted = _merely_count(labels, place)
    candidates = _candidates(
        [label for label, sensor in zip(labels, sensors, strict=True) if not sensor],
        {name for label in labels for name in _BESIDE if label.text.upper().endswith(name)},
    )
    return [
        _meaning(label, () if counted else (sensor,) if sensor else candidates)
        for label, sensor in zip(labels, sensors, strict=True)
    ]


def is_unexplained(band: Band) -> bool:
    """Return whether the band is a number whose meaning :func:`meanings` does not know."""
    return band.name is not None and band.name.endswith(_UNEXPLAINED)


def order_of(labels: Sequence[Label], *places: str) -> list[Band] | None:
    """Return the bands of a file that does not name them, if its sensor's files have one order."""
    place = next((sensor for text in places if (sensor := sensor_of(text))), None)
    unnamed = not any(label.text for label in labels) or _merely_count(labels, place)
    if place is None or not unnamed or len(place.order) != len(labels):
        return None
    return [Band(name=canonical(name)) for name in place.order]


def _merely_count(labels: Sequence[Label], sensor: Sensor | None) -> bool:
    """Return whether names say no more than that a band is the first, the second and so on.

    ``b1 b2 b3 b4`` of a Sentinel-2 scene may be red, green, blue and infrared. Landsat's bands
    are called B1 to B7, and in that order.
    """
    names = [label.text.strip() for label in labels]
    counted = [re.fullmatch(r"(?:b|band)[ _-]?([1-9]\d*)", name, re.IGNORECASE) for name in names]
    if len(names) < 2 or [found and int(found[1]) for found in counted] != list(
        range(1, len(names) + 1)
    ):
        return False
    # Of Sentinel-2 the full set has B8A in it, so that a run of numbers is never its.
    return sensor is None or any(sensor.bands.get(name) is None for name in names)


def _candidates(labels: Sequence[Label], beside: set[str]) -> tuple[Sensor, ...]:
    """Return the sensors that may have bands so numbered, where no name says which it is."""
    told = [label for label in labels if label.number and not label.wavelength_nm]
    padded = any(re.search(rf"{_START}B0\d", label.text.upper()) for label in told)
    return tuple(
        sensor
        for sensor in SENSORS
        if ("B04" if padded else "B4") in sensor.bare
        and all(label.number in sensor.bands for label in told)
        and (not beside or beside & set(sensor.beside))
    )


def _meaning(label: Label, sensors: Sequence[Sensor]) -> Band:
    if not label.text:
        return Band()
    own = "".join(c if c.isprintable() else "?" for c in label.text.strip().upper())
    named = Band(name=label.word) if label.word else None
    if named and len(sensors) == 1:
        named = sensors[0].by_common_name(label.word or "") or named
    numbered = _by_number(label.number, sensors) if label.number else None
    if label.wavelength_nm:
        number = canonical(label.number) if label.number else None
        return Band(
            name=label.word or (number if number in SENTINEL_2 else None),
            wavelength_nm=label.wavelength_nm,
        )
    if numbered and named:
        agree = find(named, [numbered]) == 0 or find(numbered, [named]) == 0
        return numbered if agree else Band(name=f"{own} (which contradicts itself)")
    if numbered or named:
        return numbered or named or Band()
    if label.number:
        return Band(name=label.number + _UNEXPLAINED)
    return Band(name=f"{own}?" if canonical(own) in SENTINEL_2 else own or None)


def _by_number(number: str, sensors: Sequence[Sensor]) -> Band | None:
    """Return what a number means to all of these sensors, or None: they differ."""
    bands = [sensor.band(number) for sensor in sensors]
    known = [band for band in bands if band is not None]
    if not known:
        own = canonical(number)
        return None if own in SENTINEL_2 else Band(name=own)
    same = all(find(known[0], [band]) == 0 and find(band, [known[0]]) == 0 for band in known)
    return known[0] if same and len(known) == len(bands) else None
