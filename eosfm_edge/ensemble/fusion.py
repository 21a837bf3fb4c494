"""Fusion: the feature sets of one level become one map.

Module and parameter names make the state dict the reference's: ``weight``/``bias`` for
``conv1x1``, ``0.*`` and ``2.*`` for ``mlp``, nothing for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import FusionMode


class Concatenation(nn.Module):
    """The sets' channels in order: fusion ``none``."""

    def forward(self, sets: list[Tensor]) -> Tensor:
        """Fuse sets (N, C_i, H, W) to (N, sum of C_i, H, W)."""
        return torch.cat(sets, dim=1)


class Conv1x1(nn.Conv2d):
    """A learned mixture of all channels: fusion ``conv1x1``."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, kernel_size=1)

    def forward(self, sets: list[Tensor]) -> Tensor:  # type: ignore[override]
        """Fuse sets (N, C_i, H, W) to (N, channels_out, H, W)."""
        return super().forward(torch.cat(sets, dim=1))


class Mlp(nn.Sequential):
    """Two 1x1 convolutions with a ReLU between: fusion ``mlp``."""

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, hidden, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels_out, kernel_size=1),
        )

    def forward(self, sets: list[Tensor]) -> Tensor:
        """Fuse sets (N, C_i, H, W) to (N, channels_out, H, W)."""
        fused: Tensor = super().forward(torch.cat(sets, dim=1))  # type: ignore[no-untyped-call]
        return fused


class Addition(nn.Module):
    """The sum over the sets, channel by channel: fusion ``addition``."""

    def forward(self, sets: list[Tensor]) -> Tensor:
        """Fuse sets, all (N, C, H, W), to (N, C, H, W)."""
        return reduce(torch.add, sets)


class Multiplication(nn.Module):
    """The product over the sets, channel by channel: fusion ``multiplication``."""

    def forward(self, sets: list[Tensor]) -> Tensor:
        """Fuse sets, all (N, C, H, W), to (N, C, H, W)."""
        return reduce(torch.mul, sets)


def build_fusion(mode: FusionMode, set_widths: Sequence[int], channels_out: int) -> nn.Module:
    """Build the fusion of one level.

    Args:
        mode: how to fuse.
        set_widths: channels of each feature set, in order.
        channels_out: channels after ``conv1x1`` and ``mlp``; the other modes have no choice.

    Raises:
        UserError: a sum or product of sets whose widths differ.
    """
    channels_in = sum(set_widths)
    match mode:
        case "none":
            return Concatenation()
        case "conv1x1":
            return Conv1x1(channels_in, channels_out)
        case "mlp":
            return Mlp(channels_in, int(1.25 * channels_in), channels_out)
        case "addition" | "multiplication":
            if len(set(set_widths)) > 1:
                raise UserError(
                    f"fusion '{mode}' over feature sets of {sorted(set(set_widths))} channels",
                    expected="sets of equal width",
                    remedy="use conv1x1, or a projection to one width",
                )
            return Addition() if mode == "addition" else Multiplication()


def slice_inputs(fusion: nn.Module, set_widths: Sequence[int], kept: Sequence[bool]) -> nn.Module:
    """Return a fusion of the kept sets that gives what the full one gives with zeros for the rest.

    Raises:
        UserError: a product, which is zero as soon as one set is.
    """
    if all(kept):
        return fusion
    channels = torch.cat(
        [torch.full((width,), keep) for width, keep in zip(set_widths, kept, strict=True)]
    )
    match fusion:
        case Conv1x1():
            sliced: Conv1x1 | Mlp = Conv1x1(int(channels.sum()), fusion.out_channels)
            _copy_sliced(fusion, sliced, channels)
        case Mlp():
            first, _, last = fusion
            assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
            sliced = Mlp(int(channels.sum()), first.out_channels, last.out_channels)
            _copy_sliced(first, sliced[0], channels)
            sliced[2].load_state_dict(last.state_dict())
        case Addition():
            return fusion
        case Concatenation():
            return ZeroFilled(set_widths, kept)
        case _:
            raise UserError(
                "fusion 'multiplication' with specialists that are not selected is zero everywhere",
                remedy="select all specialists, or fuse in another way",
            )
    return sliced


class ZeroFilled(nn.Module):
    """Concatenation that puts zeros where the sets that are left out would be."""

    def __init__(self, set_widths: Sequence[int], kept: Sequence[bool]) -> None:
        super().__init__()
        self.set_widths, self.kept = tuple(set_widths), tuple(kept)

    def forward(self, sets: list[Tensor]) -> Tensor:
        """Fuse the kept sets (N, C_i, H, W) to (N, sum of all C_i, H, W)."""
        remaining = iter(sets)
        zero = sets[0][:, :1] * 0.0
        return torch.cat(
            [
                next(remaining) if keep else zero.expand(-1, width, -1, -1)
                for width, keep in zip(self.set_widths, self.kept, strict=True)
            ],
            dim=1,
        )


def _copy_sliced(source: nn.Conv2d, target: nn.Module, channels: Tensor) -> None:
    assert isinstance(target, nn.Conv2d)
    with torch.no_grad():
        target.weight.copy_(source.weight[:, channels])
        if source.bias is not None and target.bias is not None:
            target.bias.copy_(source.bias)
