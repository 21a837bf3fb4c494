"""The names of who may compute a bundle, as ``--backend`` takes them."""

from __future__ import annotations

from typing import Literal, get_args

CpuBackend = Literal["native", "onnxruntime"]
Backend = Literal[CpuBackend, "cuda", "onnxruntime-cuda", "tensorrt"]
CPU_BACKENDS: tuple[CpuBackend, ...] = get_args(CpuBackend)
BACKENDS: tuple[Backend, ...] = get_args(Backend)
# These compute from the specialists' files, the others from the ONNX graphs.
WEIGHTS_BACKENDS = ("native", "cuda")
