"""The names of who may compute a bundle, as ``--backend`` takes them and reports give them."""

from __future__ import annotations

from typing import Literal, get_args

# These compute on any machine: export checks a bundle on both.
CpuBackend = Literal["native", "onnxruntime"]
Backend = Literal[CpuBackend, "cuda", "onnxruntime-cuda", "tensorrt"]
# ``auto`` is the fastest that gives the known answer.
BackendChoice = Literal[Backend, "auto"]

CPU_BACKENDS: tuple[CpuBackend, ...] = get_args(CpuBackend)
BACKENDS: tuple[Backend, ...] = get_args(Backend)
# What they compute from: libeosfm's files of the specialists, or ONNX graphs.
Source = Literal["native", "onnx"]
SOURCES: dict[str, Source] = {
    "native": "native",
    "cuda": "native",
    "onnxruntime": "onnx",
    "onnxruntime-cuda": "onnx",
    "tensorrt": "onnx",
}
# Who computes a scene when a backend that needs a GPU cannot be used.
LADDERS: dict[str, tuple[Backend, ...]] = {
    "tensorrt": ("tensorrt", "onnxruntime-cuda", "native"),
    "onnxruntime-cuda": ("onnxruntime-cuda", "native"),
    "cuda": ("cuda", "native"),
}
