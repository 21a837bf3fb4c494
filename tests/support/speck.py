"""ConvNeXtV2 networks that timm does not list, made known to it and to the ensemble.

``convnextv2_speck`` is of a few kilobytes, so that tests can damage a bundle at every byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import register_model
from timm.models.convnext import ConvNeXt, _create_convnext

from eosfm_edge.ensemble.specialist import ARCHITECTURES


def register(name: str, depths: Sequence[int], widths: Sequence[int]) -> str:
    """Make ``convnextv2_NAME`` known; returns ``NAME``."""

    def build(pretrained: bool = False, **options: Any) -> ConvNeXt:
        shape = {"depths": tuple(depths), "dims": tuple(options.pop("dims", widths))}
        model: ConvNeXt = _create_convnext(
            "convnextv2_atto",
            pretrained=False,
            **shape,
            use_grn=True,
            ls_init_value=None,
            conv_mlp=True,
            **options,
        )
        return model

    build.__name__ = f"convnextv2_{name}"
    if build.__name__ not in ARCHITECTURES:
        register_model(build)
        ARCHITECTURES[build.__name__] = (tuple(depths), tuple(widths))
    return name


SPECK = register("speck", (1, 1, 2, 1), (8, 16, 24, 16))
# As deep as Atto, so that its tensors have the names of Atto's, and narrow.
SLIM = register("slim", (2, 2, 6, 2), (8, 16, 24, 32))
# Of one block in each stage: a cell of the last level sees 180 pixels to each side of its own 32,
# the 3 cells that a 7x7 convolution adds on every level.
SHALLOW = register("shallow", (1, 1, 1, 1), (8, 16, 24, 16))
