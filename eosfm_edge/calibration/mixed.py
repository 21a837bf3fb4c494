"""Mixed precision: what costs too much fidelity is not int8, the costliest layer first.

The greedy search of Wu et al., Integer Quantization for Deep Learning Inference, arXiv:2004.09602,
section 6.1, from sensitivities measured layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eosfm_edge.calibration.judge import Judge
from eosfm_edge.calibration.sensitivity import Sensitivity
from eosfm_edge.formats.calibration import LevelFidelity
from eosfm_edge.formats.precision import LayerPrecision
from eosfm_edge.network.deployed import TENSORRT, DeployedEncoder, Depthwise, Layer

_DOWN: dict[LayerPrecision, LayerPrecision] = {"int8": "half", "half": "fp32"}


@dataclass(frozen=True)
class Budget:
    """The fidelity that every level must keep.

    Attributes:
        min_cosine: the mean cosine.
        max_drop: the largest share of cells, in percent, that a probe may label otherwise.
    """

    min_cosine: float = 0.995
    max_drop: float | None = None

    def failing(self, levels: Sequence[LevelFidelity]) -> list[int]:
        """Return the levels that do not keep it."""
        return [
            index
            for index, level in enumerate(levels)
            if not level.cosine >= self.min_cosine
            or (self.max_drop is not None and not level.drop <= self.max_drop)
        ]


Fidelity = tuple[LevelFidelity, ...]


@torch.inference_mode()
def fit_matrices(
    encoder: DeployedEncoder,
    batches: Sequence[Tensor],
    judge: Judge,
    sensitivity: Sensitivity,
    budget: Budget,
) -> Fidelity:
    """Set the precision of every matrix, in place; returns the fidelity.

    Matrices start as int8 and become half, and when all are, fp32. Depthwise convolutions are
    half, which is what they are computed in where they are not int8. If no precisions keep the
    budget, all matrices are fp32 and the fidelity returned does not keep it.
    """
    layers = encoder.layers()
    for layer in layers.values():
        layer.precision = "half" if isinstance(layer, Depthwise) else "int8"
    matrices = {n: layer for n, layer in layers.items() if not isinstance(layer, Depthwise)}
    return lower(encoder, matrices, batches, judge, sensitivity, budget)


@torch.inference_mode()
def fit_depthwise(
    encoder: DeployedEncoder,
    batches: Sequence[Tensor],
    judge: Judge,
    sensitivity: Sensitivity,
    budget: Budget,
) -> Fidelity:
    """Make depthwise convolutions int8 while TensorRT's form keeps the budget.

    Returns that form's fidelity.
    """
    layers = {n: layer for n, layer in encoder.layers().items() if isinstance(layer, Depthwise)}
    for layer in layers.values():
        layer.precision = "int8"
    encoder = encoder.in_form(TENSORRT)
    return lower(encoder, layers, batches, judge, sensitivity, budget, ("int8",))


def lower(
    network: nn.Module,
    layers: Mapping[str, Layer],
    batches: Sequence[Tensor],
    judge: Judge,
    sensitivity: Sensitivity,
    budget: Budget,
    ladder: Sequence[LayerPrecision] = ("int8", "half"),
) -> Fidelity:
    """Take layers off int8, in place, until a network keeps a budget; returns its fidelity.

    Args:
        network: gives the levels of a batch; the layers are its own.
        layers: that may be lowered.
        batches: the judge's images.
        judge: of the levels.
        sensitivity: of the layers, by the same names.
        budget: what is to be kept. If it cannot be, all layers are as low as they go.
        ladder: the precisions that are left, those of one before those of the next.
    """
    while True:
        found = judge.compare([network(batch) for batch in batches])
        failing = budget.failing(found)
        left = [(rung, n) for rung in ladder for n, la in layers.items() if la.precision == rung]
        if not failing or not left:
            return found
        lowest = [name for rung, name in left if rung == left[0][0]]
        costliest = max(lowest, key=lambda name: _noise(sensitivity[name], failing))
        layers[costliest].precision = _DOWN[layers[costliest].precision]


def _noise(decibels: Sequence[float], levels: Sequence[int]) -> float:
    """Return the noise over signal that a layer leaves in some levels together."""
    return float(sum(10 ** (-decibels[level] / 10) for level in levels))
