"""ConvNeXtV2 encoders from timm: building one, and knowing one by its tensors.

Woo et al., ConvNeXt V2, CVPR 2023, https://arxiv.org/abs/2301.00808; timm's
``features_only`` models return the four stages' outputs, strides 4, 8, 16 and 32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers.mlp import GlobalResponseNormMlp
from torch import Tensor, nn

from eosfm_edge.ensemble.spec import Shape, SpecialistSpec
from eosfm_edge.errors import UserError

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


def shape_of(encoder: nn.Module) -> Shape:
    """Return the channels of an encoder."""
    levels = range(4)
    return Shape(
        widths=tuple(_blocks_of(encoder, s)[0].conv_dw.weight.shape[0] for s in levels),
        hidden=tuple(
            tuple(b.mlp.fc1.weight.shape[0] for b in _blocks_of(encoder, s)) for s in levels
        ),
    )


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


def recognise(state: Mapping[str, Tensor]) -> tuple[str, int] | None:
    """Return backbone and input channels of an encoder's state, or None if it fits none."""
    stem = state.get("stem_0.weight")
    if stem is None or stem.ndim != 4:
        return None
    blocks: dict[tuple[int, int], int] = {}
    for key, value in state.items():
        match = re.fullmatch(r"stages_(\d)\.blocks\.(\d+)\.conv_dw\.weight", key)
        if match and value.ndim == 4:
            blocks[int(match[1]), int(match[2])] = value.shape[0]
    depths = tuple(sum(1 for stage, _ in blocks if stage == s) for s in range(4))
    channels = tuple(blocks.get((s, 0), 0) for s in range(4))
    for name, architecture in ARCHITECTURES.items():
        if architecture == (depths, channels):
            return name, stem.shape[1]
    return None


def expected_shapes(
    backbone: str, in_chans: int, shape: Shape | None = None
) -> dict[str, torch.Size]:
    """Return the shape of every tensor of an encoder, without making the tensors."""
    with torch.device("meta"):
        state = build_encoder(backbone, in_chans, shape).state_dict()
    return {key: value.shape for key, value in state.items()}
