"""Repair without labels: a pruned encoder is brought back to its original, step by step.

Both encoders go through calibration tiles side by side. At every block that lost channels

1. GRN divides by the mean over the hidden channels' norms. Over fewer channels that mean is
   another, which would scale every channel that is left: GRN's weight takes the inverse (one number
   a block, the least squares fit over the tiles);
2. fc2, which is linear, is solved in closed form: ridge regression from what the pruned encoder has
   there to what the block must add to reach the original's output. The target holds the error of
   all blocks before, which is so repaired as far as the block can.

Where the residual width was pruned too, the downsampling convolutions are solved the same way.
The idea of reconstructing layer after layer: He et al., Channel Pruning for Accelerating Very Deep
Neural Networks, ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from eosfm_edge.network.regression import ridge_regression, set_linear
from eosfm_edge.network.steps import (
    Step,
    as_rows,
    channels_last,
    hidden_width,
    steps,
    watching_inputs,
    weight_of,
)

Kept = Sequence[Tensor | None]  # for each stage the channels that are left, or None for all


@torch.inference_mode()
def repair(
    original: nn.Module,
    pruned: nn.Module,
    batches: Sequence[Tensor],
    *,
    grn: bool = True,
    fc2: bool = True,
    kept: Kept = (None,) * 4,
) -> None:
    """Repair a pruned encoder in place.

    Args:
        original: the encoder that it shall equal.
        pruned: the same with channels missing.
        batches: calibration tiles (N, bands, H, W) in physical units. All activations of one step
            are held at once, twice.
        grn: whether to compensate GRN's mean.
        fc2: whether to solve the blocks' last layers, and downsampling where widths were pruned.
        kept: the channels of each stage that are left.
    """
    originals, inputs = list(batches), list(batches)
    for step, mine in zip(steps(original), steps(pruned), strict=True):
        targets = [step.module(x) for x in originals]
        left = kept[step.stage]
        wanted = targets if left is None else [x[:, left] for x in targets]
        if step.is_block:
            if hidden_width(mine.module) < hidden_width(step.module) and grn:
                _compensate_grn(step, mine, originals, inputs)
            whole, rest = (weight_of(one.module.mlp.fc2).shape for one in (step, mine))
            if fc2 and whole != rest:  # it lost hidden channels, or residual ones
                _solve_fc2(mine.module, inputs, wanted)
        elif fc2 and left is not None and isinstance(mine.module, nn.Sequential):
            _solve_downsampling(mine.module, inputs, wanted)
        originals = targets
        inputs = [mine.module(x) for x in inputs]


def _compensate_grn(step: Step, mine: Step, originals: list[Tensor], inputs: list[Tensor]) -> None:
    before = torch.cat([_mean_norm(step.module, x) for x in originals]).double()
    after = torch.cat([_mean_norm(mine.module, x) for x in inputs]).double()
    # GRN multiplies by 1 / mean: the factor that brings 1 / after closest to 1 / before.
    factor = (1 / (before * after)).sum() / (1 / after).square().sum()
    mine.module.mlp.grn.weight *= factor.float()


def _mean_norm(block: Any, x: Tensor) -> Tensor:
    """Return the mean over hidden channels of GRN's norms, (N,)."""
    grn = block.mlp.grn
    seen: list[Tensor] = []
    with watching_inputs({"grn": grn}, lambda _, hidden: seen.append(hidden)):
        block(x)
    norms: Tensor = seen[0].norm(p=2, dim=grn.spatial_dim)
    return norms.mean(1).clamp_min(1e-12)


def _solve_fc2(block: Any, inputs: list[Tensor], targets: list[Tensor]) -> None:
    layer = block.mlp.fc2

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        seen: list[Tensor] = []
        with watching_inputs({"fc2": layer}, lambda _, hidden: seen.append(hidden)):
            for x, target in zip(inputs, targets, strict=True):
                block(x)
                hidden = as_rows(seen.pop(), last=channels_last(layer))
                yield hidden, as_rows(target - x, last=False)

    set_linear(layer, *ridge_regression(pairs(), weight_of(layer)))


def _solve_downsampling(module: nn.Sequential, inputs: list[Tensor], targets: list[Tensor]) -> None:
    norm, convolution = module[0], module[1]

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for x, target in zip(inputs, targets, strict=True):
            patches = functional.unfold(norm(x), 2, stride=2).transpose(1, 2)
            yield patches.flatten(0, 1), as_rows(target, last=False)

    set_linear(convolution, *ridge_regression(pairs(), weight_of(convolution)))
