"""Encoders of equal shape computed together: their layers are one, with a leading axis of members.

Matrices become batched products and depthwise convolutions grouped ones over all members' channels,
so that a GPU is filled by one launch instead of one for each member. Values are those of the
encoders by themselves, and each layer keeps the precision that it has in each member: one that is
int8 in some of them and half in others is two products.

Hidden widths may differ, as after pruning: the narrower are padded with channels that are zero and
stay so. A block then costs as if all its members were as wide as the widest: the example
specialists, pruned to half, have a quarter more to multiply and a fifth more weights. Stems take
different bands and are a hundredth of the work: each is on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosfm_edge.errors import UserError
from eosfm_edge.formats.precision import FloatPrecision
from eosfm_edge.network.deployed import (
    NORM_EPSILON,
    Block,
    Dense,
    DeployedEncoder,
    Depthwise,
    Downsample,
    Form,
    Layer,
    Stem,
    patches,
    to_type,
)

Part = TypeVar("Part", bound=Layer)
Key = TypeVar("Key")
Shape = tuple[tuple[int, int], ...]


def shape_of_stack(encoder: DeployedEncoder) -> Shape:
    """Return what encoders must have in common to be stacked: blocks and channels of each stage."""
    return tuple(zip(encoder.view.depths, encoder.view.shape.widths, strict=True))


class StackedEncoders(nn.Module):
    """Encoders of equal shape and form, each on an image of its own, all of one size.

    Between layers, values are (K, N, H, W, C) for K encoders.

    Raises:
        UserError: a matrix is int8 in a form with a zero point, which would differ between members.
    """

    def __init__(self, encoders: Sequence[DeployedEncoder]) -> None:
        super().__init__()
        (form,) = {encoder.form for encoder in encoders}
        _require_symmetric(encoders, form)
        self.form = form
        self.stems = nn.ModuleList([encoder.stem for encoder in encoders])
        self.stages = nn.ModuleList()
        for index in range(len(encoders[0].stages)):
            members: list[Any] = [encoder.stages[index] for encoder in encoders]
            entries = [stage[0] for stage in members]
            steps: list[nn.Module] = [] if index == 0 else [_Downsample(entries, form)]
            steps += [_Block(blocks, form) for blocks in zip(*map(_blocks, members), strict=True)]
            self.stages.append(nn.ModuleList(steps))
        self.eval()

    def forward(self, images: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return each encoder's four levels (N, C, H / s, W / s) of its image (N, bands, H, W)."""
        stems: Any = zip(self.stems, images, strict=True)
        x = torch.stack([stem(image, self.form).permute(0, 2, 3, 1) for stem, image in stems])
        levels: list[list[Tensor]] = [[] for _ in self.stems]
        for stage in self.stages:
            for step in stage:  # type: ignore[attr-defined]
                x = step(x)
            # The exporter loses track of channels behind an open batch whose size is given as -1.
            shape = len(levels), images[0].shape[0], *(int(size) for size in x.shape[2:])
            for mine, rows in zip(levels, x.reshape(shape).unbind(0), strict=True):
                mine.append(rows.permute(0, 3, 1, 2))
        return levels


def _require_symmetric(encoders: Sequence[DeployedEncoder], form: Form) -> None:
    layers = [layer for encoder in encoders for layer in encoder.layers().values()]
    if any(isinstance(layer, Dense) and layer.rounded for layer in layers) and not form.symmetric:
        raise UserError(
            "specialists cannot be stacked in int8 for ONNX Runtime on a CPU",
            expected="a target with TensorRT",
            remedy="leave out --stack: a CPU gains nothing from it",
        )


def _blocks(stage: Any) -> list[Block]:
    return [module for module in stage if not isinstance(module, Stem | Downsample)]


class _Block(nn.Module):
    """ConvNeXtV2 blocks, (K, N, H, W, C) to the same."""

    grn: Tensor
    widths: Tensor

    def __init__(self, blocks: Sequence[Block], form: Form) -> None:
        super().__init__()
        self.form = form
        self.conv_dw = _Depthwise([block.conv_dw for block in blocks], form)
        widths = [block.fc1.weight.shape[1] for block in blocks]
        hidden = max(widths)
        self.fc1 = _Dense([block.fc1 for block in blocks], form, outputs=hidden)
        self.fc2 = _Dense([block.fc2 for block in blocks], form, inputs=hidden)
        # Without GRN the factor is 1, as it is of padded channels.
        self.exact = any(not block.grn.static for block in blocks)
        grn = [b.grn.weight * (0.0 if b.grn.static else 1.0) for b in blocks]
        self.register_buffer("grn", _joined(grn, hidden))
        self.register_buffer("widths", torch.tensor(widths).float().reshape(-1, 1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add to images what the MLPs make of their convolutions."""
        rows: Tensor = self.fc1(self.fc1.prepared(_normed(self.conv_dw(x))))
        hidden = functional.gelu(rows)
        hidden = to_type(self.form.cast(hidden, self.form.products), torch.float32)
        added: Tensor = self.fc2(self.fc2.prepared(hidden, self._factor(hidden)))
        return x + added

    def _factor(self, hidden: Tensor) -> Tensor | None:
        """Return what GRN multiplies by; channels that are padded are not in its mean."""
        if not self.exact:
            return None
        norms = hidden.square().sum((2, 3), keepdim=True).sqrt()
        mean = norms.sum(-1, keepdim=True) / self.widths
        return 1 + self.grn * (norms / (mean + NORM_EPSILON))


class _Downsample(nn.Module):
    """Layer norms and 2x2 convolutions, (K, N, H, W, C) to (K, N, H / 2, W / 2, C')."""

    def __init__(self, entries: Sequence[Downsample], form: Form) -> None:
        super().__init__()
        self.entry = _Dense([entry.entry for entry in entries], form)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and convolve."""
        members, _, h, w, c = (int(size) for size in x.shape)
        rows = patches(_normed(x).reshape(-1, h, w, c))
        rows = rows.reshape(members, -1, h // 2, w // 2, 4 * c)
        out: Tensor = self.entry(self.entry.prepared(rows))
        return out


def _normed(rows: Tensor) -> Tensor:
    return functional.layer_norm(rows, [int(rows.shape[-1])], None, None, NORM_EPSILON)


class _Dense(nn.Module):
    """Matrices: rows (K, N, H, W, inputs) to (K, N, H, W, outputs), fp32 at both ends.

    Members of one precision are one batched product. Inputs of int8 members are divided by their
    own scales before they are rounded, so that there is one scale for all, which is 1, and products
    of integers are multiplied by what they stand for.
    """

    gain: Tensor
    offset: Tensor
    bias: Tensor

    def __init__(
        self, layers: Sequence[Dense], form: Form, inputs: int = 0, outputs: int = 0
    ) -> None:
        super().__init__()
        inputs = inputs or layers[0].weight.shape[0]
        outputs = outputs or layers[0].weight.shape[1]
        gains = [_gain(layer) for layer in layers]
        offsets = [
            layer.offset(form) / layer.rounded.inputs.scale if layer.rounded else 0.0
            for layer in layers
        ]
        self.rounds = any(layer.rounded for layer in layers)
        self.register_buffer("gain", _joined(gains, inputs, fill=1.0))
        self.register_buffer("offset", torch.tensor(offsets).reshape(-1, 1, 1, 1, 1))
        self.register_buffer("bias", _joined([la.shifted_bias(form) for la in layers], outputs))
        self.groups = _Groups(
            layers,
            lambda layer: layer.precision,
            lambda part: _Product(part, form, inputs, outputs),
        )

    def prepared(self, rows: Tensor, factor: Tensor | None = None) -> Tensor:
        """Multiply rows by a factor, and bring what is int8 to the range of integers."""
        if not self.rounds:
            return rows if factor is None else rows * factor
        return rows * (self.gain if factor is None else factor * self.gain) + self.offset

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply rows that were prepared."""
        members, _, h, w, inputs = (int(size) for size in rows.shape)
        products: Tensor = self.groups(rows.reshape(members, -1, inputs))
        return products.reshape(members, -1, h, w, self.bias.shape[-1]) + self.bias


def _gain(layer: Dense) -> Tensor:
    rounding = layer.rounded
    if rounding is None:
        return torch.ones(layer.weight.shape[0])
    return 1 / (rounding.equaliser * rounding.inputs.scale)


class _Product(nn.Module):
    """A batched product in one precision, (K, rows, inputs) to (K, rows, outputs), fp32."""

    weight: Tensor
    scale: Tensor

    def __init__(self, layers: Sequence[Dense], form: Form, inputs: int, outputs: int) -> None:
        super().__init__()
        self.form = form
        self.int8 = layers[0].precision == "int8"
        self.precision: FloatPrecision = "fp32"
        weights: list[Tensor] = [layer.weight for layer in layers]
        if self.int8:
            roundings = [layer.rounding for layer in layers if layer.rounding]
            weights = [la.int8_weight(r) for la, r in zip(layers, roundings, strict=True)]
            scales = [r.inputs.scale * r.weight_scale for r in roundings]
            self.register_buffer("scale", _joined(scales, outputs, fill=1.0)[:, 0, 0])
        elif layers[0].precision == "half":
            self.precision = form.products
        padded = [
            functional.pad(w, (0, outputs - w.shape[1], 0, inputs - w.shape[0])) for w in weights
        ]
        self.register_buffer("weight", torch.stack(padded))

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply."""
        if self.int8:
            return (_integers(rows) @ _integers(self.weight)) * self.scale
        weight = self.form.cast(self.weight, self.precision)
        products = self.form.cast(rows, self.precision) @ weight
        if self.form.rounded_products:
            products = self.form.cast(products, self.precision)
        return to_type(products, torch.float32)


def _integers(x: Tensor) -> Tensor:
    """Round to int8, whose scale is 1."""
    return torch.fake_quantize_per_tensor_affine(x, 1.0, 0, -128, 127)


class _Depthwise(nn.Module):
    """7x7 depthwise convolutions, (K, N, H, W, C) to the same, fp32 at both ends."""

    def __init__(self, layers: Sequence[Depthwise], form: Form) -> None:
        super().__init__()

        def precision(layer: Depthwise) -> str:
            if layer.precision == "int8" and form.depthwise:
                return "int8"
            return "fp32" if layer.precision == "fp32" else form.convolutions

        self.groups = _Groups(
            layers, precision, lambda part: _Convolution(part, form, precision(part[0]))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        out: Tensor = self.groups(x)
        return out


class _Convolution(nn.Module):
    """Depthwise convolutions in one precision as a grouped one, (K, N, H, W, C) to the same, fp32.

    In int8 inputs are divided by their scales and so are outputs, so that all have the scale 1;
    each channel's weights have one that takes both in.
    """

    kernel: Tensor
    bias: Tensor
    gain: Tensor
    outputs: Tensor
    scale: Tensor

    def __init__(self, layers: Sequence[Depthwise], form: Form, precision: str) -> None:
        super().__init__()
        self.form = form
        self.int8 = precision == "int8"
        self.precision: FloatPrecision = "fp32" if precision == "fp32" else form.convolutions
        kernels: list[Tensor] = [layer.weight for layer in layers]
        biases: list[Tensor] = [layer.bias for layer in layers]
        if self.int8:
            parts = [_in_integers(layer) for layer in layers]
            kernels, biases = [p.kernel for p in parts], [p.bias for p in parts]
            self.register_buffer("gain", _joined([p.gain for p in parts], len(biases[0])))
            self.register_buffer("outputs", _joined([p.outputs for p in parts], 1))
            self.register_buffer("scale", torch.cat([p.scale for p in parts]))
        self.register_buffer("kernel", torch.cat([k.T for k in kernels]).reshape(-1, 1, 7, 7))
        self.register_buffer("bias", torch.cat(biases))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if self.int8:
            zero = torch.zeros(len(self.kernel), dtype=torch.int32)
            kernel = torch.fake_quantize_per_channel_affine(
                self.kernel, self.scale, zero, 0, -128, 127
            )
            y = self._convolve(_integers(x * self.gain), kernel, self.bias)
            return _integers(y) * self.outputs
        operands = [self.form.cast(each, self.precision) for each in (x, self.kernel, self.bias)]
        return to_type(self.form.cast(self._convolve(*operands), self.precision), torch.float32)

    @staticmethod
    def _convolve(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        members, _, h, w, c = (int(size) for size in x.shape)
        channels = members * c
        # Channels stay last on both sides, as TensorRT's convolutions have them.
        flat = x.permute(1, 2, 3, 0, 4).reshape(-1, h, w, channels).permute(0, 3, 1, 2)
        y = functional.conv2d(flat, kernel, bias, padding=3, groups=channels)
        return y.permute(0, 2, 3, 1).reshape(-1, h, w, members, c).permute(3, 0, 1, 2, 4)


@dataclass(frozen=True)
class _Integers:
    """A depthwise convolution from integers to integers.

    Attributes:
        gain: (C,), what inputs are multiplied by before they are rounded.
        kernel: (49, C), a multiple of ``scale``.
        scale: (C,).
        bias: (C,).
        outputs: (1,), what outputs are multiplied by after they are rounded.
    """

    gain: Tensor
    kernel: Tensor
    scale: Tensor
    bias: Tensor
    outputs: Tensor


def _in_integers(layer: Depthwise) -> _Integers:
    rounding = layer.rounding
    assert rounding is not None and rounding.outputs is not None
    outputs = rounding.outputs.scale
    scale = rounding.weight_scale * rounding.inputs.scale / outputs
    equalised = layer.weight * rounding.equaliser
    integers = (equalised / rounding.weight_scale).round().clamp(-127, 127)
    return _Integers(
        gain=1 / (rounding.equaliser * rounding.inputs.scale),
        kernel=integers * scale,
        scale=scale,
        bias=layer.bias / outputs,
        outputs=torch.tensor([outputs]),
    )


class _Groups(nn.Module):
    """Members in groups that are computed together: those of one precision."""

    def __init__(
        self,
        layers: Sequence[Part],
        key: Callable[[Part], Key],
        make: Callable[[Sequence[Part]], nn.Module],
    ) -> None:
        super().__init__()
        keys = [key(layer) for layer in layers]
        self.places = [
            [place for place, mine in enumerate(keys) if mine == one] for one in dict.fromkeys(keys)
        ]
        self.parts = nn.ModuleList(
            [make([layers[place] for place in places]) for places in self.places]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute every group of x (K, ...), and put members back in their order."""
        if len(self.places) == 1:
            out: Tensor = self.parts[0](x)
            return out
        groups = zip(self.parts, self.places, strict=True)
        joined = torch.cat([part(x[places]) for part, places in groups])
        order = [place for places in self.places for place in places]
        return joined[[order.index(place) for place in range(len(order))]]


def _joined(vectors: Sequence[Tensor], width: int, fill: float = 0.0) -> Tensor:
    """Return vectors (C,), padded to a width, as (K, 1, 1, 1, width)."""
    padded = [functional.pad(vector, (0, width - len(vector)), value=fill) for vector in vectors]
    return torch.stack(padded)[:, None, None, None]
