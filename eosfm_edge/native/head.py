"""Heads of a bundle from Python (``eosfm_head``); made by :meth:`.binding.Model.head`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from ctypes import byref, c_void_p
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.native.header import (
    LEVELS,
    ClassInfo,
    HeadInfo,
    Level,
    Map,
    library,
)

CLASSES, REGRESSION = 0, 1
NO_CLASS = 255


@dataclass(frozen=True)
class MapClass:
    """A class of a head: its name, its code in maps and its colour, red, green and blue."""

    name: str
    code: int
    colour: tuple[int, int, int]


class Head:
    """A head that is open.

    Attributes:
        name: the head's.
        outputs: of a cell.
        level: whose cells it answers for, from 0.
        reads: whether it reads each level.
        classes: in the order of the outputs; none of a regression.
    """

    def __init__(self, handle: c_void_p, checked: Callable[[int], None]) -> None:
        self._library, self._checked = library(), checked
        self.handle = handle
        self._closed = weakref.finalize(self, self._library.eosfm_head_close, handle)
        info = HeadInfo()
        checked(self._library.eosfm_head_describe(handle, byref(info)))
        self.name: str = info.name.decode()
        self.outputs, self.level = int(info.outputs), int(info.level)
        self.reads = tuple(bool(reads) for reads in info.levels)
        has_classes = info.task == CLASSES
        self.classes = tuple(self._class(i) for i in range(self.outputs if has_classes else 0))

    def _class(self, index: int) -> MapClass:
        info = ClassInfo()
        self._checked(self._library.eosfm_head_describe_class(self.handle, index, byref(info)))
        return MapClass(info.name.decode(), info.code, (info.red, info.green, info.blue))

    def close(self) -> None:
        """Close the head; streams that have it keep it."""
        self._closed()
        self.handle = c_void_p()

    def apply(
        self, levels: Sequence[NDArray[np.float32] | None], *, probabilities: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """Return the answer for an image.

        Args:
            levels: of the image, (channels, h, w) float32 in one piece each; None where the head
                does not read one.
            probabilities: outputs are the classes' probabilities.

        Returns:
            The outputs (outputs, h, w) in the cells of the head's level, and the classes' codes
            (h, w), NO_CLASS where an output is not finite; None of a regression.

        Raises:
            EosfmError: the levels are not those that it reads.
        """
        finest = levels[self.level]
        assert finest is not None, "the head reads its own level"
        height, width = finest.shape[1:]
        outputs = np.empty((self.outputs, height, width), np.float32)
        classes = np.empty((height, width), np.uint8) if self.classes else None
        structs = (Level * LEVELS)(*(_level(array) for array in levels))
        target = Map(
            outputs=outputs.ctypes.data,
            channel_stride=height * width,
            row_stride=width,
            classes=None if classes is None else classes.ctypes.data,
            class_stride=width,
            probabilities=probabilities,
        )
        stride = 4 << self.level
        self._checked(
            self._library.eosfm_head_apply(
                self.handle, structs, width * stride, height * stride, byref(target)
            )
        )
        return outputs, classes


def _level(array: NDArray[np.float32] | None) -> Level:
    if array is None:
        return Level()
    if array.dtype != np.float32 or array.ndim != 3 or not array.flags.c_contiguous:
        raise ValueError(f"a level is {array.dtype} {array.shape}, expected float32 (C, h, w)")
    _, height, width = array.shape
    return Level(data=array.ctypes.data, channel_stride=height * width, row_stride=width)
