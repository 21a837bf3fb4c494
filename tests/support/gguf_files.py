"""GGUF files as two lists that tests may change: also to what no writer would write."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEXT, ARRAY, F32, I8 = 8, 9, 0, 24
_CODES = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_BYTES = {F32: 4, I8: 1, 30: 2}


class GgufFile:
    """Keys as [name, type, element type, value], tensors as [name, dimensions, type, bytes].

    Names are bytes and may be there twice; dimensions are in the file's order, fastest first.
    """

    def __init__(self, path: Path) -> None:
        self._data, self._at = path.read_bytes(), 4
        self._number("I")
        tensors, keys = self._number("Q"), self._number("Q")
        self.keys = [self._key() for _ in range(keys)]
        entries = [self._entry() for _ in range(tensors)]
        start = -(-self._at // 32) * 32
        self.tensors = [
            [*entry, self._data[start + offset :][: _BYTES[entry[2]] * math.prod(entry[1])]]
            for *entry, offset in entries
        ]

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _text(self) -> bytes:
        size = self._number("Q")
        self._at += size
        return self._data[self._at - size : self._at]

    def _value(self, kind: int) -> Any:
        return self._text() if kind == TEXT else self._number(_CODES[kind])

    def _key(self) -> list[Any]:
        name, kind = self._text(), self._number("I")
        if kind != ARRAY:
            return [name, kind, None, self._value(kind)]
        element, count = self._number("I"), self._number("Q")
        return [name, kind, element, [self._value(element) for _ in range(count)]]

    def _entry(self) -> list[Any]:
        name = self._text()
        dimensions = [self._number("Q") for _ in range(self._number("I"))]
        return [name, dimensions, self._number("I"), self._number("Q")]

    def key(self, name: str) -> list[Any]:
        """Return the entry of a key; its last item is its value."""
        return next(entry for entry in self.keys if entry[0] == name.encode())

    def set(self, name: str, value: Any) -> None:
        self.key(name)[3] = value

    def save(self, path: Path) -> None:
        parts = [b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))]
        for name, kind, element, value in self.keys:
            parts.append(_packed(name) + struct.pack("<I", kind))
            if kind == ARRAY:
                parts.append(struct.pack("<IQ", element, len(value)))
                parts += [_one(element, item) for item in value]
            else:
                parts.append(_one(kind, value))
        offset = 0
        for name, dimensions, kind, data in self.tensors:
            parts.append(_packed(name) + struct.pack("<I", len(dimensions)))
            parts.append(struct.pack(f"<{len(dimensions)}QIQ", *dimensions, kind, offset))
            offset += -(-len(data) // 32) * 32
        head = b"".join(parts)
        body = b"".join(data + bytes(-len(data) % 32) for *_, data in self.tensors)
        path.unlink(missing_ok=True)
        path.write_bytes(head + bytes(-len(head) % 32) + body)


def _packed(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _one(kind: int, value: Any) -> bytes:
    return _packed(value) if kind == TEXT else struct.pack("<" + _CODES[kind], value)


def zeros(name: str, *dimensions: int, kind: int = F32) -> list[Any]:
    """Return a tensor of zeros, its dimensions in the file's order."""
    return [name.encode(), [*dimensions], kind, bytes(_BYTES[kind] * math.prod(dimensions))]


def matrix(name: str, rows: int, columns: int) -> list[list[Any]]:
    return [zeros(f"{name}.weight", columns, rows), zeros(f"{name}.bias", columns)]


def zero_specialist(
    file: GgufFile, bands: int, depths: Sequence[int], widths: Sequence[int], hidden: int
) -> None:
    """Make a specialist's file one of another shape, its weights zeros."""
    file.set("eosfm.depths", list(depths))
    file.set("eosfm.widths", list(widths))
    file.set("eosfm.hidden", [hidden] * sum(depths))
    tensors = matrix("stem", 16 * bands, widths[0])
    tensors += [zeros(f"stem.norm.{part}", widths[0]) for part in ("weight", "bias")]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            tensors += matrix(f"stages.{stage}.downsample", 4 * widths[stage - 1], width)
        for block in range(depth):
            name = f"stages.{stage}.blocks.{block}"
            tensors += [zeros(f"{name}.conv_dw.weight", width, 49)]
            tensors += [zeros(f"{name}.conv_dw.bias", width), zeros(f"{name}.grn.weight", hidden)]
            tensors += matrix(f"{name}.fc1", width, hidden) + matrix(f"{name}.fc2", hidden, width)
    file.tensors = tensors
