"""One encoder: from its weights and calibration tiles to the scales of every layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from eosfm_edge.calibration.bias import correct_biases
from eosfm_edge.calibration.judge import Judge, Levels
from eosfm_edge.calibration.mixed import Budget, Fidelity, fit_depthwise, fit_matrices
from eosfm_edge.calibration.ranges import Choice, set_scales
from eosfm_edge.calibration.sensitivity import Sensitivity, sensitivities
from eosfm_edge.calibration.static_grn import make_static
from eosfm_edge.formats.calibration import Grn, LayerScales, Method
from eosfm_edge.network.batches import in_batches
from eosfm_edge.network.deployed import NATIVE, DeployedEncoder, Depthwise
from eosfm_edge.network.distill import distill


@dataclass(frozen=True)
class Recipe:
    """A recipe of calibration.

    Attributes:
        method: of clipping activations; None chooses for each tensor by the error that it leaves.
        grn: ``static`` has calibrated constants for the image's own norms.
        budget: what every level must keep.
        distill: steps of quantisation-aware self-distillation.
        seed: of samples and distillation.
    """

    method: Method | None = None
    grn: Grn = "exact"
    budget: Budget = field(default_factory=Budget)
    distill: int = 0
    seed: int = 0


@dataclass(frozen=True)
class CalibratedEncoder:
    """An encoder with its scales, and what they leave of it.

    Attributes:
        encoder: with every layer's rounding and precision.
        layers: the same, as it is written down.
        changed: whether weights are other than the original's.
        static_grn: what static GRN alone leaves, if it is static.
        native: the fidelity of libeosfm's form.
        tensorrt: of TensorRT's.
    """

    encoder: DeployedEncoder
    layers: tuple[LayerScales, ...]
    changed: bool
    static_grn: Fidelity | None
    native: Fidelity
    tensorrt: Fidelity


def calibrate_encoder(
    original: nn.Module,
    tiles: Sequence[Tensor],
    held_out: Sequence[Tensor],
    recipe: Recipe,
    *,
    normalise: Callable[[Levels], Levels] = lambda levels: levels,
    checkpoint: Path | None = None,
    tick: Callable[[str], None] = lambda what: None,
) -> CalibratedEncoder:
    """Calibrate an encoder; whether its fidelity keeps the budget is for the caller to see.

    Args:
        original: timm's feature encoder; it stays as it is.
        tiles: images (bands, H, W) in physical units, all of one size.
        held_out: others, to judge by.
        recipe: how.
        normalise: what the ensemble does to levels before it fuses them.
        checkpoint: of distillation.
        tick: called before each part of the work with its name.
    """
    exact, encoder = DeployedEncoder(original), DeployedEncoder(original)
    batches, judged = in_batches(tiles), in_batches(held_out)
    with torch.inference_mode():
        judge = Judge([exact(batch) for batch in judged], normalise)
    static = None
    if recipe.grn == "static":
        tick("static GRN")
        make_static(exact, encoder, batches)
        with torch.inference_mode():
            static = judge.compare([encoder(batch) for batch in judged])
    tick("ranges")
    chosen = set_scales(encoder, batches, recipe.method, recipe.seed)
    tick("sensitivities")
    sensitivity = sensitivities(encoder, judged, normalise)
    encoder.form = NATIVE
    if recipe.distill:
        tick("distillation")
        _distill(exact, encoder, tiles, recipe, checkpoint)
    tick("precisions")
    native = fit_matrices(encoder, judged, judge, sensitivity, recipe.budget)
    tick("biases")
    native = _correct_biases(exact, encoder, batches, judged, judge, native, recipe.budget)
    tensorrt = fit_depthwise(encoder, judged, judge, sensitivity, recipe.budget)
    return CalibratedEncoder(
        encoder,
        tuple(_scales(encoder, name, chosen[name], sensitivity) for name in chosen),
        recipe.grn == "static" or recipe.distill > 0,
        static,
        native,
        tensorrt,
    )


@torch.inference_mode()
def _correct_biases(
    exact: DeployedEncoder,
    encoder: DeployedEncoder,
    batches: Sequence[Tensor],
    judged: Sequence[Tensor],
    judge: Judge,
    before: Fidelity,
    budget: Budget,
) -> Fidelity:
    """Correct biases, unless a budget that is kept would be missed; returns the fidelity."""
    layers = encoder.layers().values()
    biases = [layer.bias.clone() for layer in layers]
    correct_biases(exact, encoder, batches)
    after = judge.compare([encoder(batch) for batch in judged])
    if not budget.failing(after) or budget.failing(before):
        return after
    for layer, bias in zip(layers, biases, strict=True):
        layer.bias.copy_(bias)
    return before


def _distill(
    exact: DeployedEncoder,
    encoder: DeployedEncoder,
    tiles: Sequence[Tensor],
    recipe: Recipe,
    checkpoint: Path | None,
) -> None:
    """Train what is rounded, through the rounding: its gradient is taken to be that of nothing.

    Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons, arXiv:1308.3432.
    """
    trained = []
    for layer in encoder.layers().values():
        layer.precision = "half" if isinstance(layer, Depthwise) else "int8"
        trained += [layer.weight, layer.bias]
    distill(
        exact, encoder, tiles, recipe.distill, recipe.seed,
        parameters=trained, checkpoint=checkpoint,
    )  # fmt: skip


def _scales(
    encoder: DeployedEncoder, name: str, choice: Choice, sensitivity: Sensitivity
) -> LayerScales:
    return LayerScales(
        name=name,
        precision=encoder.layers()[name].precision,
        method=choice.method,
        range=(choice.clip.low, choice.clip.high),
        equalisation=choice.exponent,
        output=(choice.output.low, choice.output.high) if choice.output else None,
        sensitivity_db=sensitivity[name],
    )
