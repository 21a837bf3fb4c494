"""A calibration on disk, and the encoders that it says.

A directory of ``calibration.json``, to be read by people and schema-checked, and
``calibration.safetensors`` with what is a vector: equalisers, scales of weights, corrected biases.
One set of scales serves the native engine, ONNX Runtime and TensorRT.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.store import read_tensors
from eosfm_edge.errors import UserError
from eosfm_edge.files import atomic_directory, sha256_file
from eosfm_edge.formats.calibration import (
    CALIBRATION_NAME,
    CONTENTS,
    PLOT_NAME,
    TABLE_NAME,
    TENSORS_NAME,
    Calibration,
    Grn,
    LayerScales,
    SpecialistScales,
    read_scales,
)
from eosfm_edge.formats.ensemble import EnsembleSpec, SpecialistSpec
from eosfm_edge.network.deployed import DeployedEncoder, Depthwise, Layer
from eosfm_edge.network.rounding import Quantisation, Rounding

Tensors = Mapping[str, Tensor]


def read_calibration(directory: Path) -> tuple[Calibration, Tensors]:
    """Read and check a calibration.

    Raises:
        UserError: it is missing, breaks the schema, or its tensors are not those written with it.
    """
    calibration = read_scales(directory)
    path, remedy = directory / TENSORS_NAME, "calibrate again, or put the original file back"
    return calibration, read_tensors(path, calibration.tensors_sha256, CALIBRATION_NAME, remedy)


def save_calibration(
    directory: Path,
    calibration: Calibration,
    tensors: Tensors,
    *,
    overwrite: bool,
    table: str = "",
    plot: bytes = b"",
) -> Calibration:
    """Write a calibration, whole or not at all; returns it with the digest of its tensors."""
    with atomic_directory(directory, contents=CONTENTS, overwrite=overwrite) as scratch:
        save_file({k: v.contiguous() for k, v in tensors.items()}, scratch / TENSORS_NAME)
        digest = sha256_file(scratch / TENSORS_NAME)
        calibration = calibration.model_copy(update={"tensors_sha256": digest})
        text = calibration.model_dump_json(indent=1)
        (scratch / CALIBRATION_NAME).write_text(text + "\n")
        if table:
            (scratch / TABLE_NAME).write_text(table)
        if plot:
            (scratch / PLOT_NAME).write_bytes(plot)
    return calibration


def require_fits(calibration: Calibration, spec: EnsembleSpec, directory: Path) -> None:
    """Check that a calibration was made for the specialists that an ensemble runs.

    Raises:
        UserError: it was made for others; names the first that differs.
    """
    made = {one.name: one.weights_sha256 for one in calibration.specialists}
    for specialist, sets in zip(spec.specialists, spec.feature_sets(), strict=True):
        if sets and made.get(specialist.name) != specialist.weights_sha256:
            found = "another one" if specialist.name in made else "none"
            raise UserError(
                f"{directory} has no scales for specialist {specialist.name}: it was made for "
                f"{found} of that name",
                expected=f"a calibration of weights {specialist.weights_sha256[:12]}…",
                remedy="calibrate this ensemble",
            )


def scales_of(calibration: Calibration, specialist: SpecialistSpec) -> SpecialistScales:
    """Return a specialist's scales, which are there."""
    return next(one for one in calibration.specialists if one.name == specialist.name)


def tensors_of(name: str, encoder: DeployedEncoder, *, weights: bool) -> dict[str, Tensor]:
    """Return the tensors of a calibrated specialist, under their names in the file.

    Args:
        name: of the specialist.
        encoder: with every layer's rounding.
        weights: whether weights are other than the ensemble's.
    """
    found: dict[str, Tensor] = {}
    for layer_name, layer in encoder.layers().items():
        assert layer.rounding is not None
        parts = {
            "equaliser": layer.rounding.equaliser,
            "weight_scale": layer.rounding.weight_scale,
            "bias": layer.bias,
        }
        if weights:
            parts["weight"] = layer.weight
        found |= {_key(name, layer_name, part): v.detach().clone() for part, v in parts.items()}
    return found


def deploy(
    encoder: nn.Module, scales: SpecialistScales, tensors: Tensors, grn: Grn
) -> DeployedEncoder:
    """Return an encoder as its calibration says.

    Raises:
        UserError: the calibration does not have what the encoder's layers need.
    """
    deployed = DeployedEncoder(encoder)
    layers = deployed.layers()
    if [one.name for one in scales.layers] != list(layers):
        raise UserError(f"the scales of {scales.name} are not those of its layers")
    for one in scales.layers:
        _set(layers[one.name], one, scales.name, tensors)
    for block in deployed.blocks().values():
        block.grn.static = grn == "static"
    return deployed


def with_encoders(ensemble: Ensemble, encoders: Mapping[int, nn.Module]) -> Ensemble:
    """Return an ensemble with some encoders replaced, by their places; the rest is shared."""
    other = copy.copy(ensemble)
    other._modules = dict(ensemble._modules)
    other.encoders = nn.ModuleList(
        [encoders.get(owner, encoder) for owner, encoder in enumerate(ensemble.encoders)]
    )
    return other


def _set(layer: Layer, scales: LayerScales, specialist: str, tensors: Tensors) -> None:
    if (scales.output is None) == isinstance(layer, Depthwise):
        some = "no range" if scales.output is None else "a range"
        raise UserError(
            f"{CALIBRATION_NAME} has {some} of the outputs of {specialist}, {scales.name}",
            expected="one for each depthwise convolution, and for nothing else",
        )
    part: dict[str, Tensor] = {}
    inputs, outputs = layer.weight.shape
    equalised = outputs if isinstance(layer, Depthwise) else inputs
    shapes = {
        "equaliser": (equalised,),
        "weight_scale": (outputs,),
        "bias": (outputs,),
        "weight": tuple(layer.weight.shape),
    }
    for name, shape in shapes.items():
        key = _key(specialist, scales.name, name)
        found = tensors.get(key)
        if found is None and name == "weight":
            continue
        if found is None or tuple(found.shape) != shape or not bool(found.isfinite().all()):
            raise UserError(
                f"{TENSORS_NAME} has no usable {key}", expected=f"finite numbers of shape {shape}"
            )
        part[name] = found.float()
    if bool((part["equaliser"] <= 0).any()) or bool((part["weight_scale"] <= 0).any()):
        raise UserError(f"scales of {specialist}, {scales.name} are not above 0")
    with torch.no_grad():
        layer.bias.copy_(part["bias"])
        if "weight" in part:
            layer.weight.copy_(part["weight"])
    layer.precision = scales.precision
    layer.rounding = _rounding(scales, part["equaliser"], part["weight_scale"])


def _rounding(scales: LayerScales, equaliser: Tensor, weight_scale: Tensor) -> Rounding:
    if scales.output is None:
        return Rounding(equaliser, Quantisation.over(*scales.range), weight_scale)
    around = Quantisation.around_zero
    return Rounding(equaliser, around(*scales.range), weight_scale, around(*scales.output))


def _key(specialist: str, layer: str, part: str) -> str:
    return f"{specialist}:{layer}:{part}"
