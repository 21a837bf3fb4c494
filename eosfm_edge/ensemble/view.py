"""One view of a ConvNeXtV2 encoder, from its shape alone: the names, steps, widths and cost.

Pruning plans by it, calibration and export walk through it, and nobody else describes the
architecture. An encoder is a stem and four stages: a downsampling (but for the first) and blocks,
each a 7x7 depthwise convolution and an MLP, whose hidden channels go through global response
normalisation (GRN).

MACs are those of convolutions and linear layers, as in fvcore and Torch-Pruning; norms, GELU and
residuals are not counted. They are given for one pixel of the input, which makes them independent
of the tile: an image of H x W pixels takes H * W times as many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from eosfm_edge.formats.ensemble import LEVEL_STRIDES, LEVELS, Shape

_WEIGHT_BYTES = 4  # fp32, as an ensemble is exported unless it is asked otherwise
_STEM_CELLS, _DOWNSAMPLE_CELLS, _DEPTHWISE_CELLS = 4 * 4, 2 * 2, 7 * 7  # of the kernels


@dataclass(frozen=True)
class Cost:
    """Multiply-accumulates for one input pixel, and parameters."""

    macs: float
    params: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params)

    @property
    def bytes(self) -> int:
        """Bytes of the parameters in fp32."""
        return self.params * _WEIGHT_BYTES


def pixel_share(stage: int) -> float:
    """Return the cells of a stage for one pixel of the input: 1/16 ... 1/1024."""
    return float(LEVEL_STRIDES[stage] ** -2)


@dataclass(frozen=True)
class StepView:
    """One step that an image goes through.

    Attributes:
        kind: of the step.
        name: in the files of the native engine: ``stem``, ``stages.2.downsample``,
            ``stages.2.blocks.4``.
        modules: timm's names of its modules, in order: ``stages_2.blocks.4``; two of the stem's.
        stage: 0 ... 3.
        level: the level that its output is, if it ends a stage: 0 ... 3.
        width: channels of its output.
        hidden: channels of a block's MLP; 0 of other steps.
        cost: of the step.
    """

    kind: Literal["stem", "downsample", "block"]
    name: str
    modules: tuple[str, ...]
    stage: int
    level: int | None
    width: int
    hidden: int
    cost: Cost


@dataclass(frozen=True)
class EncoderView:
    """An encoder of a shape.

    Attributes:
        bands: of its input.
        shape: its channels.
    """

    bands: int
    shape: Shape

    @cached_property
    def steps(self) -> tuple[StepView, ...]:
        """The steps; each takes what the one before gives."""
        found = []
        before = self.bands
        for stage, (width, hidden) in enumerate(
            zip(self.shape.widths, self.shape.hidden, strict=True)
        ):
            cells = _DOWNSAMPLE_CELLS if stage else _STEM_CELLS
            normed = before if stage else width  # a downsampling's norm is before it
            weights = cells * before * width
            cost = Cost(weights * pixel_share(stage), weights + width + 2 * normed)
            if stage:
                name = f"stages.{stage}.downsample"
                modules: tuple[str, ...] = (f"stages_{stage}.downsample",)
                found.append(StepView("downsample", name, modules, stage, None, width, 0, cost))
            else:
                modules = ("stem_0", "stem_1")
                found.append(StepView("stem", "stem", modules, stage, None, width, 0, cost))
            price = self.hidden_price(stage)
            weights = _DEPTHWISE_CELLS * width
            # The convolution's bias, the norm's two values and fc2's bias are one a channel each.
            around = Cost(weights * pixel_share(stage), weights + 4 * width)
            for index, channels in enumerate(hidden):
                level = stage if index == len(hidden) - 1 else None
                name = f"stages.{stage}.blocks.{index}"
                modules = (f"stages_{stage}.blocks.{index}",)
                cost = around + Cost(channels * price.macs, channels * price.params)
                found.append(StepView("block", name, modules, stage, level, width, channels, cost))
            before = width
        return tuple(found)

    @property
    def depths(self) -> tuple[int, ...]:
        """The number of blocks of each stage."""
        return tuple(map(len, self.shape.hidden))

    @property
    def cost(self) -> Cost:
        """The cost of the encoder."""
        return sum((step.cost for step in self.steps), Cost(0.0, 0))

    def hidden_price(self, stage: int) -> Cost:
        """Return the cost of one hidden channel of a block: fc1's row, fc2's column, GRN's two."""
        width = self.shape.widths[stage]
        return Cost(2 * width * pixel_share(stage), 2 * width + 3)

    @property
    def groups(self) -> dict[str, int]:
        """The channels that pruning may remove, by names of plans.

        ``stages_2`` are the residual channels of a stage, ``stages_2.blocks.4`` the hidden ones of
        a block.
        """
        widths = {f"stages_{stage}": width for stage, width in enumerate(self.shape.widths)}
        return widths | {step.modules[0]: step.hidden for step in self.steps if step.hidden}

    def without(self, removed: Mapping[str, int]) -> EncoderView:
        """Return the view of the encoder with fewer channels in some of its groups."""
        left = {name: channels - removed.get(name, 0) for name, channels in self.groups.items()}
        widths = tuple(left[f"stages_{stage}"] for stage in LEVELS)
        hidden = tuple(
            tuple(left[f"stages_{stage}.blocks.{index}"] for index in range(depth))
            for stage, depth in enumerate(self.depths)
        )
        return EncoderView(self.bands, Shape(widths=widths, hidden=hidden))
