"""The first GPU, as its driver describes it: no CUDA toolkit and no Python package is needed."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from eosfm_edge.engines.cuda import Gpu
from eosfm_edge.errors import UserError

DRIVER = "libcuda.so.1"
# Of a device: https://docs.nvidia.com/cuda/cuda-driver-api/, CUdevice_attribute.
_MAJOR, _MINOR = 75, 76


def first_gpu(driver: str | Path = DRIVER) -> Gpu:
    """Return the first GPU; its ``cuda`` is the newest CUDA that the driver knows.

    Args:
        driver: the driver's library.

    Raises:
        UserError: there is no driver, or no GPU that it can use.
    """
    try:
        cuda = ctypes.CDLL(str(driver))
    except OSError as error:
        raise UserError(
            f"NVIDIA's driver cannot be loaded: {error}", expected="an NVIDIA GPU and its driver"
        ) from error
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(cuda, "cuInit", 0)
    _check(cuda, "cuDriverGetVersion", ctypes.byref(version))
    _check(cuda, "cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise UserError("NVIDIA's driver sees no GPU", expected="an NVIDIA GPU")
    _check(cuda, "cuDeviceGet", ctypes.byref(device), 0)
    name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(cuda, "cuDeviceGetName", name, len(name), device)
    _check(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    _check(cuda, "cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
    _check(cuda, "cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
    return Gpu(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{major.value}.{minor.value}",
        memory=memory.value,
        cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


def _check(cuda: ctypes.CDLL, function: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        UserError: it fails.
    """
    code = getattr(cuda, function)(*arguments)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorString(code, ctypes.byref(text))
        reason = text.value.decode() if text.value else f"error {code}"
        raise UserError(
            f"NVIDIA's driver cannot be used: {function}: {reason}",
            expected="an NVIDIA GPU and its driver",
        )
