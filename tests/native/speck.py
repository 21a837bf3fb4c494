"""A ConvNeXtV2 of a few kilobytes, so that tests can damage a bundle at every byte."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from timm.models.convnext import ConvNeXt, _create_convnext

from eosfm_edge.ensemble.specialist import ARCHITECTURES

DEPTHS, WIDTHS = (1, 1, 2, 1), (8, 16, 24, 16)


@register_model
def convnextv2_speck(pretrained: bool = False, **options: Any) -> ConvNeXt:
    """Build the model, as timm builds its own."""
    shape = {"depths": DEPTHS, "dims": WIDTHS, "use_grn": True, "ls_init_value": None}
    model: ConvNeXt = _create_convnext(
        "convnextv2_atto", pretrained=False, **shape, conv_mlp=True, **options
    )
    return model


ARCHITECTURES["convnextv2_speck"] = (DEPTHS, WIDTHS)
