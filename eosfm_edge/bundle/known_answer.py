"""The known answer: an image and its expected levels, carried in the bundle to check a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from eosfm_edge.bundle.manifest import KNOWN_ANSWER_NAME, Manifest
from eosfm_edge.errors import UserError

FloatArray = NDArray[np.float32]

_IMAGE = "image"


@dataclass(frozen=True)
class KnownAnswer:
    """Stored values (1, bands, H, W) and what the PyTorch ensemble makes of them."""

    image: FloatArray
    levels: tuple[FloatArray, ...]


def relative_difference(got: FloatArray, expected: FloatArray) -> float:
    """Return the largest absolute difference over the largest absolute expected value."""
    if got.shape != expected.shape:
        raise ValueError(f"shapes are {got.shape} and {expected.shape}")
    if not np.isfinite(got).all():
        return float("inf")
    peak = float(np.abs(expected).max())
    worst = float(np.abs(got - expected).max())
    return worst / peak if peak else (0.0 if worst == 0 else float("inf"))


def write_known_answer(directory: Path, names: Sequence[str], answer: KnownAnswer) -> None:
    """Write the known answer of a bundle; ``names`` are its levels'."""
    arrays = {_IMAGE: answer.image, **dict(zip(names, answer.levels, strict=True))}
    # safetensors writes an array's memory as it lies, whatever its strides say.
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(plain, directory / KNOWN_ANSWER_NAME)


def read_known_answer(directory: Path, manifest: Manifest) -> KnownAnswer:
    """Read the known answer of a bundle.

    Raises:
        UserError: it is missing, damaged, or not of this bundle's shape.
    """
    path = directory / KNOWN_ANSWER_NAME
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    size = manifest.tile.size
    shapes = {_IMAGE: (1, len(manifest.input), size, size)}
    for level in manifest.levels:
        side = size // level.stride
        shapes[level.name] = (1, level.channels, side, side)
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != shapes or any(tensor.dtype != np.float32 for tensor in tensors.values()):
        raise UserError(f"{path} does not fit the manifest: {found}", expected=f"float32, {shapes}")
    return KnownAnswer(tensors[_IMAGE], tuple(tensors[level.name] for level in manifest.levels))
