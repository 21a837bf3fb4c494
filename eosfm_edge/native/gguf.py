"""Reads GGUF version 3 as libeosfm does: nothing in the file is trusted.

The ``gguf`` package writes bundles, but is not meant for the files of strangers: it loops as often
as a file says, and keeps a second value of a key under another name. Here every count and offset is
held against the bytes that are there before it is used, and a name that is there twice is an error.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.files import open_regular

MOST_VALUES, MOST_TENSORS = 1024, 1 << 13

_STRING, _ARRAY = 8, 9
# By their numbers in the file; strings and arrays have lengths of their own.
_TYPES = dict(enumerate(["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"])) | {
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
# bf16 is given as its bits.
_TENSOR_TYPES = {0: "<f4", 24: "i1", 30: "<u2"}


@dataclass(frozen=True)
class Gguf:
    """A file's content.

    Attributes:
        values: by key: numbers, strings, or lists of one of them.
        tensors: by name, views of the file in its shapes, slowest dimension first: float32, int8,
            or uint16 with the bits of bf16.
    """

    values: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]


def read_gguf(path: Path) -> Gguf:
    """Read a file.

    Raises:
        UserError: it cannot be read, is not GGUF, or contradicts itself.
        FileNotFoundError: there is none.
    """
    with open_regular(path) as file:
        # What is empty cannot be mapped.
        size = os.fstat(file.fileno()).st_size
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    try:
        return _Reader(data).read()
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: {error}", remedy="transfer or export the bundle again"
        ) from error


class _Reader:
    """A position in a file that is being read; every method raises a ValueError at its end."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data, self._at = data, 0

    def read(self) -> Gguf:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, tensors, values = self._number("<u4"), self._number("<u8"), self._number("<u8")
        if version != 3:
            raise ValueError(f"it is of GGUF version {version}, expected 3")
        if tensors > MOST_TENSORS or values > MOST_VALUES:
            raise ValueError(
                f"it declares {tensors} tensors and {values} values, expected at most "
                f"{MOST_TENSORS} and {MOST_VALUES}"
            )
        found: dict[str, Any] = {}
        for _ in range(values):
            self._add(found, self._text(), self._value(self._number("<u4")), "key")
        entries: dict[str, tuple[list[int], str, int]] = {}
        for _ in range(tensors):
            self._add(entries, self._text(), self._tensor_entry(), "tensor")
        alignment = found.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            raise ValueError(f"its alignment is {alignment}, expected a power of two from 8 on")
        start = -(-self._at // alignment) * alignment
        return Gguf(found, {name: self._view(name, start, *e) for name, e in entries.items()})

    @staticmethod
    def _add(to: dict[str, Any], name: str, value: object, what: str) -> None:
        if name in to:
            raise ValueError(f"it has the {what} {name} twice")
        to[name] = value

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise ValueError(f"it ends in its directory, at byte {len(self._data)}")
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, kind: str) -> int:
        return int(np.frombuffer(self._take(np.dtype(kind).itemsize), kind)[0])

    def _text(self) -> str:
        return self._take(self._number("<u8")).decode("utf-8", "backslashreplace")

    def _value(self, kind: int) -> Any:
        if kind == _ARRAY:
            element, count = self._number("<u4"), self._number("<u8")
            if element == _STRING:
                # The first that is beyond the end raises, however many are declared.
                return [self._text() for _ in range(count)]
            if element in _TYPES:
                dtype = np.dtype(_TYPES[element])
                return np.frombuffer(self._take(count * dtype.itemsize), dtype).tolist()
            raise ValueError(f"it has an array of the type {element}, which is not known")
        if kind == _STRING:
            return self._text()
        if kind in _TYPES:
            dtype = np.dtype(_TYPES[kind])
            return np.frombuffer(self._take(dtype.itemsize), dtype)[0].item()
        raise ValueError(f"it has a value of the type {kind}, which is not known")

    def _tensor_entry(self) -> tuple[list[int], str, int]:
        dimensions = self._number("<u4")
        if not 1 <= dimensions <= 4:
            raise ValueError(f"it has a tensor of {dimensions} dimensions, expected 1 to 4")
        shape = [self._number("<u8") for _ in range(dimensions)][::-1]
        kind, offset = self._number("<u4"), self._number("<u8")
        if kind not in _TENSOR_TYPES:
            raise ValueError(
                f"it has a tensor of type {kind}, expected 0 (F32), 24 (I8) or 30 (BF16)"
            )
        return shape, _TENSOR_TYPES[kind], offset

    def _view(
        self, name: str, start: int, shape: list[int], kind: str, offset: int
    ) -> NDArray[Any]:
        size = prod(shape) * np.dtype(kind).itemsize
        if not size or start + offset + size > len(self._data):
            raise ValueError(f"its tensor {name} has {size} bytes at {offset}, beyond its end")
        return np.frombuffer(self._data, kind, prod(shape), start + offset).reshape(shape)
