"""Measure the cost of each layer when it alone is int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from eosfm_edge.calibration.judge import Judge, Levels
from eosfm_edge.network.deployed import DeployedEncoder, Form

# All but the one layer is exact.
_FORM = Form(depthwise=True)
_SILENT_DB = 200.0  # of a level that a layer does not reach

Sensitivity = dict[str, tuple[float, ...]]


@torch.inference_mode()
def sensitivities(
    encoder: DeployedEncoder, batches: Sequence[Tensor], normalise: Callable[[Levels], Levels]
) -> Sensitivity:
    """Return, by layer, the signal to noise of each level in decibels when it alone is int8.

    Args:
        encoder: with the rounding of every layer, all of them in fp32, which they stay in.
        batches: images (N, bands, H, W).
        normalise: what the ensemble does to levels before it fuses them.
    """
    layers = encoder.layers()
    judge = Judge([encoder(batch) for batch in batches], normalise)
    found: Sensitivity = {}
    steps = list(encoder.steps())
    reached: list[list[Tensor]] = [[] for _ in batches]  # exact levels before the step
    inputs = list(batches)
    for index, step in enumerate(steps):
        mine = {n: layer for n, layer in layers.items() if f"{n}.".startswith(f"{step.name}.")}
        for name, layer in mine.items():
            layer.precision = "int8"
            levels = []
            for x, before in zip(inputs, reached, strict=True):
                y, after = x, list(before)
                for later in steps[index:]:
                    y = later.module(y, _FORM)
                    if later.level is not None:
                        after.append(y)
                levels.append(after)
            layer.precision = "fp32"
            found[name] = tuple(
                _SILENT_DB if level.sqnr_db is None else level.sqnr_db
                for level in judge.compare(levels)
            )
        inputs = [step.module(x, _FORM) for x in inputs]
        if step.level is not None:
            for before, x in zip(reached, inputs, strict=True):
                before.append(x)
    return found
