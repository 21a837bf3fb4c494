"""The precisions that a layer and a float product may have."""

from __future__ import annotations

from typing import Literal

# ``half`` is what the backend has of 16 bits: bf16 in libeosfm, fp16 or bf16 in TensorRT, and fp32
# in ONNX Runtime on a CPU, which has neither.
LayerPrecision = Literal["fp32", "half", "int8"]
FloatPrecision = Literal["fp32", "fp16", "bf16"]
