"""Static GRN: calibrated constants instead of the image's own norms.

GRN (global response normalisation) scales each hidden channel by its norm over the whole image, the
one operation of ConvNeXtV2 that is not local. With constants it is a factor for each channel, which
goes into fc2: the network becomes convolutional, so that a cell does not depend on where tiles
begin, and nothing is squared that could overflow fp16. What that loses is given back in part by
solving fc2 again in closed form, block after block, for the outputs of the exact network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from eosfm_edge.network.deployed import Block, DeployedEncoder, relative_norms
from eosfm_edge.network.regression import ridge_regression


@torch.inference_mode()
def make_static(exact: DeployedEncoder, static: DeployedEncoder, batches: Sequence[Tensor]) -> None:
    """Make the GRN of an encoder static in place, and solve its fc2 again.

    Args:
        exact: the same encoder; it stays as it is.
        static: all layers in fp32.
        batches: calibration tiles (N, bands, H, W) in physical units. All activations of one step
            are held at once, twice.
    """
    originals, inputs = list(batches), list(batches)
    for theirs, mine in zip(exact.steps(), static.steps(), strict=True):
        targets = [theirs.module(x, exact.form) for x in originals]
        if isinstance(mine.module, Block):
            _solve(mine.module, static, inputs, targets)
        originals, inputs = targets, [mine.module(x, static.form) for x in inputs]


def _solve(
    block: Block, encoder: DeployedEncoder, inputs: Sequence[Tensor], targets: Sequence[Tensor]
) -> None:
    def hidden(x: Tensor) -> Tensor:
        return block.hidden(block.conv_dw(x, encoder.form).permute(0, 2, 3, 1), encoder.form)

    norms = [relative_norms(hidden(x).square().sum((1, 2)).sqrt()) for x in inputs]
    constant = torch.cat(norms).mean(0)
    prior = block.fc2.weight * (1 + block.grn.weight * constant)[:, None]

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for x, target in zip(inputs, targets, strict=True):
            added = (target - x).permute(0, 2, 3, 1)
            yield hidden(x).flatten(0, 2), added.flatten(0, 2)

    weight, bias = ridge_regression(pairs(), prior.T)
    block.fc2.weight.copy_(weight.T)
    block.fc2.bias.copy_(bias)
    block.grn.static = True
