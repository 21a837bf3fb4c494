"""ConvNeXtV2 encoders from timm: building one, and knowing one by its tensors.

Woo et al., ConvNeXt V2, CVPR 2023, https://arxiv.org/abs/2301.00808; timm's
``features_only`` models return the four stages' outputs, strides 4, 8, 16 and 32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, cast

import timm
import torch
from pydantic import ValidationError
from timm.layers.mlp import GlobalResponseNormMlp
from torch import Tensor, nn

from eosfm_edge.ensemble.view import EncoderView
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import Shape, SpecialistSpec

# timm's name: (blocks per stage, channels per stage)
ARCHITECTURES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "convnextv2_atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "convnextv2_femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "convnextv2_pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "convnextv2_nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "convnextv2_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "convnextv2_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "convnextv2_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "convnextv2_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "convnextv2_huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}


def build_encoder(backbone: str, in_chans: int, shape: Shape | None = None) -> nn.Module:
    """Build timm's feature encoder: (N, in_chans, H, W) to four maps (N, C, H/s, W/s).

    Args:
        backbone: timm's name.
        in_chans: bands.
        shape: what pruning left of it, if it was pruned.

    Raises:
        UserError: the backbone is not known, or the shape is not of it.
    """
    if backbone not in ARCHITECTURES:
        raise UserError(
            f"backbone {backbone!r} is not known", expected=f"one of {', '.join(ARCHITECTURES)}"
        )
    depths, full = ARCHITECTURES[backbone]
    dims: dict[str, Any] = {} if shape is None else {"dims": shape.widths}
    encoder: nn.Module = timm.create_model(
        backbone, pretrained=False, features_only=True, in_chans=in_chans, **dims
    )
    if shape is not None:
        _require_part_of(shape, backbone, depths, full)
        for stage, hidden in enumerate(shape.hidden):
            for block, channels in zip(_blocks_of(encoder, stage), hidden, strict=True):
                _set_hidden(block, channels)
    return encoder


def _require_part_of(
    shape: Shape, backbone: str, depths: tuple[int, ...], full: tuple[int, ...]
) -> None:
    found = tuple(len(hidden) for hidden in shape.hidden)
    if found != depths:
        raise UserError(
            f"the shape of a pruned {backbone} has {found} blocks", expected=f"{depths}"
        )
    if any(width > most for width, most in zip(shape.widths, full, strict=True)):
        raise UserError(
            f"the shape of a pruned {backbone} has widths {shape.widths}",
            expected=f"at most {full}",
        )


def _blocks_of(encoder: nn.Module, stage: int) -> Any:
    return getattr(encoder, f"stages_{stage}").blocks


def _set_hidden(block: Any, channels: int) -> None:
    fc1 = block.mlp.fc1
    convolutional = isinstance(fc1, nn.Conv2d)
    width = fc1.weight.shape[1]
    block.mlp = GlobalResponseNormMlp(width, channels, use_conv=convolutional)
    # As timm starts a whole encoder: a layer of torch's own start has random biases.
    for layer in (block.mlp.fc1, block.mlp.fc2):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)


def shape_of(encoder: nn.Module) -> Shape:
    """Return the channels of an encoder."""
    levels = range(4)
    return Shape(
        widths=tuple(_blocks_of(encoder, s)[0].conv_dw.weight.shape[0] for s in levels),
        hidden=tuple(
            tuple(b.mlp.fc1.weight.shape[0] for b in _blocks_of(encoder, s)) for s in levels
        ),
    )


def view_of(encoder: nn.Module) -> EncoderView:
    """Return the view of an encoder."""
    return EncoderView(encoder.get_parameter("stem_0.weight").shape[1], shape_of(encoder))


def full_shape(backbone: str) -> Shape:
    """Return the channels of an encoder that was not pruned."""
    depths, widths_ = ARCHITECTURES[backbone]
    hidden = tuple((4 * width,) * depth for depth, width in zip(depths, widths_, strict=True))
    return Shape(widths=widths_, hidden=hidden)


def widths(specialist: SpecialistSpec) -> tuple[int, ...]:
    """Return the channels of each level."""
    if specialist.shape is not None:
        return specialist.shape.widths
    return ARCHITECTURES[specialist.backbone][1]


def backbone_from_config(name: object, where: str) -> str:
    """Return timm's name from the reference's ``timm_convnextv2_atto.fcmae`` and the like.

    Raises:
        UserError: it is no ConvNeXtV2; names ``where`` (file and place in it).
    """
    plain = str(name).removeprefix("timm_").split(".")[0]
    if plain not in ARCHITECTURES:
        raise UserError(
            f"{where}: backbone {name!r} is not supported",
            expected=f"'timm_' and one of {', '.join(ARCHITECTURES)}",
        )
    return plain


@dataclass(frozen=True)
class Recognised:
    """An encoder known by its tensors; ``shape`` is what pruning left, None if all is there."""

    backbone: str
    in_chans: int
    shape: Shape | None = None


def recognise(state: Mapping[str, Tensor], backbone: str | None = None) -> Recognised | None:
    """Return which encoder a state is of, pruned ones too, or None if it fits none.

    Args:
        state: its tensors, by timm's names.
        backbone: what it was before it was pruned, if somebody says so.
    """
    stem = state.get("stem_0.weight")
    if stem is None or stem.ndim != 4:
        return None
    widths_: dict[tuple[int, int], int] = {}
    hidden: dict[tuple[int, int], int] = {}
    for key, value in state.items():
        match = re.fullmatch(r"stages_(\d)\.blocks\.(\d+)\.(conv_dw|mlp\.fc1)\.weight", key)
        if match and value.ndim in (2, 4):
            found = hidden if match[3] == "mlp.fc1" else widths_
            found[int(match[1]), int(match[2])] = value.shape[0]
    depths = tuple(sum(1 for stage, _ in widths_ if stage == s) for s in range(4))
    channels = tuple(widths_.get((s, 0), 0) for s in range(4))
    for name, architecture in ARCHITECTURES.items():
        if architecture == (depths, channels):
            full = full_shape(name)
            shape = _shape_of_blocks(depths, channels, hidden)
            pruned = shape is not None and shape != full and _is_part(shape, full)
            return Recognised(name, stem.shape[1], shape if pruned else None)
    shape = _shape_of_blocks(depths, channels, hidden)
    if shape is None:
        return None
    could_be = [name for name, (of_each_stage, _) in ARCHITECTURES.items()
                if of_each_stage == depths and _is_part(shape, full_shape(name))]  # fmt: skip
    if not could_be:
        return None
    smallest = could_be[0]
    return Recognised(backbone if backbone in could_be else smallest, stem.shape[1], shape)


def _shape_of_blocks(
    depths: tuple[int, ...], channels: tuple[int, ...], hidden: Mapping[tuple[int, int], int]
) -> Shape | None:
    try:
        return Shape(
            widths=cast(Any, channels),
            hidden=tuple(
                tuple(hidden[stage, block] for block in range(depth))
                for stage, depth in enumerate(depths)
            ),
        )
    except (KeyError, ValidationError):
        return None  # a block is missing, or has a number of channels that pruning leaves never


def _is_part(shape: Shape, full: Shape) -> bool:
    """Return whether pruning could have left a shape."""
    mine = (*shape.widths, *(n for stage in shape.hidden for n in stage))
    all_of_it = (*full.widths, *(n for stage in full.hidden for n in stage))
    return all(n <= most for n, most in zip(mine, all_of_it, strict=True))


def with_dimensions_of(
    state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Return an encoder's tensors with the dimensions of 1 that its layers want.

    The products of a block are convolutions in some ConvNeXtV2 and linear layers in others, and
    GRN's parameters are written with three dimensions of 1 before theirs: the numbers are equal.
    """
    return {
        key: value.reshape(expected[key])
        if ".mlp." in key
        and key in expected
        and [n for n in value.shape if n != 1] == [n for n in expected[key] if n != 1]
        else value
        for key, value in state.items()
    }


@cache
def expected_shapes(
    backbone: str, in_chans: int, shape: Shape | None = None
) -> Mapping[str, torch.Size]:
    """Return the shape of every tensor of an encoder, without making the tensors.

    Building one takes a second, and the specialists of an ensemble are often alike.
    """
    with torch.device("meta"):
        state = build_encoder(backbone, in_chans, shape).state_dict()
    return MappingProxyType({key: value.shape for key, value in state.items()})
