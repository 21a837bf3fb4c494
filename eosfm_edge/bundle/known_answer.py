"""The known answer: an image and its expected levels, carried in the bundle to check a device.

It is in ``chain.gguf``, where libeosfm finds it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import CHAIN_NAME, Manifest
from eosfm_edge.native.gguf import read_gguf

FloatArray = NDArray[np.float32]

IMAGE_TENSOR = "known.image"


@dataclass(frozen=True)
class KnownAnswer:
    """Stored values (1, bands, H, W) and what the PyTorch ensemble makes of them."""

    image: FloatArray
    levels: tuple[FloatArray, ...]


def level_tensor(index: int) -> str:
    """Return the name of a level's tensor, counted from 0."""
    return f"known.level{index + 1}"


def relative_difference(got: FloatArray, expected: FloatArray) -> float:
    """Return the largest absolute difference over the largest absolute expected value.

    Infinity where a value of either is not finite.
    """
    if got.shape != expected.shape:
        raise ValueError(f"shapes are {got.shape} and {expected.shape}")
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return float("inf")
    peak = float(np.abs(expected).max())
    worst = float(np.abs(got - expected).max())
    return worst / peak if peak else (0.0 if worst == 0 else float("inf"))


def sqnr_db(got: FloatArray, expected: FloatArray) -> float:
    """Return the power of what is expected over that of the difference, in decibels.

    Infinity where they are equal, minus infinity where a value of either is not finite.
    """
    if not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return float("-inf")
    signal = np.square(expected, dtype=np.float64).sum()
    noise = np.square(got - expected, dtype=np.float64).sum()
    if not noise:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def read_known_answer(directory: Path, manifest: Manifest) -> KnownAnswer:
    """Read the known answer of a bundle.

    Raises:
        UserError: it is missing, damaged, or not of this bundle's shape.
    """
    path = directory / CHAIN_NAME
    try:
        tensors = read_gguf(path).tensors
    except FileNotFoundError as error:
        raise UserError(f"cannot read {path}: it does not exist") from error
    size = manifest.tile.size
    wanted = {IMAGE_TENSOR: (len(manifest.input), size, size)}
    for index, level in enumerate(manifest.levels):
        side = size // level.stride
        wanted[level_tensor(index)] = (level.channels, side, side)
    arrays = []
    for name, shape in wanted.items():
        data = tensors[name] if name in tensors else np.empty(0)
        if data.shape != shape or data.dtype != np.float32:
            raise UserError(
                f"{name} in {path} is {data.dtype} {data.shape}", expected=f"float32 {shape}"
            )
        arrays.append(np.array(data)[np.newaxis])
    return KnownAnswer(arrays[0], tuple(arrays[1:]))
