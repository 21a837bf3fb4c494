"""CUDA graphs of kernels that do nothing: the least time that so many launches can take."""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

# A kernel of the engine's arguments, since the stand-in for the driver reads them.
_NOTHING = b"""
.version 7.0
.target sm_80
.address_size 64
.visible .entry nothing(.param .u64 descriptors, .param .u32 first) { ret; }
"""
_THREADS = 256
_RELAXED, _NON_BLOCKING = 2, 1


class Driver:
    """The driver, and a context of the first GPU.

    Raises:
        OSError: there is no driver.
        RuntimeError: a call failed.
    """

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver."""
        result = getattr(self._cuda, name)(*arguments)
        if result != 0:
            raise RuntimeError(f"{name} gave {result}, expected 0")

    @contextmanager
    def context(self) -> Iterator[None]:
        """Have the first GPU's primary context, which all of the process share."""
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self.call("cuCtxPopCurrent_v2", ctypes.byref(context))
            self.call("cuDevicePrimaryCtxRelease_v2", 0)

    def replay_ms(self, nodes: int, runs: int) -> float:
        """Return the median milliseconds in which a graph of empty kernels, in a row, replays.

        Args:
            nodes: kernels in the graph.
            runs: replays, each between two events.
        """
        module, function, stream = (ctypes.c_void_p() for _ in range(3))
        graph, replayed = ctypes.c_void_p(), ctypes.c_void_p()
        memory, first = ctypes.c_void_p(), ctypes.c_uint(0)
        self.call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(256))
        self.call("cuModuleLoadData", ctypes.byref(module), _NOTHING)
        self.call("cuModuleGetFunction", ctypes.byref(function), module, b"nothing")
        self.call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        arguments = (ctypes.c_void_p * 2)(
            ctypes.cast(ctypes.byref(memory), ctypes.c_void_p),
            ctypes.cast(ctypes.byref(first), ctypes.c_void_p),
        )
        self.call("cuStreamBeginCapture_v2", stream, _RELAXED)
        for _ in range(nodes):
            grid = (1, 1, 1, _THREADS, 1, 1, 0)
            self.call("cuLaunchKernel", function, *grid, stream, arguments, None)
        self.call("cuStreamEndCapture", stream, ctypes.byref(graph))
        flags = ctypes.c_ulonglong(0)
        self.call("cuGraphInstantiateWithFlags", ctypes.byref(replayed), graph, flags)
        start, stop = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(start), 0)
        self.call("cuEventCreate", ctypes.byref(stop), 0)
        times = []
        for _ in range(runs):
            elapsed = ctypes.c_float()
            self.call("cuEventRecord", start, stream)
            self.call("cuGraphLaunch", replayed, stream)
            self.call("cuEventRecord", stop, stream)
            self.call("cuStreamSynchronize", stream)
            self.call("cuEventElapsedTime", ctypes.byref(elapsed), start, stop)
            times.append(elapsed.value)
        for name, thing in (
            ("cuEventDestroy_v2", start), ("cuEventDestroy_v2", stop),
            ("cuGraphExecDestroy", replayed), ("cuGraphDestroy", graph),
            ("cuStreamDestroy_v2", stream), ("cuModuleUnload", module), ("cuMemFree_v2", memory),
        ):  # fmt: skip
            self.call(name, thing)
        return statistics.median(times)
