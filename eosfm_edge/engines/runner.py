"""Engines that run one after the other on a GPU."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.engines.cuda import Buffer, Memory, checked, require_driver
from eosfm_edge.engines.library import Library
from eosfm_edge.engines.log import Log
from eosfm_edge.errors import UserError

FloatArray = NDArray[np.float32]


class EngineChain:
    """Engines on one stream, each giving tensors that those behind it take by their names.

    Memory is allocated and bound once. Where the batch is fixed, the second run is captured as a
    CUDA graph, which later runs launch. One thread at a time.

    Args:
        library: that built the engines; ``cuda`` is CUDA's runtime.
        engines: serialised, in the order in which they run.
        outputs: names of the tensors to be copied back.

    Raises:
        UserError: the driver does not fit, an engine cannot be deserialised here, or memory is
            short.
    """

    def __init__(
        self, library: Library, cuda: Any, engines: Sequence[bytes], outputs: Sequence[str]
    ) -> None:
        self._cuda = cuda
        self._log = Log(library.module)
        require_driver(cuda)
        self._runtime = _runtime(library, self._log)
        self._engines = [self._deserialise(library, engine) for engine in engines]
        self._contexts = [engine.create_execution_context() for engine in self._engines]
        self._outputs = list(outputs)
        memory = Memory(cuda)
        self._stream = checked(cuda, cuda.cudaStreamCreate())
        self._release = weakref.finalize(self, _release, cuda, memory, self._stream)
        given: set[str] = set()
        self.buffers: dict[str, Buffer] = {}
        self._inputs: list[str] = []
        self._fixed = True
        for engine, context in zip(self._engines, self._contexts, strict=True):
            takes, gives = _tensors(library.module, engine)
            self._inputs += [name for name in takes if name not in given | {*self._inputs}]
            given |= {*gives}
            for name in (*takes, *gives):
                if name not in self.buffers:
                    copied = name in self._inputs or name in outputs
                    self.buffers[name] = memory.buffer(self._shape(engine, name), copied=copied)
                context.set_tensor_address(name, self.buffers[name].device)
        self._runs = 0
        self._captured: Any = None

    def listing(self, module: Any) -> str:
        """Return the layers of all engines, as text with a line for each."""
        formats = module.LayerInformationFormat
        return "\n".join(
            engine.create_engine_inspector().get_engine_information(formats.ONELINE)
            for engine in self._engines
        )

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the outputs, (N, ...), of the one input (N, ...), float32.

        Raises:
            UserError: the batch is larger than the engines were built for, or CUDA fails.
        """
        (name,) = self._inputs
        most = self.buffers[name].shape[0]
        batch = len(image)
        if batch > most or (self._fixed and batch != most):
            raise UserError(
                f"{batch} tiles at once", expected=f"{'' if self._fixed else 'at most '}{most}"
            )
        host = self.buffers[name].host
        assert host is not None
        host[:batch] = image
        if not self._fixed:
            for engine, context in zip(self._engines, self._contexts, strict=True):
                self._set_batch(engine, context, batch)
        self._enqueue_or_launch(batch)
        checked(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
        levels = [self.buffers[output].host for output in self._outputs]
        return [level[:batch].copy() for level in levels if level is not None]

    def time_layers(self, module: Any, times: int) -> dict[str, float]:
        """Return the milliseconds that each layer takes of a run, by its name."""
        spent: dict[str, float] = {}

        class Profiler(module.IProfiler):  # type: ignore[misc]
            def __init__(self) -> None:
                module.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                spent[layer_name] = spent.get(layer_name, 0.0) + ms / times

        profiler = Profiler()
        for engine, context in zip(self._engines, self._contexts, strict=True):
            if not self._fixed:
                self._set_batch(engine, context, self.buffers[self._inputs[0]].shape[0])
            context.profiler = profiler
            for _ in range(times):
                self._execute(context)
                checked(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))
        return spent

    def close(self) -> None:
        """Free all that is on the GPU."""
        self._contexts.clear()
        self._engines.clear()
        self._release()

    def _deserialise(self, library: Library, engine: bytes) -> Any:
        deserialised = self._runtime.deserialize_cuda_engine(engine)
        if deserialised is None:
            raise UserError(f"{library} does not take the engine: {self._log.complaint}")
        return deserialised

    def _shape(self, engine: Any, name: str) -> tuple[int, ...]:
        shape = tuple(engine.get_tensor_shape(name))
        if shape[0] > 0:
            return shape
        self._fixed = False
        largest = _first_input(engine)
        return (engine.get_tensor_profile_shape(largest, 0)[2][0], *shape[1:])

    def _set_batch(self, engine: Any, context: Any, batch: int) -> None:
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_mode(name).name == "INPUT":
                context.set_input_shape(name, (batch, *self.buffers[name].shape[1:]))

    def _enqueue_or_launch(self, batch: int) -> None:
        """Run; once things have warmed up, as a CUDA graph where every run is alike."""
        self._runs += 1
        if not self._fixed or self._runs == 1:
            self._enqueue(batch)
            return
        cuda = self._cuda
        if self._captured is None:
            mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            checked(cuda, cuda.cudaStreamBeginCapture(self._stream, mode))
            try:
                self._enqueue(batch)
            finally:
                graph = checked(cuda, cuda.cudaStreamEndCapture(self._stream))
            self._captured = checked(cuda, cuda.cudaGraphInstantiate(graph, 0))
        checked(cuda, cuda.cudaGraphLaunch(self._captured, self._stream))

    def _enqueue(self, batch: int) -> None:
        kinds = self._cuda.cudaMemcpyKind
        for name in self._inputs:
            self._copy(name, batch, kinds.cudaMemcpyHostToDevice)
        for context in self._contexts:
            self._execute(context)
        for name in self._outputs:
            self._copy(name, batch, kinds.cudaMemcpyDeviceToHost)

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(int(self._stream)):
            raise UserError(f"TensorRT failed to run: {self._log.complaint}")

    def _copy(self, name: str, batch: int, kind: Any) -> None:
        buffer = self.buffers[name]
        assert buffer.host is not None
        size = 4 * batch * int(np.prod(buffer.shape[1:]))
        ends = (buffer.device, buffer.host.ctypes.data)
        if kind == self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost:
            ends = ends[::-1]
        checked(self._cuda, self._cuda.cudaMemcpyAsync(*ends, size, kind, self._stream))


def _runtime(library: Library, log: Log) -> Any:
    """Create TensorRT's runtime.

    Raises:
        UserError: it cannot be used here.
    """
    made: Any = None
    with suppress(TypeError):  # what the binding raises where there is none
        made = library.module.Runtime(log.logger)
    if made is not None and not log.errors:
        return made
    # Where the driver does not fit, TensorRT 10.16 and 11.4 log an error and give an object at an
    # address that is none. To destroy it, at the interpreter's end too, is to crash.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
    raise UserError(
        f"{library} cannot be used here: {log.complaint}", remedy="check the GPU's driver"
    )


def _tensors(module: Any, engine: Any) -> tuple[list[str], list[str]]:
    """Return the names of an engine's inputs and outputs.

    Raises:
        UserError: one is not float32.
    """
    takes: list[str] = []
    gives: list[str] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_dtype(name) != module.DataType.FLOAT:
            raise UserError(
                f"{name} of the engine is {engine.get_tensor_dtype(name)}", expected="float32"
            )
        is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
        (takes if is_input else gives).append(name)
    return takes, gives


def _first_input(engine: Any) -> str:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return str(next(name for name in names if engine.get_tensor_mode(name).name == "INPUT"))


def _release(cuda: Any, memory: Memory, stream: Any) -> None:
    memory.free()
    cuda.cudaStreamDestroy(stream)
