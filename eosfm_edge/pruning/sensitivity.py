"""Measure how an error that pruning makes in one block shows at the levels.

Every block is pruned alone, its fc2 solved from the moments that are there already, and the
levels are compared. Errors of different blocks have little to do with each other, so their energies
add up, which makes of these numbers a forecast for any widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eosfm_edge.formats.ensemble import LEVELS
from eosfm_edge.network.moments import Moments
from eosfm_edge.network.steps import hidden_width, steps, weight_of
from eosfm_edge.pruning.elimination import Elimination

_SHARE = 0.6  # of the channels that go: about what halving the MACs takes
_RIDGE = 1e-5


@torch.inference_mode()
def level_gains(
    encoder: nn.Module,
    batches: Sequence[Tensor],
    moments: Mapping[str, Moments],
    eliminations: Mapping[str, Elimination],
) -> dict[str, tuple[float, ...]]:
    """Return each level's squared error, relative to the level, for one unit of a block's cost.

    Args:
        encoder: the original; it is as it was when this returns.
        batches: tiles (N, bands, H, W) in physical units; a few hundred cells of the last level do.
        moments: of the blocks' hidden channels.
        eliminations: of the blocks, by reconstruction.
    """
    path = steps(encoder)
    inputs: list[list[Tensor]] = [[] for _ in path]
    originals: list[list[Tensor]] = [[] for _ in LEVELS]
    for x in batches:
        for index, step in enumerate(path):
            inputs[index].append(x)
            x = step.module(x)
            if step.level is not None:
                originals[step.level].append(x)
    energy = [sum(float(x.square().sum()) for x in level) for level in originals]

    gains: dict[str, tuple[float, ...]] = {}
    for index, step in enumerate(path):
        if not step.is_block:
            continue
        elimination = eliminations[step.name]
        gone = int(_SHARE * hidden_width(step.module))
        with _ReplacedFc2(step.module, moments[step.name], elimination.first(gone)):
            errors = [0.0] * len(LEVELS)
            for batch, x in enumerate(inputs[index]):
                for later in path[index:]:
                    x = later.module(x)
                    if later.level is not None:
                        difference = x - originals[later.level][batch]
                        errors[later.level] += float(difference.square().sum())
        spent = max(elimination.spent(gone), 1e-12)
        gains[step.name] = tuple(
            error / (whole or 1.0) / spent for error, whole in zip(errors, energy, strict=True)
        )
    return gains


class _ReplacedFc2:
    """A block whose fc2 does without some channels, the rest solved again; undone on exit."""

    def __init__(self, block: Any, moments: Moments, removed: Sequence[int]) -> None:
        self._layer = block.mlp.fc2
        weight = weight_of(self._layer).double()
        covariance, mean = moments.covariance, moments.mean
        kept = torch.ones(weight.shape[1], dtype=torch.bool)
        kept[list(removed)] = False
        ridge = _RIDGE * float(covariance.diagonal().mean()) or 1.0
        system = covariance[kept][:, kept] + ridge * torch.eye(int(kept.sum()), dtype=torch.float64)
        self._weight = torch.zeros_like(weight)
        self._weight[:, kept] = torch.linalg.solve(system, covariance[kept] @ weight.T).T
        self._shift = (weight - self._weight) @ mean

    def __enter__(self) -> None:
        self._saved = self._layer.weight.clone(), self._layer.bias.clone()
        self._layer.weight.copy_(self._weight.reshape(self._layer.weight.shape).float())
        self._layer.bias += self._shift.float()

    def __exit__(self, *_: object) -> None:
        self._layer.weight.copy_(self._saved[0])
        self._layer.bias.copy_(self._saved[1])
