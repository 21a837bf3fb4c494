"""Read the stored values of one band: which of them are data, and what they mean.

The caller's options (``--scale``, ``--offset``, ``--nodata``) count most, then what the file itself
says, then what the ensemble or bundle says.

**Scale and offset.** physical = stored * scale + offset. File tags of 1 and 0 say nothing.

**Nodata.** The stored value that stands for "no data", compared in the file's own type.

1. ``--nodata VALUE``, or ``--nodata none``: no value is nodata, whatever file and bundle say.
2. The file's own nodata value. A file without one that has a mask or an alpha band says by these
   which of its pixels are data.
3. The bundle's nodata value, if the file stores what the bundle takes: their scales are equal. A
   bundle of whole numbers with 0 for "no data" says nothing of the 0.0 in a file of reflectances.
4. Where the bundle gives some bands a nodata value and another none, that value is a measurement
   in the other band (0 in Sentinel-2's cirrus band under a clear sky), whatever ``--nodata`` says,
   or a GeoTIFF, which has one nodata value for all of its bands.

What is not finite is never data. Neither is what a mask or an alpha band leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.bands import SceneBand

FloatImage = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

# A float32 holds every value of these types.
_NARROW = ("uint8", "int8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class Radiometry:
    """The caller's word on a scene's values, whatever its files say: physical = v * s + o.

    Attributes:
        scale: None: as the files say.
        offset: None: as the files say.
        nodata: the stored value of pixels without data; ``"none"``: no value is; None: as the files
            say.
        trusted: whether values are taken that seem not to be what they are read as.

    Raises:
        UserError: a scale of 0, or a scale or offset that is not finite.
    """

    scale: float | None = None
    offset: float | None = None
    nodata: float | Literal["none"] | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            if value is not None and not math.isfinite(value):
                raise UserError(f"the {name} is {value}", expected="a finite number")
        if self.scale == 0:
            raise UserError("the scale is 0", expected="the physical value of a stored step")


@dataclass(frozen=True)
class Declared:
    """The declarations of a band's stored values, before one of them is read.

    Attributes:
        wanted: the input's band.
        dtype: that the file stores.
        scale: physical = stored * scale + offset.
        offset: see ``scale``.
        tagged: whether the file itself says scale or offset.
    """

    wanted: InputBand
    dtype: str
    scale: float
    offset: float
    tagged: bool = False


class Reading:
    """The reading of one band of a scene for one band of the input.

    Attributes:
        band: of the scene.
        declared: scale, offset and type.
        nodata: the stored value that is no data, or None.
    """

    def __init__(
        self,
        band: SceneBand,
        wanted: InputBand,
        inputs: Sequence[InputBand],
        radiometry: Radiometry,
    ) -> None:
        self.band = band
        self.declared = _declared(band, wanted, radiometry)
        self.nodata = self._nodata(inputs, radiometry)
        self._code = None if self.nodata is None else _held(self.nodata, np.dtype(band.dtype))
        self._narrow = band.dtype in _NARROW

    def _nodata(self, inputs: Sequence[InputBand], radiometry: Radiometry) -> float | None:
        wanted = self.declared.wanted
        value: float | None
        if radiometry.nodata is not None:
            value = None if radiometry.nodata == "none" else radiometry.nodata
        elif self.band.nodata is not None:
            value = self.band.nodata
        elif not self.band.has_mask and math.isclose(
            self.declared.scale, wanted.scale, rel_tol=1e-6
        ):
            value = wanted.nodata
        else:
            value = None
        measured_here = {band.nodata for band in inputs} if wanted.nodata is None else set()
        return None if value in measured_here else value

    @property
    def can_hold_nodata(self) -> bool:
        """Return whether a pixel can have the nodata value; in uint16 none can be -9999."""
        return self.nodata is None or self._code is not None

    def measured(self, pixels: NDArray[Any]) -> Floats:
        """Return stored values with NaN for what is no data.

        Args:
            pixels: as the file stores them, in its type.

        Returns:
            float32, or float64 where a float32 does not hold every value of the file's type.
        """
        with np.errstate(over="ignore"):
            values: Floats = pixels.astype(np.float32 if self._narrow else np.float64)
        if self._code is not None:
            values[pixels == self._code] = np.nan
        values[np.isinf(values)] = np.nan
        return values

    def stored(self, values: Floats) -> FloatImage:
        """Convert what :meth:`measured` gives to the input's scale and offset."""
        declared, wanted = self.declared, self.declared.wanted
        if (declared.scale, declared.offset) != (wanted.scale, wanted.offset):
            physical = values.astype(np.float64) * declared.scale + declared.offset
            values = (physical - wanted.offset) / wanted.scale
        with np.errstate(over="ignore"):
            return values.astype(np.float32)

    def rows(self, values: Floats) -> FloatImage:
        """Return what :meth:`measured` gives as float32 rows, to be read by :attr:`row_scale`."""
        return values.astype(np.float32, copy=False) if self._narrow else self.stored(values)

    @property
    def row_scale(self) -> tuple[float, float]:
        """The scale and offset of what :meth:`rows` gives."""
        how = self.declared if self._narrow else self.declared.wanted
        return how.scale, how.offset


def _declared(band: SceneBand, wanted: InputBand, radiometry: Radiometry) -> Declared:
    scale, offset = band.scale_offset or (wanted.scale, wanted.offset)
    scale = scale if radiometry.scale is None else radiometry.scale
    offset = offset if radiometry.offset is None else radiometry.offset
    if scale == 0 or not (math.isfinite(scale) and math.isfinite(offset)):
        raise UserError(
            f"{band.place} says that its scale is {scale:g} and its offset {offset:g}",
            expected="finite numbers, and no scale of 0",
            remedy="give them with --scale and --offset",
        )
    return Declared(wanted, band.dtype, scale, offset, band.scale_offset is not None)


def _held(value: float, dtype: np.dtype[Any]) -> np.generic | None:
    """Return a number in a type, or None: no pixel of that type has this value."""
    if np.issubdtype(dtype, np.floating):
        with np.errstate(over="ignore"):
            code: np.generic = dtype.type(value)
        return code
    limits = np.iinfo(dtype)
    whole = float(value).is_integer() and limits.min <= value <= limits.max
    return dtype.type(int(value)) if whole else None
