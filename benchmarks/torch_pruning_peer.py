"""Torch-Pruning as its README shows: group magnitude, a uniform ratio, one step, no repair.

Layers that write a level are ignored, so that the levels keep their channels as they do with
ours; its ratio counts channels, so that the one that leaves the wanted multiply-accumulates is
searched for. GRN is not declared: it finds "unwrapped parameters" and guesses.
"""

from __future__ import annotations

import copy
import warnings

import torch
import torch_pruning as tp
from torch import nn

from eosfm_edge.ensemble.specialist import view_of


def prune(encoder: nn.Module, channel_ratio: float) -> nn.Module:
    """Return a copy without a share of the hidden channels."""
    pruned = copy.deepcopy(encoder).requires_grad_(True)
    bands = pruned.get_parameter("stem_0.weight").shape[1]
    hidden = {name for name, _ in pruned.named_modules() if name.endswith("mlp.fc1")}
    ignored = [
        module
        for name, module in pruned.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name not in hidden
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tp.pruner.BasePruner(
            pruned,
            torch.zeros(1, bands, 64, 64),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=channel_ratio,
            ignored_layers=ignored,
            round_to=8,
        ).step()
    return pruned.eval().requires_grad_(False)


def prune_by_macs(encoder: nn.Module, ratio: float) -> nn.Module:
    """Return a copy whose multiply-accumulates are as near as it gets to a share less."""
    whole = view_of(encoder).cost.macs
    low, high = 0.0, 0.99
    best = prune(encoder, ratio)
    for _ in range(7):
        middle = (low + high) / 2
        best = prune(encoder, middle)
        removed = 1 - view_of(best).cost.macs / whole
        low, high = (middle, high) if removed < ratio else (low, middle)
    return best
