"""Stand-ins for a GPU: CUDA's runtime in ordinary memory, and a TensorRT that runs ONNX.

They answer as the real ones do, and complain of what those would crash at. An engine of theirs is
an ONNX graph, serialised.
"""

# ruff: noqa: N802, N815 (the names are CUDA's and TensorRT's)

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

Call = Callable[[], None]


class CudaError(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35


class CopyKind(Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class Cuda:
    """``cuda.bindings.runtime``.

    Attributes:
        allocated: bytes, by address.
        launched: how often a captured graph was.
    """

    cudaError_t = CudaError
    cudaMemcpyKind = CopyKind
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, capability: str | None = "8.9", room: int = 1 << 30) -> None:
        self.capability, self.room = capability, room
        self.allocated: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.capturing: list[Call] | None = None
        self.launched = 0
        self.driver = 13010

    def cudaGetErrorString(self, error: CudaError) -> tuple[CudaError, bytes]:
        return CudaError.cudaSuccess, error.name.encode()

    def cudaGetDeviceCount(self) -> tuple[CudaError, int | None]:
        if self.capability is None:
            return CudaError.cudaErrorInsufficientDriver, None
        return CudaError.cudaSuccess, 1

    def cudaGetDeviceProperties(self, device: int) -> tuple[CudaError, Any]:
        assert self.capability and device == 0
        major, minor = map(int, self.capability.split("."))
        found = SimpleNamespace(name=b"A GPU", major=major, minor=minor, totalGlobalMem=self.room)
        return CudaError.cudaSuccess, found

    def cudaRuntimeGetVersion(self) -> tuple[CudaError, int]:
        return CudaError.cudaSuccess, 13000

    def cudaDriverGetVersion(self) -> tuple[CudaError, int]:
        return CudaError.cudaSuccess, self.driver

    def cudaMalloc(self, size: int) -> tuple[CudaError, int | None]:
        if size + sum(map(len, self.allocated.values())) > self.room:
            return CudaError.cudaErrorMemoryAllocation, None
        memory = (ctypes.c_char * size)()
        ctypes.memset(memory, 0xFF, size)  # not a number, until something is written
        self.allocated[ctypes.addressof(memory)] = memory
        return CudaError.cudaSuccess, ctypes.addressof(memory)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> tuple[CudaError]:
        del self.allocated[address]
        return (CudaError.cudaSuccess,)

    cudaFreeHost = cudaFree

    def cudaStreamCreate(self) -> tuple[CudaError, int]:
        self.streams.add(7)
        return CudaError.cudaSuccess, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[CudaError]:
        self.streams.remove(stream)
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[CudaError]:
        assert stream in self.streams and self.capturing is None, "not while capturing"
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: CopyKind, stream: int
    ) -> tuple[CudaError]:
        assert stream in self.streams
        for address in (to, source):
            assert size <= len(self.allocated[address])
        self.do(lambda: ctypes.memmove(to, source, size) and None)
        return (CudaError.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[CudaError]:
        assert stream in self.streams and self.capturing is None
        self.capturing = []
        return (CudaError.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[CudaError, list[Call]]:
        assert self.capturing is not None
        calls, self.capturing = self.capturing, None
        return CudaError.cudaSuccess, calls

    def cudaGraphInstantiate(self, graph: list[Call], flags: int) -> tuple[CudaError, Any]:
        return CudaError.cudaSuccess, graph

    def cudaGraphLaunch(self, graph: list[Call], stream: int) -> tuple[CudaError]:
        self.launched += 1
        for call in graph:
            call()
        return (CudaError.cudaSuccess,)

    def do(self, call: Call) -> None:
        """Do something on the stream: now, or whenever what is captured is launched."""
        if self.capturing is None:
            call()
        else:
            self.capturing.append(call)

    def tensor(self, address: int, shape: tuple[int, ...]) -> Any:
        """Return what lies at an address as float32."""
        memory = self.allocated[address]
        count = int(np.prod(shape))
        assert 4 * count <= len(memory)
        return np.frombuffer(memory, np.float32, count).reshape(shape)


class Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class TensorRt:
    """``tensorrt`` as far as engines are run by it, on a `Cuda`.

    Attributes:
        most: tiles that engines of an open batch are built for.
        off: what is added to all that engines give: another than 0 is a wrong answer.
    """

    TensorIOMode = Mode
    DataType = SimpleNamespace(FLOAT="float32")
    LayerInformationFormat = SimpleNamespace(ONELINE=0)

    class ILogger:
        ERROR = 1

        def log(self, severity: int, message: str) -> None: ...

    class IProfiler:
        def report_layer_time(self, layer_name: str, ms: float) -> None: ...

    def __init__(
        self, cuda: Cuda, version: str = "10.3.0.26", *, most: int = 4, off: float = 0.0
    ) -> None:
        self.cuda, self.most, self.off = cuda, most, off
        self.__version__ = version

    def Runtime(self, logger: Any) -> Any:
        def deserialise(engine: bytes) -> Engine | None:
            try:
                return Engine(self, engine)
            except Exception as error:
                logger.log(1, f"deserializeCudaEngine: {error}")
                return None

        return SimpleNamespace(deserialize_cuda_engine=deserialise)


class Engine:
    """``ICudaEngine``."""

    def __init__(self, tensorrt: TensorRt, graph: bytes) -> None:
        self.tensorrt = tensorrt
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.takes = {t.name: t.shape for t in self.session.get_inputs()}
        self.gives = {t.name: t.shape for t in self.session.get_outputs()}
        self.names = [*self.takes, *self.gives]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self.takes else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return "float32"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = {**self.takes, **self.gives}[name]
        return tuple(size if isinstance(size, int) else -1 for size in shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[tuple[int, ...], ...]:
        assert name in self.takes, "outputs have no profile"
        rest = self.get_tensor_shape(name)[1:]
        return tuple((batch, *rest) for batch in (1, self.tensorrt.most, self.tensorrt.most))

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> Any:
        listing = "Layers:\nName: a, LayerType: gemm, Inputs: [ { Name: x, Datatype: Half }], Out\n"
        return SimpleNamespace(get_engine_information=lambda form: listing)


class Context:
    """``IExecutionContext``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shapes = {n: s for n in engine.takes if min(s := engine.get_tensor_shape(n)) > 0}
        self.profiler: Any = None

    def set_tensor_address(self, name: str, address: int) -> None:
        assert name in self.engine.names
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert shape[0] <= self.engine.tensorrt.most
        self.shapes[name] = shape

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self.addresses) == {*self.engine.names}
        assert set(self.shapes) == {*self.engine.takes}, "an input has no shape"
        shapes = dict(self.shapes)
        self.engine.tensorrt.cuda.do(lambda: self._compute(shapes))
        return True

    def _compute(self, shapes: dict[str, tuple[int, ...]]) -> None:
        tensorrt, engine = self.engine.tensorrt, self.engine
        feeds = {
            name: tensorrt.cuda.tensor(self.addresses[name], shape).copy()
            for name, shape in shapes.items()
        }
        for name, value in zip(engine.gives, engine.session.run(None, feeds), strict=True):
            tensorrt.cuda.tensor(self.addresses[name], value.shape)[:] = value + tensorrt.off
        if self.profiler:
            self.profiler.report_layer_time("a", 0.5)
