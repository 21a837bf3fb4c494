"""Writes GGUF version 3 with the ``gguf`` package of llama.cpp, which :mod:`.gguf` reads back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGUFValueType, GGUFWriter
from numpy.typing import NDArray

FORMAT_VERSION = 2


@contextmanager
def gguf_writer(path: Path, architecture: str) -> Iterator[GGUFWriter]:
    """Give what takes the values and tensors of a file, which is written when the block ends."""
    writer = GGUFWriter(path, architecture)
    writer.add_uint32("eosfm.version", FORMAT_VERSION)
    try:
        yield writer
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def add_tensor(writer: GGUFWriter, name: str, array: NDArray[np.float32]) -> None:
    """Add a float32 tensor."""
    writer.add_tensor(name, np.ascontiguousarray(array, np.float32))


def add_uints(writer: GGUFWriter, key: str, values: Sequence[int]) -> None:
    """Add an array of uint32."""
    numbers = [int(value) for value in values]
    writer.add_key_value(key, numbers, GGUFValueType.ARRAY, GGUFValueType.UINT32)


def add_floats(writer: GGUFWriter, key: str, values: Sequence[float]) -> None:
    """Add an array of float32."""
    writer.add_key_value(key, list(values), GGUFValueType.ARRAY, GGUFValueType.FLOAT32)


def add_texts(writer: GGUFWriter, key: str, values: Sequence[str]) -> None:
    """Add an array of texts."""
    writer.add_key_value(key, list(values), GGUFValueType.ARRAY, GGUFValueType.STRING)
