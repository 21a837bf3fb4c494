"""The fused levels of an ensemble whose specialists are calibrated one by one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eosfm_edge.calibration.encoder import Recipe
from eosfm_edge.calibration.judge import Judge, normaliser_of
from eosfm_edge.calibration.mixed import Fidelity, lower
from eosfm_edge.calibration.sensitivity import Sensitivity
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.formats.calibration import SpecialistScales
from eosfm_edge.network.batches import in_batches
from eosfm_edge.network.calibration import Tensors, deploy, with_encoders
from eosfm_edge.network.deployed import NATIVE, TENSORRT, DeployedEncoder, Depthwise, Layer
from eosfm_edge.network.tiles import Tiles, inputs_of


@torch.inference_mode()
def fit_fused(
    ensemble: Ensemble,
    specialists: Sequence[SpecialistScales],
    tensors: Tensors,
    tiles: Tiles,
    recipe: Recipe,
) -> tuple[tuple[SpecialistScales, ...], Fidelity]:
    """Take more layers off int8 if the fused levels miss a budget that every specialist keeps.

    Args:
        ensemble: exact.
        specialists: their scales.
        tensors: of these.
        tiles: of which the held-out ones judge.
        recipe: whose budget is to be kept.

    Returns:
        The specialists' scales as they are now, and the fidelity of the fused levels in libeosfm's
        form. Where a specialist misses the budget, nothing is changed.
    """
    images = [tile[None] for tile in tiles.held_out]
    judge = Judge([ensemble(image) for image in images])
    names = [specialist.name for specialist in ensemble.spec.specialists]
    encoders = {}
    layers: dict[str, Layer] = {}
    sensitivity: Sensitivity = {}
    for one in specialists:
        owner = names.index(one.name)
        encoder = deploy(ensemble.encoders[owner], one, tensors, recipe.grn).in_form(NATIVE)
        encoders[owner] = encoder
        for layer, scales in zip(encoder.layers().values(), one.layers, strict=True):
            if not isinstance(layer, Depthwise):
                layers[f"{one.name}:{scales.name}"] = layer
                sensitivity[f"{one.name}:{scales.name}"] = scales.sensitivity_db
    rounded = with_encoders(ensemble, encoders)
    if any(recipe.budget.failing(one.native) for one in specialists):
        layers = {}
    fused = lower(rounded, layers, images, judge, sensitivity, recipe.budget)
    pairs = zip(specialists, encoders.items(), strict=True)
    fitted = (_measured(ensemble, owner, one, encoder, tiles) for one, (owner, encoder) in pairs)
    return tuple(fitted), fused


def _measured(
    ensemble: Ensemble, owner: int, scales: SpecialistScales, encoder: DeployedEncoder, tiles: Tiles
) -> SpecialistScales:
    """Return scales with the precisions that an encoder's layers have now, and its fidelity."""
    precisions = [layer.precision for layer in encoder.layers().values()]
    if precisions == [layer.precision for layer in scales.layers]:
        return scales
    batches = in_batches(inputs_of(ensemble, owner, tiles.held_out))
    judge = Judge([ensemble.encoders[owner](b) for b in batches], normaliser_of(ensemble, owner))
    return scales.model_copy(
        update={
            "layers": tuple(
                layer.model_copy(update={"precision": precision})
                for layer, precision in zip(scales.layers, precisions, strict=True)
            ),
            "native": judge.compare([encoder(batch) for batch in batches]),
            "tensorrt": judge.compare([encoder.in_form(TENSORRT)(batch) for batch in batches]),
        }
    )
