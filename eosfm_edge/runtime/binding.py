"""libeosfm from Python: ``runtime/include/eosfm.h`` by ctypes, arrays by numpy without copies.

The header says what each call does; names here are its names.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError

LEVELS = 4
AS_STORED, BF16 = 0, 1
GRN_TILE, GRN_GATHER, GRN_SCENE = 0, 1, 2

_OK, _WRONG_ANSWER = 0, 8
_DTYPES = {np.dtype(t): i for i, t in enumerate((np.uint8, np.uint16, np.int16, np.float32))}


class EosfmError(UserError):
    """A call of libeosfm failed; ``status`` is its eosfm_status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"libeosfm: {sentence}")
        self.status = status


class _Struct(ctypes.Structure):
    """A struct of eosfm.h, which begins with its own size."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **values)


class _OpenOptions(_Struct):
    _fields_ = (
        ("struct_size", c_size_t),
        ("log", c_void_p),
        ("log_user", c_void_p),
        ("error", c_void_p),
        ("error_size", c_size_t),
    )


class ModelInfo(_Struct):
    """``eosfm_model_info``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("isa", c_char_p),
        ("bands", c_int32),
        ("specialists", c_int32),
        ("runs", c_int32),
        ("tile", c_int32),
        ("channels", c_int32 * LEVELS),
    )


class BandInfo(_Struct):
    """``eosfm_band_info``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("wavelength_nm", c_float),
        ("scale", c_float),
        ("offset", c_float),
        ("fill", c_float),
        ("has_nodata", c_int32),
        ("nodata", c_float),
    )


class SpecialistInfo(_Struct):
    """``eosfm_specialist_info``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("backbone", c_char_p),
        ("licence", c_char_p),
        ("bands", c_int32),
        ("runs", c_int32),
        ("factor", c_float),
    )


class _ContextOptions(_Struct):
    _fields_ = (
        ("struct_size", c_size_t),
        ("threads", c_int32),
        ("precision", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("memory_limit", c_size_t),
    )


class Plan(_Struct):
    """``eosfm_plan``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("context_bytes", c_size_t),
        ("weights_bytes", c_size_t),
        ("mapped_bytes", c_size_t),
    )


class _Band(_Struct):
    _fields_ = (
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("dtype", c_int32),
        ("column_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
        ("calibrated", c_int32),
        ("scale", c_float),
        ("offset", c_float),
        ("has_nodata", c_int32),
        ("nodata", c_float),
    )


class _Image(_Struct):
    _fields_ = (("struct_size", c_size_t), ("bands", POINTER(_Band)), ("band_count", c_size_t))


class _Level(_Struct):
    _fields_ = (
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("channel_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
    )


_ProgressFn = ctypes.CFUNCTYPE(ctypes.c_int, c_void_p, c_int32, c_int32)


class _RunOptions(_Struct):
    _fields_ = (
        ("struct_size", c_size_t),
        ("deadline_ms", c_int64),
        ("progress", _ProgressFn),
        ("progress_user", c_void_p),
    )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "eosfm_version": (c_char_p, ()),
    "eosfm_status_text": (c_char_p, (c_int32,)),
    "eosfm_model_open": (c_int32, (c_char_p, POINTER(_OpenOptions), POINTER(c_void_p))),
    "eosfm_model_close": (None, (c_void_p,)),
    "eosfm_model_error": (c_char_p, (c_void_p,)),
    "eosfm_model_describe": (c_int32, (c_void_p, POINTER(ModelInfo))),
    "eosfm_model_band": (c_int32, (c_void_p, c_int32, POINTER(BandInfo))),
    "eosfm_model_specialist": (c_int32, (c_void_p, c_int32, POINTER(SpecialistInfo))),
    "eosfm_model_plan": (c_int32, (c_void_p, POINTER(_ContextOptions), POINTER(Plan))),
    "eosfm_context_create": (c_int32, (c_void_p, POINTER(_ContextOptions), POINTER(c_void_p))),
    "eosfm_context_destroy": (None, (c_void_p,)),
    "eosfm_context_error": (c_char_p, (c_void_p,)),
    "eosfm_set_active": (c_int32, (c_void_p, c_char_p, c_size_t)),
    "eosfm_context_set_grn": (c_int32, (c_void_p, c_int32)),
    "eosfm_run": (
        c_int32,
        (c_void_p, POINTER(_Image), POINTER(_Level), POINTER(_RunOptions)),
    ),
    "eosfm_cancel": (None, (c_void_p,)),
    "eosfm_verify": (c_int32, (c_void_p, POINTER(c_double))),
}


def version() -> str:
    """Return the version of the library that is loaded."""
    text: bytes = library().eosfm_version()
    return text.decode()


def library_path() -> str:
    """Return the library that is used: ``EOSFM_LIBRARY``, or the one in this package."""
    # A package installed in place has its compiled part elsewhere, which importlib knows.
    installed = resources.files("eosfm_edge.runtime") / "lib" / "libeosfm.so"
    return os.environ.get("EOSFM_LIBRARY") or str(installed)


@cache
def library() -> ctypes.CDLL:
    """Load libeosfm.

    Raises:
        UserError: it is not there or cannot be loaded.
    """
    try:
        loaded = ctypes.CDLL(library_path())
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise UserError(
            f"libeosfm cannot be loaded: {error}",
            remedy="reinstall eosfm-edge, or run with --backend onnxruntime",
        ) from error
    return loaded


class Model:
    """A bundle that is open (``eosfm_model``).

    Args:
        bundle: the bundle's directory.

    Raises:
        EosfmError: it cannot be opened.
    """

    def __init__(self, bundle: Path) -> None:
        self._library = library()
        self._handle = c_void_p()
        text = ctypes.create_string_buffer(512)
        options = _OpenOptions(error=ctypes.addressof(text), error_size=len(text))
        status = self._library.eosfm_model_open(
            os.fsencode(bundle), byref(options), byref(self._handle)
        )
        if status != _OK:
            raise EosfmError(status, text.value.decode(errors="replace"))
        self._closed = weakref.finalize(self, self._library.eosfm_model_close, self._handle)

    def close(self) -> None:
        """Close the model; contexts of it live on."""
        self._closed()
        self._handle = c_void_p()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _checked(self, status: int) -> None:
        if status != _OK:
            text: bytes = self._library.eosfm_model_error(self._handle)
            raise EosfmError(status, text.decode(errors="replace") or "it is closed")

    def describe(self) -> ModelInfo:
        """Return name, instruction set and sizes."""
        info = ModelInfo()
        self._checked(self._library.eosfm_model_describe(self._handle, byref(info)))
        return info

    def band(self, index: int) -> BandInfo:
        """Return what the bundle says of a band of the input."""
        info = BandInfo()
        self._checked(self._library.eosfm_model_band(self._handle, index, byref(info)))
        return info

    def specialist(self, index: int) -> SpecialistInfo:
        """Return what the bundle says of a specialist."""
        info = SpecialistInfo()
        self._checked(self._library.eosfm_model_specialist(self._handle, index, byref(info)))
        return info

    def plan(self, **options: int) -> Plan:
        """Return the memory that a context with these options needs (as for :meth:`context`)."""
        plan = Plan()
        status = self._library.eosfm_model_plan(
            self._handle, byref(_ContextOptions(**options)), byref(plan)
        )
        self._checked(status)
        return plan

    def context(self, **options: int) -> Context:
        """Create a context.

        Args:
            **options: fields of ``eosfm_context_options``: threads, precision, width, height,
                memory_limit.
        """
        handle = c_void_p()
        status = self._library.eosfm_context_create(
            self._handle, byref(_ContextOptions(**options)), byref(handle)
        )
        self._checked(status)
        info = self.describe()
        width, height = options.get("width", 0) or info.tile, options.get("height", 0) or info.tile
        shapes = [(info.channels[i], height >> (i + 2), width >> (i + 2)) for i in range(LEVELS)]
        return Context(handle, info.bands, (height, width), shapes)


class Context:
    """What running a model needs (``eosfm_context``); made by :meth:`Model.context`."""

    def __init__(
        self,
        handle: c_void_p,
        bands: int,
        size: tuple[int, int],
        shapes: Sequence[tuple[int, int, int]],
    ) -> None:
        self._library = library()
        self._handle = handle
        self._closed = weakref.finalize(self, self._library.eosfm_context_destroy, handle)
        self._bands, self._size = bands, size
        self.shapes = tuple(shapes)

    def close(self) -> None:
        """Destroy the context."""
        self._closed()
        self._handle = c_void_p()

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _checked(self, status: int) -> None:
        if status != _OK:
            text: bytes = self._library.eosfm_context_error(self._handle)
            raise EosfmError(status, text.decode(errors="replace") or "it is closed")

    def set_active(self, active: Sequence[bool]) -> None:
        """Choose which specialists run; one flag for each."""
        flags = bytes(bool(flag) for flag in active)
        self._checked(self._library.eosfm_set_active(self._handle, flags, len(flags)))

    def set_grn(self, mode: int) -> None:
        """Choose over what GRN takes its norms: GRN_TILE, GRN_GATHER or GRN_SCENE."""
        self._checked(self._library.eosfm_context_set_grn(self._handle, mode))

    def run(
        self,
        bands: Sequence[NDArray[Any]],
        out: Sequence[NDArray[np.float32] | None] | None = None,
        *,
        deadline_ms: int = 0,
        progress: Callable[[int, int], bool] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Compute the levels of an image.

        Args:
            bands: one (height, width) array for each band, of stored values: uint8, uint16, int16
                or float32 with any strides. They are not copied.
            out: where the levels go, (channels, h, w) float32 with adjacent cells in a row;
                None: new arrays. A None among them: that level is not wanted.
            deadline_ms: the run fails after so many milliseconds; 0: never.
            progress: called with runs done and all runs; returns whether to stop. What it raises
                ends the run and is raised from here.

        Returns:
            The levels that were wanted.

        Raises:
            EosfmError: the image does not fit, or the run was cancelled or too slow.
        """
        image = _Image(bands=self._band_structs(bands), band_count=len(bands))
        levels = [np.empty(shape, np.float32) for shape in self.shapes] if out is None else out
        targets = (_Level * LEVELS)(
            *(_level(array, shape) for array, shape in zip(levels, self.shapes, strict=True))
        )
        raised: list[BaseException] = []

        def call(_user: int | None, done: int, total: int) -> int:
            # ctypes would print what is raised here, and go on.
            try:
                return int(bool(progress is not None and progress(done, total)))
            except BaseException as error:
                raised.append(error)
                return 1

        callback = _ProgressFn() if progress is None else _ProgressFn(call)
        options = _RunOptions(deadline_ms=deadline_ms, progress=callback)
        status = self._library.eosfm_run(self._handle, byref(image), targets, byref(options))
        if raised:
            raise raised[0]
        self._checked(status)
        return [level for level in levels if level is not None]

    def cancel(self) -> None:
        """End the run that is going on in another thread."""
        self._library.eosfm_cancel(self._handle)

    def verify(self) -> tuple[bool, list[float]]:
        """Run the known answer.

        Returns:
            Whether every level is within the bundle's tolerance, and each one's largest difference
            over its largest value.
        """
        worst = (c_double * LEVELS)()
        status = self._library.eosfm_verify(self._handle, worst)
        if status != _WRONG_ANSWER:
            self._checked(status)
        return status == _OK, list(worst)

    def _band_structs(self, bands: Sequence[NDArray[Any]]) -> ctypes.Array[_Band]:
        structs = (_Band * len(bands))()
        for index, band in enumerate(bands):
            if band.shape != self._size or band.dtype not in _DTYPES:
                raise UserError(
                    f"band {index} is {band.dtype} {band.shape}",
                    expected=f"uint8, uint16, int16 or float32, {self._size}",
                )
            structs[index] = _Band(
                data=band.ctypes.data,
                dtype=_DTYPES[band.dtype],
                row_stride=band.strides[0],
                column_stride=band.strides[1],
            )
        return structs


def _level(array: NDArray[np.float32] | None, shape: tuple[int, int, int]) -> _Level:
    if array is None:
        return _Level()
    if array.shape != shape or array.dtype != np.float32 or array.strides[2] != 4:
        raise ValueError(
            f"a level's array is {array.dtype} {array.shape}, expected float32 {shape}"
        )
    if not array.flags.writeable or any(stride % 4 for stride in array.strides):
        raise ValueError(
            f"a level's array has strides {array.strides} or is read-only, expected multiples of 4 "
            "and one that can be written"
        )
    return _Level(
        data=array.ctypes.data,
        channel_stride=array.strides[0] // 4,
        row_stride=array.strides[1] // 4,
    )
