"""The palette: how features are coloured and grouped, the same in every run.

It is fitted once, on the original ensemble, and kept as ``palette.safetensors`` with the ensembles
that are pruned from it and with all their bundles. A colour or a group then means the same features
in each of their pictures. ``export/bundle.md`` describes the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from eosfm_edge.errors import UserError
from eosfm_edge.files import open_regular
from eosfm_edge.formats.base import Name, Strict, explain

FloatArray = NDArray[np.float32]
Bytes = NDArray[np.uint8]

GROUPS = 8  # at most: more colours are not told apart
NO_GROUP = 0  # of a cell without data

_HEADER = "palette"
_AGAIN = "transfer or export the bundle again"


class _Header(Strict):
    """The file's header, as JSON: whose features these are, and the level that is grouped."""

    schema_version: Literal[1] = 1
    of: Name
    grouped: int = Field(ge=1)


@dataclass(frozen=True)
class LevelColours:
    """The colours of one level: three directions in which its features vary most.

    Attributes:
        mean: (C,) of the cells that it was fitted on.
        directions: (3, C), of length 1, or 0 where features vary in fewer.
        low: (3,) the components that are shown as 0 of red, green and blue.
        high: (3,) those that are shown as 255.
    """

    mean: FloatArray
    directions: FloatArray
    low: FloatArray
    high: FloatArray

    def components(self, features: FloatArray) -> FloatArray:
        """Project features (C, ...) on the directions; NaN (3, ...) where there is no data."""
        return _affine(self.directions, self.mean, features)

    def shades(self, features: FloatArray) -> Bytes:
        """Return the colours (3, ...) of features (C, ...); 0 where there is no data."""
        parts = self.components(features)
        shape = (3,) + (1,) * (parts.ndim - 1)
        low, span = self.low.reshape(shape), (self.high - self.low).reshape(shape)
        shades = np.clip((parts - low) / np.maximum(span, 1e-12), 0, 1) * 255
        coloured: Bytes = np.nan_to_num(shades, nan=0).astype(np.uint8)
        return coloured


@dataclass(frozen=True)
class Palette:
    """The colours of each level, and groups of one level's features.

    Attributes:
        of: the ensemble, or the bundle's run, whose features it was fitted on.
        levels: in their order.
        grouped: the number of the level that is grouped, from 1.
        centres: (K, C) of the groups, from the level's mean; K is up to :data:`GROUPS`.
    """

    of: str
    levels: tuple[LevelColours, ...]
    grouped: int
    centres: FloatArray

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(len(level.mean) for level in self.levels)

    def groups(self, features: FloatArray) -> Bytes:
        """Return the group (...) of each cell of the grouped level's features (C, ...).

        That is the number of the nearest centre, from 1; :data:`NO_GROUP` where there is no data.
        """
        level = self.levels[self.grouped - 1]
        # |z - c|^2 is smallest where 2 c.z - |c|^2 is largest, z being the features less the mean.
        nearness = 2 * _affine(self.centres, level.mean, features)
        squares = (self.centres**2).sum(axis=1)
        nearness -= squares.reshape(-1, *(1,) * (features.ndim - 1))
        empty = np.isnan(nearness[0])
        return np.where(empty, NO_GROUP, nearness.argmax(axis=0) + 1).astype(np.uint8)


def _affine(weights: FloatArray, mean: FloatArray, features: FloatArray) -> FloatArray:
    """Return weights @ (features - mean) over the first axis of features."""
    found: FloatArray = np.tensordot(weights, features, axes=1)
    found -= (weights @ mean).reshape(-1, *(1,) * (features.ndim - 1))
    return found


def palette_bytes(palette: Palette) -> bytes:
    """Return a palette as the content of its file."""
    tensors = {"groups.centres": palette.centres}
    for number, level in enumerate(palette.levels, start=1):
        tensors |= {f"level{number}.{name}": value for name, value in vars(level).items()}
    header = _Header(of=palette.of, grouped=palette.grouped).model_dump_json()
    plain = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
    return save(plain, {_HEADER: header})


def read_palette(path: Path) -> Palette | None:
    """Read a palette; None if there is no such file.

    Raises:
        UserError: the file is damaged, or is no palette.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except FileNotFoundError:
        return None
    try:
        return _parsed(content)
    except (ValueError, SafetensorError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else error
        raise UserError(
            f"{path} is no palette: {reason}",
            expected="what eosfm-edge export wrote",
            remedy=f"{_AGAIN}; an ensemble's may be removed, and is fitted again",
        ) from error


def _parsed(content: bytes) -> Palette:
    """Read a palette's file.

    Raises:
        ValueError, SafetensorError: it is none.
    """
    tensors = load(content)  # which also checks the header's length
    size = int.from_bytes(content[:8], "little")
    header = _Header.model_validate_json(
        json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(_HEADER, "")
    )
    numbers = {int(name[1]) for name in (re.match(r"level(\d+)\.", n) for n in tensors) if name}
    count = max(numbers, default=0)
    if header.grouped > count or numbers != set(range(1, count + 1)):
        raise ValueError(f"it has levels {sorted(numbers)}, and groups of level {header.grouped}")
    levels = tuple(_level(tensors, f"level{number}") for number in range(1, count + 1))
    width = len(levels[header.grouped - 1].mean)
    centres = _taken(tensors, "groups.centres", (None, width))
    if not 1 <= len(centres) <= GROUPS:
        raise ValueError(f"it has {len(centres)} groups, expected 1 to {GROUPS}")
    if tensors:
        raise ValueError(f"it has a tensor {min(tensors)}, which palettes do not have")
    return Palette(header.of, levels, header.grouped, centres)


def _level(tensors: dict[str, NDArray[Any]], name: str) -> LevelColours:
    mean = _taken(tensors, f"{name}.mean", (None,))
    wanted: Mapping[str, Sequence[int | None]] = {
        "directions": (3, len(mean)),
        "low": (3,),
        "high": (3,),
    }
    return LevelColours(
        mean, **{part: _taken(tensors, f"{name}.{part}", shape) for part, shape in wanted.items()}
    )


def _taken(tensors: dict[str, NDArray[Any]], name: str, shape: Sequence[int | None]) -> FloatArray:
    """Take a tensor out of a file's, checked; None in a shape is any length but 0."""
    if name not in tensors:
        raise ValueError(f"it has no tensor {name}")
    value = tensors.pop(name)
    fits = len(shape) == value.ndim and all(
        length == wanted if wanted is not None else length > 0
        for length, wanted in zip(value.shape, shape, strict=True)
    )
    if value.dtype != np.float32 or not fits or not np.isfinite(value).all():
        raise ValueError(f"{name} is {value.dtype} {value.shape}, expected finite float32 {shape}")
    return value
