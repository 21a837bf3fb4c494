"""Bias correction: rounding shifts the mean of a layer's outputs, and the bias takes it away.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
with the means of real activations. The exact and the rounded network go through calibration tiles
side by side, so that each layer also corrects the means that the layers before it have left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from eosfm_edge.network.deployed import Block, DeployedEncoder, Downsample, normed


@torch.inference_mode()
def correct_biases(
    exact: DeployedEncoder, rounded: DeployedEncoder, batches: Sequence[Tensor]
) -> None:
    """Correct the biases of a rounded encoder in place.

    Args:
        exact: the same in fp32.
        rounded: computed in its form, with the precisions of its layers.
        batches: calibration tiles (N, bands, H, W) in physical units. All activations of one step
            are held at once, twice.
    """
    originals, inputs = list(batches), list(batches)
    for theirs, mine in zip(exact.steps(), rounded.steps(), strict=True):
        module: Any = mine.module
        if isinstance(module, Block):
            fc1 = _fc1(theirs.module, exact), _fc1(module, rounded)
            pairs = zip(originals, inputs, strict=True)
            module.fc1.bias.add_(_mean(fc1[0](a) - fc1[1](b) for a, b in pairs))
        targets = [theirs.module(x, exact.form) for x in originals]
        outputs = [module(x, rounded.form) for x in inputs]
        if isinstance(module, Block | Downsample):
            error = _mean(a - b for a, b in zip(targets, outputs, strict=True))
            layer = module.fc2 if isinstance(module, Block) else module.entry
            layer.bias.add_(error)
            outputs = [y + error[:, None, None] for y in outputs]
        originals, inputs = targets, outputs


def _fc1(block: Any, encoder: DeployedEncoder) -> Callable[[Tensor], Tensor]:
    """Return what gives the outputs of a block's fc1, (N, hidden, H, W), of its inputs."""

    def outputs(x: Tensor) -> Tensor:
        rows = block.conv_dw(x, encoder.form).permute(0, 2, 3, 1)
        rows = block.fc1(normed(rows, block.fc1, encoder.form), encoder.form)
        hidden: Tensor = rows.float().permute(0, 3, 1, 2)
        return hidden

    return outputs


def _mean(differences: Iterable[Tensor]) -> Tensor:
    """Return the mean over all cells of (N, C, H, W), (C,)."""
    sums, cells = [], 0
    for difference in differences:
        sums.append(difference.sum((0, 2, 3)))
        cells += difference.numel() // difference.shape[1]
    return torch.stack(sums).sum(0) / cells
