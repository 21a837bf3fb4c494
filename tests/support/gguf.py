"""Damage to GGUF files, in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader

TOP_OF_EXPONENT = 0x4000_0000


def flip(path: Path, tensor: str, index: int | slice) -> None:
    """Flip the exponent's highest bit of a float32, or of several, as radiation does."""
    words = _mapped(path, tensor, np.uint32)
    words[index] ^= TOP_OF_EXPONENT
    words.flush()


def set_floats(path: Path, tensor: str, value: float) -> None:
    """Give all elements of a float32 tensor one value."""
    floats = _mapped(path, tensor, np.float32)
    floats[:] = value
    floats.flush()


def float_tensors(path: Path) -> list[tuple[str, int]]:
    """Return the float32 tensors of a file, and how many elements each has."""
    return [
        (str(tensor.name), int(tensor.n_elements))
        for tensor in GGUFReader(path).tensors
        if tensor.data.dtype == np.float32
    ]


def _mapped(path: Path, tensor: str, dtype: type[np.generic]) -> np.memmap[Any, Any]:
    (found,) = (one for one in GGUFReader(path).tensors if one.name == tensor)
    return np.memmap(path, dtype, "r+", int(found.data_offset), (int(found.n_elements),))
