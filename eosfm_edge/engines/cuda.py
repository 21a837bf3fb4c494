"""CUDA, by NVIDIA's bindings: the GPU at hand, memory, streams and graphs."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.extras import how_to_install


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, compute capability (``8.7``), memory in bytes, and CUDA's version there."""

    name: str
    compute_capability: str
    memory: int
    cuda: str


def cuda_runtime() -> Any:
    """Import CUDA's runtime.

    Raises:
        UserError: it is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise UserError(
            f"CUDA cannot be used from Python: {error}",
            remedy=how_to_install("cuda"),
        ) from error
    return runtime


def find_gpu(cuda: Any | None = None) -> Gpu:
    """Return the first GPU.

    Raises:
        UserError: there is none, or no driver for it.
    """
    cuda = cuda or cuda_runtime()
    error, count = cuda.cudaGetDeviceCount()
    if error != cuda.cudaError_t.cudaSuccess or not count:
        reason = cuda.cudaGetErrorString(error)[1].decode() if int(error) else "none is installed"
        raise UserError(
            f"there is no GPU that CUDA can use here: {reason}",
            expected="an NVIDIA GPU and its driver",
        )
    properties = checked(cuda, cuda.cudaGetDeviceProperties(0))
    version = checked(cuda, cuda.cudaRuntimeGetVersion())
    return Gpu(
        name=properties.name.decode(),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory=properties.totalGlobalMem,
        cuda=_dotted(version),
    )


def require_driver(cuda: Any) -> None:
    """Check that the driver is not older than CUDA's runtime, on which TensorRT stands.

    Raises:
        UserError: the driver is older; TensorRT may crash there.
    """
    driver, runtime = (
        checked(cuda, ask()) for ask in (cuda.cudaDriverGetVersion, cuda.cudaRuntimeGetVersion)
    )
    if driver // 1000 < runtime // 1000:
        raise UserError(
            f"the GPU's driver is for CUDA {_dotted(driver)}",
            expected=f"CUDA {_dotted(runtime)} or later",
            remedy="update the driver, or install a TensorRT for its CUDA",
        )


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def checked(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """Return what a call gave.

    Raises:
        UserError: it failed.
    """
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        reason = cuda.cudaGetErrorString(error)[1].decode()
        raise UserError(f"CUDA failed: {reason}", remedy="see whether the GPU has memory left")
    return values[0] if values else None


@dataclass(frozen=True)
class Buffer:
    """A float32 tensor: on the GPU, and where it is copied from or to, pinned."""

    device: int
    host: NDArray[np.float32] | None
    shape: tuple[int, ...]


class Memory:
    """Allocates buffers once, and frees all of them together."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._device: list[int] = []
        self._host: list[int] = []

    def buffer(self, shape: tuple[int, ...], *, copied: bool) -> Buffer:
        """Allocate a tensor; ``copied`` if the host gives or takes it."""
        size = 4 * int(np.prod(shape))
        device = int(checked(self._cuda, self._cuda.cudaMalloc(size)))
        self._device.append(device)
        if not copied:
            return Buffer(device, None, shape)
        pinned = int(checked(self._cuda, self._cuda.cudaMallocHost(size)))
        self._host.append(pinned)
        values = (ctypes.c_float * (size // 4)).from_address(pinned)
        return Buffer(device, np.ctypeslib.as_array(values).reshape(shape), shape)

    def free(self) -> None:
        """Free everything; what is freed already stays so."""
        while self._device:
            self._cuda.cudaFree(self._device.pop())
        while self._host:
            self._cuda.cudaFreeHost(self._host.pop())
