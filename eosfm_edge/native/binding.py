"""libeosfm from Python: models and contexts, arrays by numpy without copies.

The header says what each call does; names here are its names.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_double, c_void_p, pointer
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.ctypeslib import as_array
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.native import header
from eosfm_edge.native.head import Head
from eosfm_edge.native.header import (
    DTYPES,
    LEVELS,
    OK,
    WRONG_ANSWER,
    Band,
    BandInfo,
    ComputeFn,
    ContextOptions,
    Engine,
    EosfmError,
    ErrorFn,
    Image,
    Level,
    LogFn,
    ModelInfo,
    OpenFn,
    OpenOptions,
    ProgressFn,
    Requirements,
    RunOptions,
    SpecialistInfo,
    library,
)

AS_STORED, BF16 = 0, 1
LOG_WARNING = 1
GRN_TILE, GRN_GATHER, GRN_SCENE = 0, 1, 2

# Called with runs done and all runs; returns whether to stop.
Progress = Callable[[int, int], bool]

Compute = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True)
class Gate:
    """A specialist that decides of each image whether the others are worth running.

    Attributes:
        specialist: which.
        open: whether the others run, given its levels, each (C, h, w), which are only for the call.
            What it raises is raised by the run.
    """

    specialist: int
    open: Callable[[Sequence[NDArray[np.float32]]], bool]


class Model:
    """A bundle that is open (``eosfm_model``).

    Args:
        bundle: the bundle's directory.
        warn: called with a sentence for each backend that cannot be used, before the next.

    Raises:
        EosfmError: it cannot be opened.
    """

    def __init__(self, bundle: Path, warn: Callable[[str], None] | None = None) -> None:
        self._library = library()
        self._handle = c_void_p()
        self._raised: list[BaseException] = []  # by `warn`, which C calls
        self._log = _log(warn, self._raised) if warn else LogFn()
        text = ctypes.create_string_buffer(512)
        options = OpenOptions(log=self._log, error=ctypes.addressof(text), error_size=len(text))
        status = self._library.eosfm_model_open(
            os.fsencode(bundle), byref(options), byref(self._handle)
        )
        if status != OK:
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
        if status != OK:
            text: bytes = self._library.eosfm_model_get_error(self._handle)
            raise EosfmError(status, text.decode(errors="replace") or "it is closed")

    def describe(self) -> ModelInfo:
        """Return name, instruction set and sizes."""
        info = ModelInfo()
        self._checked(self._library.eosfm_model_describe(self._handle, byref(info)))
        return info

    def band(self, index: int) -> BandInfo:
        """Return what the bundle says of a band of the input."""
        info = BandInfo()
        self._checked(self._library.eosfm_model_describe_band(self._handle, index, byref(info)))
        return info

    def specialist(self, index: int) -> SpecialistInfo:
        """Return what the bundle says of a specialist."""
        info = SpecialistInfo()
        self._checked(
            self._library.eosfm_model_describe_specialist(self._handle, index, byref(info))
        )
        return info

    def head(self, name: str) -> Head:
        """Open a head of the bundle.

        Raises:
            EosfmError: there is none of the name, or it does not fit the bundle.
        """
        handle = c_void_p()
        self._checked(self._library.eosfm_head_open(self._handle, os.fsencode(name), byref(handle)))
        return Head(handle, self._checked)

    def requirements(self, **options: int) -> Requirements:
        """Return the memory that a context with these options needs (as for :meth:`context`)."""
        requirements = Requirements()
        status = self._library.eosfm_model_get_requirements(
            self._handle, byref(ContextOptions(**options)), byref(requirements)
        )
        self._checked(status)
        return requirements

    def context(
        self,
        compute: Compute | None = None,
        gate: Gate | None = None,
        backends: str | None = None,
        *,
        name: str = "host",
        backend_library: Path | None = None,
        **options: int,
    ) -> Context:
        """Create a context.

        Args:
            compute: what computes in the library's place: returns the levels, each (C, h, w), of
                an image (bands, height, width) of stored values, which is its own only for the
                call. What it raises is raised by the run, or by this if no backend is left.
            gate: a specialist that runs first, and decides whether the others do.
            backends: who may compute: names of libeosfm's backends with spaces between them, of
                which the first that works here is taken, `compute` by its name among them. None:
                `compute`, or else the CPU engine.
            name: by which ``backends`` names ``compute``.
            backend_library: the file of what backends stand on; None: it is searched for.
            **options: fields of ``eosfm_context_options``: threads, precision, width, height,
                memory_limit.

        Raises:
            EosfmError: an option is not what it may be, there is no memory, or no backend works
                here: with the reason of the last.
        """
        info = self.describe()
        size = (options.get("height") or info.tile, options.get("width") or info.tile)
        shapes = [(info.channels[i], size[0] >> (i + 2), size[1] >> (i + 2)) for i in range(LEVELS)]
        fields, raised = ContextOptions(**options), list[BaseException]()
        engine = _engine(compute, name, (info.bands, *size), shapes, raised) if compute else None
        if engine is not None:
            fields.engine = pointer(engine)
        if backends is not None:
            fields.backends = backends.encode()
        if backend_library is not None:
            fields.backend_library = os.fsencode(backend_library)
        guard = _guard(gate, shapes, raised) if gate else None
        if guard is not None:
            fields.gate = pointer(guard)
        handle = c_void_p()
        status = self._library.eosfm_context_create(self._handle, byref(fields), byref(handle))
        # An error of compute is a reason to take the next backend, an interrupt is not.
        fatal = [error for error in raised if not isinstance(error, Exception)] + self._raised
        if fatal:
            self._library.eosfm_context_destroy(handle)
            raise fatal[0]
        if status != OK and raised and (backends is None or backends.split()[-1] == name):
            raise raised[-1]
        self._checked(status)
        raised.clear()
        context = Context(handle, self, info, size, shapes, (engine, guard), raised)
        if context.backend != name:  # an engine that is not used gives back what it holds
            context._called = guard
        return context


class Closable(Protocol):
    """Something that gives its memory back when it is closed."""

    def close(self) -> None:
        """Give it back."""


class Context:
    """The state that running a model needs (``eosfm_context``); made by :meth:`Model.context`."""

    def __init__(
        self,
        handle: c_void_p,
        model: Model,
        info: ModelInfo,
        size: tuple[int, int],
        shapes: Sequence[tuple[int, int, int]],
        called: object,
        raised: list[BaseException],
    ) -> None:
        self._library = library()
        self._called, self._raised = called, raised  # for as long as the library may call them
        self.handle = handle
        self._model = model
        self._closed = weakref.finalize(self, self._library.eosfm_context_destroy, handle)
        self.streams: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._size, self.specialists = size, info.specialists
        self.shapes = tuple(shapes)

    def close(self) -> None:
        """Destroy the context, and before it the streams that use its memory."""
        for stream in list(self.streams):
            stream.close()
        self._closed()
        self.handle = c_void_p()

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def checked(self, status: int) -> None:
        """Raise an EosfmError for what is not OK, with the context's sentence."""
        if self._raised:
            raise self._raised.pop()
        if status != OK:
            raise EosfmError(status, self.error or "it is closed")

    @property
    def error(self) -> str:
        """Return the sentence of the last failed call; empty if there was none."""
        text: bytes = self._library.eosfm_context_get_error(self.handle)
        return text.decode(errors="replace")

    @property
    def backend(self) -> str:
        """Return who computes: one of the backends, or the name of the host's engine."""
        name: bytes = self._library.eosfm_context_get_backend(self.handle)
        return name.decode()

    def head(self, name: str) -> Head:
        """Open a head of the model's bundle; as :meth:`Model.head`."""
        return self._model.head(name)

    def set_active(self, active: Sequence[bool]) -> None:
        """Choose which specialists run; one flag for each."""
        flags = bytes(bool(flag) for flag in active)
        self.checked(self._library.eosfm_context_set_active(self.handle, flags, len(flags)))

    def set_grn(self, mode: int) -> None:
        """Choose over what GRN takes its norms: GRN_TILE, GRN_GATHER or GRN_SCENE."""
        self.checked(self._library.eosfm_context_set_grn(self.handle, mode))

    def run(
        self,
        bands: Sequence[NDArray[Any]],
        out: Sequence[NDArray[np.float32] | None] | None = None,
        *,
        deadline_ms: int = 0,
        progress: Progress | None = None,
        present: NDArray[np.uint8] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Compute the levels of an image.

        Args:
            bands: one (height, width) array for each band, of stored values: integers of 8, 16 or
                32 bits, float32 or float64 in either byte order, with any strides. They are not
                copied.
            out: where the levels go, (channels, h, w) float32 with adjacent cells in a row;
                None: new arrays. A None among them: that level is not wanted.
            deadline_ms: the run fails after so many milliseconds; 0: never.
            progress: called with runs done and all runs; returns whether to stop. What it raises
                ends the run and is raised from here.
            present: gets a flag for each specialist: whether it is in the levels. With it, a run
                that the deadline ends gives what was done by then.

        Returns:
            The levels that were wanted.

        Raises:
            EosfmError: the image does not fit, or the run was cancelled or too slow.
        """
        image = Image(bands=self._band_structs(bands), band_count=len(bands))
        levels = [np.empty(shape, np.float32) for shape in self.shapes] if out is None else out
        targets = (Level * LEVELS)(
            *(_level(array, shape) for array, shape in zip(levels, self.shapes, strict=True))
        )
        with run_options(deadline_ms, progress, present) as options:
            status = self._library.eosfm_context_run(
                self.handle, byref(image), targets, byref(options)
            )
        self.checked(status)
        return [level for level in levels if level is not None]

    def cancel(self) -> None:
        """End the run that is going on in another thread, and those that follow until `resume`."""
        self._library.eosfm_context_cancel(self.handle)

    def resume(self) -> None:
        """Run again after `cancel`."""
        self._library.eosfm_context_resume(self.handle)

    def verify(self) -> tuple[bool, list[float]]:
        """Run the known answer.

        Returns:
            Whether every level is within the bundle's tolerance, and each one's largest difference
            over its largest value.
        """
        worst = (c_double * LEVELS)()
        status = self._library.eosfm_context_verify(self.handle, worst)
        if status != WRONG_ANSWER:
            self.checked(status)
        return status == OK, list(worst)

    def tolerance(self) -> list[float]:
        """Return how far :meth:`verify` lets each level be off, in parts of its largest value."""
        tolerance = (c_double * LEVELS)()
        self.checked(self._library.eosfm_context_get_tolerance(self.handle, tolerance))
        return list(tolerance)

    def _band_structs(self, bands: Sequence[NDArray[Any]]) -> ctypes.Array[Band]:
        structs = (Band * len(bands))()
        for index, band in enumerate(bands):
            if band.shape != self._size or band.dtype not in DTYPES:
                raise UserError(
                    f"band {index} is {band.dtype} {band.shape}",
                    expected=f"integers of 8 to 32 bits, float32 or float64, {self._size}",
                )
            structs[index] = Band(
                data=band.ctypes.data,
                dtype=DTYPES[band.dtype],
                row_stride=band.strides[0],
                column_stride=band.strides[1],
            )
        return structs


def _log(warn: Callable[[str], None], raised: list[BaseException]) -> Any:
    """Return ``eosfm_log_fn`` that passes warnings on; what ``warn`` raises goes into the list."""

    def call(_user: int | None, level: int, text: bytes) -> None:
        try:
            if level == LOG_WARNING:
                warn(text.decode(errors="replace"))
        except BaseException as error:
            raised.append(error)

    return LogFn(call)


def _engine(
    compute: Compute,
    name: str,
    image_shape: tuple[int, int, int],
    shapes: Sequence[tuple[int, int, int]],
    raised: list[BaseException],
) -> Engine:
    """Return ``eosfm_engine`` for a function; what that raises goes into the list."""
    sentence = ctypes.create_string_buffer(512)

    def call(_user: int | None, image: Any, levels: Any) -> int:
        try:
            computed = compute(as_array(image, image_shape))
            found = [np.shape(features) for features in computed]
            if found != list(shapes):  # which assigning would stretch where it can
                raise UserError(
                    f"{name} gives levels of {found}", expected=f"float32 of {list(shapes)}"
                )
            for index, features in enumerate(computed):
                as_array(levels[index], shapes[index])[:] = features
        except BaseException as error:
            raised.append(error)
            lines = str(error).splitlines() or [type(error).__name__]
            sentence.value = "; ".join(" ".join(line.split()) for line in lines).encode()[:511]
            return 1
        return 0

    def error(_user: int | None) -> int:
        return ctypes.addressof(sentence)

    return Engine(compute=ComputeFn(call), error=ErrorFn(error), name=name.encode())


def _guard(
    gate: Gate, shapes: Sequence[tuple[int, int, int]], raised: list[BaseException]
) -> header.Gate:
    """Return ``eosfm_gate``; what its function raises goes into the list."""

    def call(_user: int | None, levels: Any, channels: Any) -> int:
        try:
            features = []
            for index, (_, height, width) in enumerate(shapes):
                features.append(as_array(levels[index], (channels[index], height, width)))
            return int(gate.open(features))
        except BaseException as error:
            raised.append(error)
            return 0

    return header.Gate(specialist=gate.specialist, open=OpenFn(call))


@contextmanager
def run_options(
    deadline_ms: int = 0,
    progress: Progress | None = None,
    present: NDArray[np.uint8] | None = None,
) -> Iterator[RunOptions]:
    """Give ``eosfm_run_options`` for one call; what ``progress`` raised is raised on leaving."""
    raised: list[BaseException] = []

    def call(_user: int | None, done: int, total: int) -> int:
        # ctypes would print what is raised here, and go on.
        try:
            return int(bool(progress is not None and progress(done, total)))
        except BaseException as error:
            raised.append(error)
            return 1

    callback = ProgressFn() if progress is None else ProgressFn(call)
    options = RunOptions(deadline_ms=deadline_ms, progress=callback)
    if present is not None:
        options.present, options.present_count = present.ctypes.data, len(present)
    yield options
    if raised:
        raise raised[0]


def _level(array: NDArray[np.float32] | None, shape: tuple[int, int, int]) -> Level:
    if array is None:
        return Level()
    if array.shape != shape or array.dtype != np.float32 or array.strides[2] != 4:
        raise ValueError(
            f"a level's array is {array.dtype} {array.shape}, expected float32 {shape}"
        )
    if not array.flags.writeable or any(stride % 4 for stride in array.strides):
        raise ValueError(
            f"a level's array has strides {array.strides} or is read-only, expected multiples of 4 "
            "and one that can be written"
        )
    return Level(
        data=array.ctypes.data,
        channel_stride=array.strides[0] // 4,
        row_stride=array.strides[1] // 4,
    )
