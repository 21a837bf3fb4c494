"""``runtime/include/eosfm.h`` in ctypes: its structs, its functions, and the library that has them.

The header says what each is; names here are its names.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from eosfm_edge.errors import UserError

LEVELS = 4
OK, NOT_FOUND, WRONG_ANSWER, NOT_FINITE, AGAIN, END, ENGINE_FAILED = 0, 2, 8, 9, 10, 11, 12
BIG_ENDIAN = 256
# By numpy's type, which compares equal to its name.
DTYPES = {
    np.dtype(order + name): number + flag
    for order, flag in ((">", BIG_ENDIAN), ("<", 0))
    for number, name in enumerate(("u1", "u2", "i2", "f4", "i1", "i4", "u4", "f8"))
}


class EosfmError(UserError):
    """A call of libeosfm failed; ``status`` is its eosfm_status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"libeosfm: {sentence}")
        self.status = status


class Struct(ctypes.Structure):
    """A struct of eosfm.h, which begins with its own size."""

    def __init__(self, **values: Any) -> None:
        super().__init__(struct_size=ctypes.sizeof(self), **values)


LogFn = ctypes.CFUNCTYPE(None, c_void_p, ctypes.c_int, c_char_p)


class OpenOptions(Struct):
    """``eosfm_open_options``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("log", LogFn),
        ("log_user", c_void_p),
        ("error", c_void_p),
        ("error_size", c_size_t),
        ("private_copy", c_int32),
        ("error_code", c_void_p),
        ("memory_limit", c_size_t),
        ("allocator", c_void_p),
    )


class ModelInfo(Struct):
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
        ("memory_bytes", c_size_t),
        ("memory_peak_bytes", c_size_t),
    )


class BandInfo(Struct):
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


class SpecialistInfo(Struct):
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


class Level(Struct):
    """``eosfm_level``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("channel_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
    )


# What an engine writes and a gate reads: a pointer to each level.
Levels = POINTER(POINTER(c_float))

ComputeFn = ctypes.CFUNCTYPE(ctypes.c_int, c_void_p, POINTER(c_float), Levels)
ErrorFn = ctypes.CFUNCTYPE(c_void_p, c_void_p)  # gives the address of a text


class Engine(Struct):
    """``eosfm_engine``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("compute", ComputeFn),
        ("user", c_void_p),
        ("cancel", c_void_p),
        ("error", ErrorFn),
        ("name", c_char_p),
    )


OpenFn = ctypes.CFUNCTYPE(ctypes.c_int, c_void_p, Levels, POINTER(c_int32))


class Gate(Struct):
    """``eosfm_gate``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("specialist", c_int32),
        ("open", OpenFn),
        ("user", c_void_p),
    )


class ContextOptions(Struct):
    """``eosfm_context_options``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("threads", c_int32),
        ("precision", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("memory_limit", c_size_t),
        ("engine", POINTER(Engine)),
        ("gate", POINTER(Gate)),
        ("backends", c_char_p),
        ("backend_library", c_char_p),
        ("batch", c_int32),
        ("thread_started", c_void_p),
        ("thread_user", c_void_p),
    )


class EngineInfo(Struct):
    """``eosfm_engine_info``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("status", c_int64),
        ("reason", c_void_p),
        ("reason_size", c_size_t),
        ("isa", c_char_p),
    )


class Requirements(Struct):
    """``eosfm_requirements``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("context_bytes", c_size_t),
        ("weights_bytes", c_size_t),
        ("mapped_bytes", c_size_t),
        ("device_bytes", c_size_t),
        ("pinned_bytes", c_size_t),
    )


# What eosfm_band and eosfm_stream_band end with.
_CALIBRATION = (
    ("calibrated", c_int32),
    ("scale", c_float),
    ("offset", c_float),
    ("has_nodata", c_int32),
    ("nodata", c_double),
)


class Band(Struct):
    """``eosfm_band``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("dtype", c_int32),
        ("column_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
        *_CALIBRATION,
        ("step", c_int32),
        ("row_origin", c_int32),
        ("column_origin", c_int32),
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**{"step": 1, **values})


class Image(Struct):
    """``eosfm_image``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("bands", POINTER(Band)),
        ("band_count", c_size_t),
        ("mask", c_void_p),
        ("mask_column_stride", ctypes.c_ssize_t),
        ("mask_row_stride", ctypes.c_ssize_t),
    )


ProgressFn = ctypes.CFUNCTYPE(ctypes.c_int, c_void_p, c_int32, c_int32)


class RunOptions(Struct):
    """``eosfm_run_options``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("deadline_ms", c_int64),
        ("progress", ProgressFn),
        ("progress_user", c_void_p),
        ("present", c_void_p),
        ("present_count", c_size_t),
    )


class StreamBand(Struct):
    """``eosfm_stream_band``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("dtype", c_int32),
        ("step", c_int32),
        ("column_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
        *_CALIBRATION,
        ("row_origin", c_int32),
        ("column_origin", c_int32),
    )


class HeadInfo(Struct):
    """``eosfm_head_info``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("task", c_int32),
        ("outputs", c_int32),
        ("level", c_int32),
        ("levels", c_int32 * LEVELS),
    )


class ClassInfo(Struct):
    """``eosfm_class_info``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("code", c_int32),
        ("red", c_int32),
        ("green", c_int32),
        ("blue", c_int32),
    )


class Map(Struct):
    """``eosfm_map``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("outputs", c_void_p),
        ("channel_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
        ("classes", c_void_p),
        ("class_stride", ctypes.c_ssize_t),
        ("probabilities", c_int32),
    )


class StreamHead(Struct):
    """``eosfm_stream_head``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("head", c_void_p),
        ("probabilities", c_int32),
    )


class StreamOptions(Struct):
    """``eosfm_stream_options``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("width", c_int32),
        ("overlap", c_int32),
        ("halo", c_int32),
        ("bands", POINTER(StreamBand)),
        ("band_count", c_size_t),
        ("least_valid", c_float),
        ("skip_below", c_float),
        ("levels", c_int32 * LEVELS),
        ("mask", POINTER(StreamBand)),
        ("heads", POINTER(StreamHead)),
        ("head_count", c_size_t),
    )


class PatchLevel(Struct):
    """``eosfm_patch_level``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("data", c_void_p),
        ("channel_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
        ("valid", c_void_p),
        ("valid_stride", ctypes.c_ssize_t),
        ("row", c_int64),
        ("column", c_int32),
        ("height", c_int32),
        ("width", c_int32),
    )


class PatchMap(Struct):
    """``eosfm_patch_map``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("outputs", c_void_p),
        ("channel_stride", ctypes.c_ssize_t),
        ("row_stride", ctypes.c_ssize_t),
        ("classes", c_void_p),
        ("class_stride", ctypes.c_ssize_t),
        ("row", c_int64),
        ("column", c_int32),
        ("height", c_int32),
        ("width", c_int32),
    )


class Patch(Struct):
    """``eosfm_patch``."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("tile_row", c_int64),
        ("tile_column", c_int32),
        ("skipped", c_int32),
        ("tiles", c_int64),
        ("tiles_skipped", c_int64),
        ("levels", POINTER(PatchLevel)),
        ("maps", POINTER(PatchMap)),
    )

    def __init__(self, heads: int = 0) -> None:
        super().__init__(
            levels=(PatchLevel * LEVELS)(*(PatchLevel() for _ in range(LEVELS))),
            maps=(PatchMap * heads)(*(PatchMap() for _ in range(heads))),
        )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "eosfm_library_get_version": (c_char_p, ()),
    "eosfm_library_describe_engine": (c_int32, (c_int32, POINTER(EngineInfo))),
    "eosfm_status_get_text": (c_char_p, (c_int32,)),
    "eosfm_model_open": (c_int32, (c_char_p, POINTER(OpenOptions), POINTER(c_void_p))),
    "eosfm_model_close": (None, (c_void_p,)),
    "eosfm_model_get_error": (c_char_p, (c_void_p,)),
    "eosfm_model_describe": (c_int32, (c_void_p, POINTER(ModelInfo))),
    "eosfm_model_describe_band": (c_int32, (c_void_p, c_int32, POINTER(BandInfo))),
    "eosfm_model_describe_specialist": (c_int32, (c_void_p, c_int32, POINTER(SpecialistInfo))),
    "eosfm_model_get_requirements": (
        c_int32,
        (c_void_p, POINTER(ContextOptions), POINTER(Requirements)),
    ),
    "eosfm_context_create": (c_int32, (c_void_p, POINTER(ContextOptions), POINTER(c_void_p))),
    "eosfm_context_destroy": (None, (c_void_p,)),
    "eosfm_context_get_error": (c_char_p, (c_void_p,)),
    "eosfm_context_get_backend": (c_char_p, (c_void_p,)),
    "eosfm_context_set_active": (c_int32, (c_void_p, c_char_p, c_size_t)),
    "eosfm_context_set_grn": (c_int32, (c_void_p, c_int32)),
    "eosfm_context_run": (
        c_int32,
        (c_void_p, POINTER(Image), POINTER(Level), POINTER(RunOptions)),
    ),
    "eosfm_context_cancel": (None, (c_void_p,)),
    "eosfm_context_resume": (None, (c_void_p,)),
    "eosfm_context_verify": (c_int32, (c_void_p, POINTER(c_double))),
    "eosfm_context_get_tolerance": (c_int32, (c_void_p, POINTER(c_double))),
    "eosfm_context_get_stream_bytes": (
        c_int32,
        (c_void_p, POINTER(StreamOptions), POINTER(c_size_t)),
    ),
    "eosfm_head_open": (c_int32, (c_void_p, c_char_p, POINTER(c_void_p))),
    "eosfm_head_close": (None, (c_void_p,)),
    "eosfm_head_describe": (c_int32, (c_void_p, POINTER(HeadInfo))),
    "eosfm_head_describe_class": (c_int32, (c_void_p, c_int32, POINTER(ClassInfo))),
    "eosfm_head_apply": (c_int32, (c_void_p, POINTER(Level), c_int32, c_int32, POINTER(Map))),
    "eosfm_stream_create": (c_int32, (c_void_p, POINTER(StreamOptions), POINTER(c_void_p))),
    "eosfm_stream_push_rows": (
        c_int32,
        (c_void_p, c_int32, c_void_p, c_int32, c_int32, POINTER(c_int32)),
    ),
    "eosfm_stream_end": (c_int32, (c_void_p,)),
    "eosfm_stream_pull_patch": (c_int32, (c_void_p, POINTER(RunOptions), POINTER(Patch))),
    "eosfm_stream_destroy": (None, (c_void_p,)),
}


def version() -> str:
    """Return the version of the library that is loaded."""
    text: bytes = library().eosfm_library_get_version()
    return text.decode()


def get_include() -> str:
    """Return the folder of ``eosfm.h`` and ``eosfm.hpp``.

    The library is in ``lib`` beside it, with files by which CMake (``CMAKE_PREFIX_PATH``) and
    pkg-config (``PKG_CONFIG_PATH``) find both.
    """
    return str(resources.files("eosfm_edge.native") / "include")


def library_path() -> str:
    """Return the library that is used: ``EOSFM_LIBRARY``, or the one in this package."""
    # A package installed in place has its compiled part elsewhere, which importlib knows.
    installed = resources.files("eosfm_edge.native") / "lib" / "libeosfm.so"
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
