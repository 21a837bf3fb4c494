"""Rounding to int8, as QuantizeLinear and DequantizeLinear of ONNX do it.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference, CVPR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Quantisation:
    """The meaning of 8-bit codes: value = (q - zero) * scale for q in 0 ... 255."""

    scale: float
    zero: int

    @classmethod
    def over(cls, low: float, high: float) -> Quantisation:
        """Spread the integers over a range, widened to hold zero."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / 255, 1e-12)
        return cls(scale, round(-low / scale))

    @classmethod
    def around_zero(cls, low: float, high: float) -> Quantisation:
        """Spread the integers evenly to both sides of zero, which is the middle one."""
        return cls(max(-low, high, 1e-10) / 127, 128)

    @property
    def shift(self) -> float:
        """The value subtracted so that the middle code stands for zero."""
        return (128 - self.zero) * self.scale

    def rounded(self, x: Tensor, *, symmetric: bool) -> Tensor:
        """Round values, or if ``symmetric`` values from which the shift was subtracted."""
        if symmetric:
            return torch.fake_quantize_per_tensor_affine(x, self.scale, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, 255)


@dataclass(frozen=True)
class Rounding:
    """A layer's int8 scales.

    Attributes:
        equaliser: (inputs,), what inputs are divided by before they are rounded, and the weights
            multiplied by. The four pixels of a downsampling patch have the same.
        inputs: of the divided inputs.
        weight_scale: (outputs,), of the multiplied weights, -127 ... 127.
        outputs: of a depthwise convolution, which alone has its outputs rounded.
    """

    equaliser: Tensor
    inputs: Quantisation
    weight_scale: Tensor
    outputs: Quantisation | None = None


def rounded_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """Round weights (inputs, outputs) to -127 ... 127 times a scale (outputs,) each."""
    zero = torch.zeros(len(scale), dtype=torch.int32)
    limit = 127 * scale
    clipped = weight.clamp(-limit, limit)
    return torch.fake_quantize_per_channel_affine(clipped, scale, zero, 1, -128, 127)
