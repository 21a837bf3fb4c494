"""The precisions: of a bundle, of a layer in it, of a float product, of a device's units."""

from __future__ import annotations

from typing import Literal

FloatPrecision = Literal["fp32", "fp16", "bf16"]
# What a bundle is asked for. libeosfm has bf16 for fp16, and ONNX Runtime on a CPU fp32 for both.
Precision = Literal[FloatPrecision, "int8"]
# What a device has units for; eosfm-edge exports all but fp8.
DevicePrecision = Literal[Precision, "fp8"]
# What a layer is computed in. ``half`` is what the engine has of 16 bits: bf16 in libeosfm, fp16 or
# bf16 in TensorRT, and fp32 in ONNX Runtime on a CPU, which has neither.
LayerPrecision = Literal["fp32", "half", "int8"]
