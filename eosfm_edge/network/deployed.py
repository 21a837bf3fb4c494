"""An encoder in the form that is deployed: affine parts folded, and rounding where it happens.

The same network is measured on when int8 is calibrated and traced when ONNX is written: what the
exported graph computes is what was measured. Images are (N, C, H, W) between blocks, and rows of
channels (N, H, W, C) inside them, where fc1 and fc2 are matrix products.

Scales of inputs move across the norms before fc1 and fc2: Xiao et al., SmoothQuant,
arXiv:2211.10438.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosfm_edge.formats.precision import FloatPrecision, LayerPrecision
from eosfm_edge.network.folding import Matrix, fold
from eosfm_edge.network.rounding import Rounding, rounded_weight

NORM_EPSILON = 1e-6
FLOATS: dict[FloatPrecision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def to_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor as a type; one that is of it leaves no Cast in a traced graph."""
    return x if x.dtype == dtype else x.to(dtype)


@dataclass(frozen=True)
class Form:
    """The arithmetic of a deployed network.

    Layer norms, GELU, GRN (global response normalisation, whose squares overflow fp16), the stem
    and the sums of blocks and their inputs are fp32 in every form.

    Attributes:
        products: what half is: the precision of half matrices, and of all hidden tensors.
        convolutions: the precision of half depthwise convolutions.
        symmetric: int8 activations are signed and have no zero point, as TensorRT wants it. They
            are shifted by a constant instead, which the norm before them adds for nothing and the
            bias behind takes away: the integers are those of the unsigned form less 128.
        depthwise: depthwise convolutions may be int8.
        rounded_products: a half matrix gives its products in its own precision, and the bias is
            added to those, as with ONNX's MatMul. libeosfm adds it to the sums in fp32.
        emulated: values are rounded to a precision and computed with in fp32, instead of in it.
    """

    products: FloatPrecision = "fp32"
    convolutions: FloatPrecision = "fp32"
    symmetric: bool = False
    depthwise: bool = False
    rounded_products: bool = False
    emulated: bool = True

    def cast(self, x: Tensor, precision: FloatPrecision) -> Tensor:
        """Return a tensor in a precision, or rounded to it."""
        rounded = to_type(x, FLOATS[precision])
        return to_type(rounded, torch.float32) if self.emulated else rounded


# libeosfm's: convolutions are fp32, what is not int8 may be bf16.
NATIVE = Form(products="bf16")
# ONNX Runtime's on a CPU, which has no bf16.
CPU = Form()
# TensorRT keeps the types of the graph: engines that TensorRT-RTX builds of it list halves as the
# outputs of fc1's products, and the next kernel adds the bias in fp32.
TENSORRT = Form(
    products="fp16", convolutions="fp16", symmetric=True, depthwise=True, rounded_products=True
)


Watch = Callable[[Tensor], None]


class Layer(nn.Module):
    """A matrix or depthwise convolution, and how it is rounded.

    Attributes:
        weight: (inputs, outputs), or (49, channels) of a depthwise convolution.
        bias: (outputs,).
        precision: of its product; int8 needs ``rounding``.
        rounding: its scales, None before they are known.
        watch: called with its inputs (..., inputs) before they are rounded, but divided and
            shifted.
        watch_output: of a depthwise convolution: called with (N, H, W, C) before it is rounded.
    """

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, matrix: Matrix) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(matrix.weight).clone(), requires_grad=False)
        self.bias = nn.Parameter(torch.from_numpy(matrix.bias).clone(), requires_grad=False)
        self.precision: LayerPrecision = "fp32"
        self.rounding: Rounding | None = None
        self.watch: Watch | None = None
        self.watch_output: Watch | None = None

    @property
    def rounded(self) -> Rounding | None:
        """The scales, if the layer is int8."""
        if self.precision != "int8":
            return None
        if self.rounding is None:
            raise ValueError("an int8 layer has no scales")
        return self.rounding


class Dense(Layer):
    """A matrix: rows (..., inputs) to rows (..., outputs), fp32 at both ends.

    The norm that lies before it applies ``gain`` and ``offset`` for it.
    """

    def gain(self) -> Tensor | None:
        """Return what the norm before multiplies by, (inputs,); None is 1."""
        return 1 / self.rounded.equaliser if self.rounded else None

    def offset(self, form: Form) -> float:
        """Return what the norm before adds."""
        return -self.rounded.inputs.shift if self.rounded and form.symmetric else 0.0

    def int8_weight(self, rounding: Rounding) -> Tensor:
        """Return the int8 weights (inputs, outputs) as float32 integers."""
        equalised = self.weight * rounding.equaliser[:, None]
        return (equalised / rounding.weight_scale).round().clamp(-127, 127)

    def operands(self, rows: Tensor, form: Form) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is multiplied, (..., inputs) and (inputs, outputs), and then added."""
        rounding = self.rounded
        if rounding is None:
            precision: FloatPrecision = "fp32" if self.precision == "fp32" else form.products
            return form.cast(rows, precision), form.cast(self.weight, precision), self.bias
        equalised = self.weight * rounding.equaliser[:, None]
        weight = rounded_weight(equalised, rounding.weight_scale)
        rounded = rounding.inputs.rounded(rows, symmetric=form.symmetric)
        return rounded, weight, self.shifted_bias(form)

    def shifted_bias(self, form: Form) -> Tensor:
        """Return the bias, and what the norm before has subtracted for the product (outputs,)."""
        rounding = self.rounded
        if rounding is None or not form.symmetric:
            return self.bias
        integers = self.int8_weight(rounding).sum(0)
        return self.bias + rounding.inputs.shift * rounding.weight_scale * integers

    def forward(self, rows: Tensor, form: Form) -> Tensor:
        """Multiply fp32 rows that the norm before has divided and shifted."""
        if self.watch:
            self.watch(rows)
        rows, weight, bias = self.operands(rows, form)
        products = rows @ weight
        if form.rounded_products and self.precision == "half":
            products = form.cast(products, form.products)
        return to_type(products, torch.float32) + bias


class Depthwise(Layer):
    """A 7x7 depthwise convolution, (N, C, H, W) to the same, fp32 at both ends."""

    def forward(self, x: Tensor, form: Form) -> Tensor:
        """Convolve, in int8 only if the form has depthwise convolutions in int8."""
        if self.watch:
            self.watch(x.permute(0, 2, 3, 1))
        rounding = self.rounded if form.depthwise else None
        if rounding is None:
            whole = self.precision == "fp32"
            precision: FloatPrecision = "fp32" if whole else form.convolutions
            kernel, bias = form.cast(self.weight, precision), form.cast(self.bias, precision)
            y = self._convolve(form.cast(x, precision), kernel, bias)
            y = to_type(form.cast(y, precision), torch.float32)
            if self.watch_output:
                self.watch_output(y.permute(0, 2, 3, 1))
            return y
        # Padding must be a level: there is no shift here, and the levels lie around zero.
        divided = rounding.inputs.rounded(x / rounding.equaliser[:, None, None], symmetric=True)
        equalised = self.weight * rounding.equaliser
        kernel = rounded_weight(equalised, rounding.weight_scale)
        assert rounding.outputs is not None
        y = self._convolve(divided, kernel, self.bias)
        return rounding.outputs.rounded(y, symmetric=True)

    @staticmethod
    def _convolve(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = kernel.T.reshape(channels, 1, 7, 7)
        return functional.conv2d(x, kernel, bias, padding=3, groups=channels)


class Grn(nn.Module):
    """Global response normalisation without its bias, which is in fc2's.

    Attributes:
        weight: (hidden,).
        static: it is not there: constants are in fc2 instead.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.static = False

    def factor(self, hidden: Tensor) -> Tensor | None:
        """Return what hidden rows (N, H, W, C), fp32, are multiplied by; None is 1."""
        if self.static:
            return None
        norms = hidden.square().sum((1, 2), keepdim=True).sqrt()
        return 1 + self.weight * relative_norms(norms)


def relative_norms(norms: Tensor) -> Tensor:
    """Divide norms (..., C) of channels by their mean."""
    return norms / (norms.mean(-1, keepdim=True) + NORM_EPSILON)


class Block(nn.Module):
    """A ConvNeXtV2 block, (N, C, H, W) to the same, fp32 at both ends."""

    def __init__(self, depthwise: Depthwise, fc1: Dense, grn: Grn, fc2: Dense) -> None:
        super().__init__()
        self.conv_dw, self.fc1, self.grn, self.fc2 = depthwise, fc1, grn, fc2

    def forward(self, x: Tensor, form: Form) -> Tensor:
        """Add to an image what the MLP makes of its convolution."""
        rows = self.conv_dw(x, form).permute(0, 2, 3, 1)
        return x + self.mlp(rows, form).permute(0, 3, 1, 2)

    def mlp(self, rows: Tensor, form: Form) -> Tensor:
        """Return what the block adds to its input, (N, H, W, C), of what the convolution gave."""
        hidden = to_type(self.hidden(rows, form), torch.float32)
        factor, gain, offset = self.grn.factor(hidden), self.fc2.gain(), self.fc2.offset(form)
        if factor is not None:
            gain = factor if gain is None else factor * gain
        if gain is not None:
            hidden = hidden * gain
        if offset:
            hidden = hidden + offset
        out: Tensor = self.fc2(hidden, form)
        return out

    def hidden(self, rows: Tensor, form: Form) -> Tensor:
        """Return the hidden tensor (N, H, W, hidden) that GRN gets."""
        rows = self.fc1(normed(rows, self.fc1, form), form)
        return form.cast(functional.gelu(rows), form.products)


class Downsample(nn.Module):
    """Layer norm and a 2x2 convolution with stride 2, (N, C, H, W) to (N, C', H / 2, W / 2)."""

    def __init__(self, entry: Dense) -> None:
        super().__init__()
        self.entry = entry

    def forward(self, x: Tensor, form: Form) -> Tensor:
        """Normalise and convolve, fp32 at both ends."""
        rows = patches(normed(x.permute(0, 2, 3, 1), self.entry, form))
        out: Tensor = self.entry(rows, form)
        return out.permute(0, 3, 1, 2)


class Stem(nn.Module):
    """A 4x4 convolution with stride 4 and a layer norm, (N, bands, H, W) to (N, C, H / 4, W / 4).

    It is a hundredth of the work, and rounding its inputs, which no norm has seen, costs every
    level 15 dB even in bf16: it is fp32 in every form.
    """

    def __init__(self, entry: Matrix, norm: tuple[Tensor, Tensor], bands: int) -> None:
        super().__init__()
        kernel = torch.from_numpy(entry.weight.T.copy()).reshape(-1, bands, 4, 4)
        self.weight = nn.Parameter(kernel, requires_grad=False)
        self.bias = nn.Parameter(torch.from_numpy(entry.bias).clone(), requires_grad=False)
        self.norm_weight = nn.Parameter(norm[0], requires_grad=False)
        self.norm_bias = nn.Parameter(norm[1], requires_grad=False)

    def forward(self, x: Tensor, form: Form) -> Tensor:
        """Convolve and normalise, fp32."""
        rows = functional.conv2d(x, self.weight, self.bias, stride=4).permute(0, 2, 3, 1)
        shape = self.bias.shape
        rows = functional.layer_norm(rows, shape, self.norm_weight, self.norm_bias, NORM_EPSILON)
        return rows.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Step:
    """One module of the network.

    Attributes:
        name: as in the native engine's files: ``stages.2.blocks.4``.
        module: from (N, C, H, W) and a form to (N, C', H', W').
        stage: 0 ... 3.
        level: the level that its output is, if it ends a stage: 0 ... 3.
    """

    name: str
    module: Stem | Downsample | Block
    stage: int
    level: int | None = None


class DeployedEncoder(nn.Module):
    """An encoder made of another, (N, bands, H, W) in physical units to its four levels.

    Args:
        encoder: timm's ConvNeXtV2 feature encoder; it is not changed, and gives the same values.

    Attributes:
        view: of the encoder, which names the steps.
        form: the arithmetic.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        network = fold(encoder)
        self.form = Form()
        self.view = network.view
        self.stages = nn.ModuleList()
        norm = (torch.from_numpy(network.stem_norm[0]), torch.from_numpy(network.stem_norm[1]))
        for index, stage in enumerate(network.stages):
            entry = (
                Downsample(Dense(stage.entry))
                if index
                else Stem(stage.entry, norm, self.view.bands)
            )
            blocks = [
                Block(
                    Depthwise(Matrix(block.depthwise, block.depthwise_bias)),
                    Dense(block.fc1),
                    Grn(torch.from_numpy(block.grn)),
                    Dense(block.fc2),
                )
                for block in stage.blocks
            ]
            self.stages.append(nn.ModuleList([entry, *blocks]))
        self.eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return four levels (N, C, H / s, W / s), fp32."""
        levels = []
        x = image
        for step in self.steps():
            x = step.module(x, self.form)
            if step.level is not None:
                levels.append(x)
        return levels

    def in_form(self, form: Form) -> DeployedEncoder:
        """Return the same encoder, layers and all, as it is computed in a form."""
        other = copy.copy(self)
        other.form = form
        return other

    def steps(self) -> Iterator[Step]:
        """Give the modules in order; each takes what the one before gives."""
        modules: list[Any] = [module for stage in self.stages for module in stage]  # type: ignore[attr-defined]
        for step, module in zip(self.view.steps, modules, strict=True):
            yield Step(step.name, module, step.stage, step.level)

    @property
    def stem(self) -> Stem:
        """The first step."""
        stem = next(self.steps()).module
        assert isinstance(stem, Stem)
        return stem

    def layers(self) -> dict[str, Layer]:
        """Return the layers that may be int8, in order, by their names in the engine's files."""
        found: dict[str, Layer] = {}
        for step in self.steps():
            if isinstance(step.module, Downsample):
                found[step.name] = step.module.entry
            elif isinstance(step.module, Block):
                for part in ("conv_dw", "fc1", "fc2"):
                    found[f"{step.name}.{part}"] = getattr(step.module, part)
        return found

    def blocks(self) -> dict[str, Block]:
        """Return the blocks by name, in order."""
        return {s.name: s.module for s in self.steps() if isinstance(s.module, Block)}


def normed(rows: Tensor, layer: Dense, form: Form) -> Tensor:
    """Layer-normalise rows (..., C), fp32, and apply what the layer behind asks for."""
    channels = int(rows.shape[-1])  # a constant in a traced graph whose batch is open
    gain, offset = layer.gain(), layer.offset(form)
    # A patch of four pixels has the gain of one four times.
    weight = None if gain is None else gain[:channels]
    bias = torch.full((channels,), offset) if offset else None
    if bias is not None and weight is None:
        weight = torch.ones(channels)
    return functional.layer_norm(rows, (channels,), weight, bias, NORM_EPSILON)


def patches(rows: Tensor) -> Tensor:
    """Return patches (N, H / 2, W / 2, 4 C) of rows (N, H, W, C): pixel by pixel, then channels."""
    # The batch may be open in a traced graph, height and width are not.
    h, w, c = (int(size) for size in rows.shape[1:])
    if h % 2 or w % 2:
        # As a convolution without padding leaves the last row or column out.
        rows = rows[:, : h // 2 * 2, : w // 2 * 2]
    split = rows.reshape(-1, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return split.reshape(-1, h // 2, w // 2, 4 * c)
