"""A calibration on disk: how every layer of an ensemble's specialists is rounded to int8.

A directory of ``calibration.json``, to be read by people and schema-checked, and
``calibration.safetensors`` with what is a vector: equalisers, scales of weights, corrected biases.
One set of scales serves the native engine, ONNX Runtime and TensorRT. ``docs/calibration.md`` is
the format's page.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.spec import (
    EnsembleSpec,
    Name,
    Sha256,
    SpecialistSpec,
    Strict,
    read_json_model,
)
from eosfm_edge.errors import UserError
from eosfm_edge.files import atomic_directory, sha256_file
from eosfm_edge.network.deployed import DeployedEncoder, Depthwise, Layer, Levels, Rounding
from eosfm_edge.network.precision import LayerPrecision

CALIBRATION_NAME = "calibration.json"
TENSORS_NAME = "calibration.safetensors"
PLOT_NAME = "sensitivity.png"
CONTENTS = (CALIBRATION_NAME, TENSORS_NAME, PLOT_NAME)

Grn = Literal["exact", "static"]
Range = tuple[float, float]


class LayerScales(Strict):
    """How one layer is computed.

    Attributes:
        name: as in the native engine's files: ``stages.2.blocks.4.fc1``.
        precision: what it is computed in; depthwise convolutions in int8 only by TensorRT.
        method: what chose the range.
        range: of the inputs, divided by the equaliser, that the levels are spread over.
        equalisation: the exponent of the equaliser: 0 is none.
        output: of a depthwise convolution, the range of its outputs.
        sensitivity_db: signal to noise of every level when this layer alone is int8.
    """

    name: str
    precision: LayerPrecision
    method: str
    range: Range
    equalisation: float
    output: Range | None = None
    sensitivity_db: tuple[float, ...]


class LevelFidelity(Strict):
    """One level against fp32, on tiles that no scale was made from.

    Attributes:
        cosine: mean over cells of the cosine between the channel vectors.
        sqnr_db: energy of the signal over that of the difference; None where there is none.
        drop: percentage of cells that a nearest-centroid probe of the fp32 features, of 16
            centroids, gives another label.
    """

    cosine: float
    sqnr_db: float | None
    drop: float


class BandRange(Strict):
    """What was seen of one band of the input, in physical units."""

    low: float
    high: float
    percentiles: Range


class SpecialistScales(Strict):
    """The scales of one specialist.

    Attributes:
        name, weights_sha256: of the specialist that they were made for.
        bands: ranges of its input's bands.
        layers: in order.
        static_grn: what static GRN alone leaves of the levels, if it is static.
        native: the levels in libeosfm's int8, after normalisation.
        tensorrt: the same in TensorRT's.
    """

    name: Name
    weights_sha256: Sha256
    bands: tuple[BandRange, ...]
    layers: tuple[LayerScales, ...]
    static_grn: tuple[LevelFidelity, ...] | None = None
    native: tuple[LevelFidelity, ...]
    tensorrt: tuple[LevelFidelity, ...]


class CalibrationData(Strict):
    """Which tiles the scales were made from. ``sha256`` is of their stored values."""

    tiles: int = Field(ge=1)
    held_out: int = Field(ge=1)
    size: int = Field(ge=32, multiple_of=32)
    seed: int
    sha256: Sha256
    source: str


class Calibration(Strict):
    """The content of ``calibration.json``. ``fused`` is the fidelity of the ensemble's levels."""

    format: Literal["eosfm-calibration"] = "eosfm-calibration"
    schema_version: Literal[1] = 1
    ensemble: Name
    created_with: str
    grn: Grn
    min_cosine: float
    max_drop: float | None
    data: CalibrationData
    specialists: tuple[SpecialistScales, ...] = Field(min_length=1)
    fused: tuple[LevelFidelity, ...]
    tensors_sha256: Sha256


Tensors = Mapping[str, Tensor]


def read_calibration(directory: Path) -> tuple[Calibration, Tensors]:
    """Read and check a calibration.

    Raises:
        UserError: it is missing, breaks the schema, or its tensors are not those written with it.
    """
    what = f"a calibration, which has {CALIBRATION_NAME}; eosfm-edge calibrate makes one"
    calibration = read_json_model(Calibration, directory / CALIBRATION_NAME, what=what)
    path = directory / TENSORS_NAME
    try:
        if sha256_file(path) != calibration.tensors_sha256:
            raise UserError(
                f"{path} is not the file that {CALIBRATION_NAME} was written with",
                expected=f"SHA-256 {calibration.tensors_sha256}",
                remedy="calibrate again, or put the original file back",
            )
        return calibration, load(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error


def save_calibration(
    directory: Path,
    calibration: Calibration,
    tensors: Tensors,
    *,
    overwrite: bool,
    plot: bytes | None = None,
) -> Calibration:
    """Write a calibration, whole or not at all; returns it with the digest of its tensors."""
    with atomic_directory(directory, contents=CONTENTS, overwrite=overwrite) as scratch:
        save_file({k: v.contiguous() for k, v in tensors.items()}, scratch / TENSORS_NAME)
        digest = sha256_file(scratch / TENSORS_NAME)
        calibration = calibration.model_copy(update={"tensors_sha256": digest})
        text = calibration.model_dump_json(indent=1)
        (scratch / CALIBRATION_NAME).write_text(text + "\n")
        if plot is not None:
            (scratch / PLOT_NAME).write_bytes(plot)
    return calibration


def require_fits(calibration: Calibration, spec: EnsembleSpec, directory: Path) -> None:
    """Complain if a calibration was made for other specialists than those an ensemble runs.

    Raises:
        UserError: it was; names the first that differs.
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
    layer.rounding = rounding_of(scales, part["equaliser"], part["weight_scale"])


def rounding_of(scales: LayerScales, equaliser: Tensor, weight_scale: Tensor) -> Rounding:
    """Return what a layer's scales say."""
    if scales.output is None:
        return Rounding(equaliser, Levels.over(*scales.range), weight_scale)
    around = Levels.around_zero
    return Rounding(equaliser, around(*scales.range), weight_scale, around(*scales.output))


def _key(specialist: str, layer: str, part: str) -> str:
    return f"{specialist}:{layer}:{part}"
