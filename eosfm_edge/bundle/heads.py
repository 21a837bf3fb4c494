"""Heads as files of a bundle: ``heads/NAME.gguf``, and what each must answer to the known image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.errors import UserError
from eosfm_edge.formats.base import explain
from eosfm_edge.formats.bundle import Manifest
from eosfm_edge.formats.heads import HeadSpec
from eosfm_edge.native.gguf import Gguf, read_gguf

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

# Every so many cells in each direction are known: coprime to the levels' ratios, so that all
# phases of the coarser levels' cells are met.
KNOWN_STEP = 5


@dataclass(frozen=True)
class HeadFile:
    """A head with its weights.

    Attributes:
        spec: what it is.
        weights: by the number of a level, (channels, outputs).
        bias: (outputs,).
    """

    spec: HeadSpec
    weights: dict[int, FloatArray]
    bias: FloatArray

    def outputs(self, levels: Sequence[FloatArray]) -> DoubleArray:
        """Return the outputs (outputs, h, w) for levels, (C, h, w) each, in double precision."""
        finest = self.spec.levels[0]
        height, width = levels[finest - 1].shape[1:]
        total = np.broadcast_to(
            self.bias.astype(np.float64)[:, None, None], (len(self.bias), height, width)
        )
        for number, weight in self.weights.items():
            part = np.einsum("co,cyx->oyx", weight, levels[number - 1], dtype=np.float64)
            total = total + _enlarged(part, 1 << (number - finest))
        return total


def _enlarged(plane: DoubleArray, ratio: int) -> DoubleArray:
    """Return planes (K, h, w) bilinearly resampled to ``ratio`` times as many cells a side."""
    for axis in (1, 2):
        count = plane.shape[axis]
        at = np.maximum((np.arange(count * ratio) + 0.5) / ratio - 0.5, 0)
        before = at.astype(int)
        after = np.minimum(before + 1, count - 1)
        share = (at - before).reshape([-1 if i == axis else 1 for i in range(3)])
        plane = plane.take(before, axis) * (1 - share) + plane.take(after, axis) * share
    return plane


def write_head(path: Path, head: HeadFile, answer: KnownAnswer) -> None:
    """Write a head's file for the bundle of a known answer."""
    # Who only reads heads needs no writer.
    from eosfm_edge.native.gguf_writer import (
        add_floats,
        add_tensor,
        add_texts,
        add_uints,
        gguf_writer,
    )

    spec = head.spec
    with gguf_writer(path, "eosfm-head") as writer:
        writer.add_string("general.name", spec.name)
        writer.add_string("eosfm.head.task", spec.task)
        add_uints(writer, "eosfm.head.levels", spec.levels)
        if spec.classes:
            add_texts(writer, "eosfm.head.classes", [one.name for one in spec.classes])
            add_uints(writer, "eosfm.head.codes", [one.code for one in spec.classes])
            colours = [part for one in spec.classes for part in one.colour]
            add_uints(writer, "eosfm.head.colours", colours)
        writer.add_string("eosfm.head.labels", spec.labels)
        writer.add_uint32("eosfm.head.cells", spec.cells)
        if spec.score is not None:
            add_floats(writer, "eosfm.head.score", [spec.score])
        for number, weight in head.weights.items():
            add_tensor(writer, f"level{number}.weight", weight)
        add_tensor(writer, "bias", head.bias)
        known = head.outputs([level[0] for level in answer.levels])
        known = known[:, ::KNOWN_STEP, ::KNOWN_STEP]
        add_tensor(writer, "known.outputs", known.astype(np.float32))


def read_head(path: Path) -> HeadFile:
    """Read a head's file.

    Raises:
        UserError: it cannot be read, or is not a head's.
        FileNotFoundError: there is none.
    """
    file = read_gguf(path)
    try:
        spec = _spec_of(file)
        bias = np.array(file.tensors["bias"])
        weights = {n: np.array(file.tensors[f"level{n}.weight"]) for n in spec.levels}
    except KeyError as error:
        raise UserError(f"{path} has no {error.args[0]}", expected="a head's file") from error
    except ValidationError as error:
        raise UserError(f"{path} is not valid: {explain(error)}") from error
    except TypeError as error:  # a number where an array is expected
        raise UserError(f"{path} is not valid: {error}") from error
    for number, weight in weights.items():
        if bias.ndim != 1 or weight.ndim != 2 or weight.shape[1] != len(bias):
            raise UserError(
                f"level{number}.weight of {path} is of shape {weight.shape}",
                expected=f"(channels, outputs), and a bias of as many outputs, not {bias.shape}",
            )
    if spec.name != path.stem:
        raise UserError(
            f"{path} is the head {spec.name}", expected=f"a file that is called {spec.name}.gguf"
        )
    return HeadFile(spec, weights, bias)


def _spec_of(file: Gguf) -> HeadSpec:
    values = file.values
    if values.get("general.architecture") != "eosfm-head":
        raise KeyError("general.architecture of a head")
    colours = values.get("eosfm.head.colours", [])
    names = values.get("eosfm.head.classes", [])
    return HeadSpec.model_validate(
        {
            "name": values["general.name"],
            "task": values["eosfm.head.task"],
            "levels": values["eosfm.head.levels"],
            "classes": [
                {"name": name, "code": code, "colour": colours[3 * i : 3 * i + 3]}
                for i, (name, code) in enumerate(
                    zip(names, values.get("eosfm.head.codes", []), strict=False)
                )
            ],
            "labels": values.get("eosfm.head.labels", ""),
            "cells": values.get("eosfm.head.cells", 0),
            "score": next(iter(values.get("eosfm.head.score", [])), None),
        }
    )


def head_names(bundle: Path, manifest: Manifest) -> list[str]:
    """Return the names of a bundle's heads that are here."""
    names = manifest.of_role("head")
    return sorted(Path(name).stem for name in names if (bundle / name).exists())
