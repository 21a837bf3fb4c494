"""The content of ``calibration.json``: the int8 scales of every layer of an ensemble's specialists.

Reading, checking and printing it needs no torch. ``calibration/calibration.schema.json`` is its
JSON schema, ``docs/calibration.md`` the format's page.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, PlainSerializer, WithJsonSchema

from eosfm_edge.formats.base import Name, Sha256, Strict, read_json_model
from eosfm_edge.formats.precision import LayerPrecision

CALIBRATION_NAME = "calibration.json"
TENSORS_NAME = "calibration.safetensors"
TABLE_NAME = "sensitivity.csv"
PLOT_NAME = "sensitivity.png"
CONTENTS = (CALIBRATION_NAME, TENSORS_NAME, TABLE_NAME, PLOT_NAME)

Grn = Literal["exact", "static"]
# What clips activations; see eosfm_edge.calibration.observers.
Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] <= bounds[1]:
        raise ValueError("its first number is not to be above its second")
    return bounds


_Finite = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[tuple[_Finite, _Finite], AfterValidator(_ordered)]
# What overflows fp16 leaves figures that are not finite. JSON has no such numbers, only words.
Figure = Annotated[
    float,
    PlainSerializer(
        lambda value: value if math.isfinite(value) else str(value),
        return_type=float | str,
        when_used="json",
    ),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}),
]


class LayerScales(Strict):
    """The precision and scales of one layer.

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
    method: Method
    range: Range
    equalisation: float
    output: Range | None = None
    sensitivity_db: tuple[Figure, ...]


class LevelFidelity(Strict):
    """One level against fp32, on tiles that no scale was made from.

    Attributes:
        cosine: mean over cells of the cosine between the channel vectors.
        sqnr_db: energy of the signal over that of the difference; None where there is none.
        drop: percentage of cells that a nearest-centroid probe of the fp32 features, of 16
            centroids, gives another label.
    """

    cosine: Figure
    sqnr_db: Figure | None
    drop: float


class BandRange(Strict):
    """The values seen of one band of the input, in physical units."""

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
    """The tiles that the scales were made from. ``sha256`` is of their stored values."""

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


def read_scales(directory: Path) -> Calibration:
    """Read and check ``calibration.json``.

    Raises:
        UserError: it is missing, or breaks the schema.
    """
    what = f"a calibration, which has {CALIBRATION_NAME}; eosfm-edge calibrate makes one"
    return read_json_model(Calibration, directory / CALIBRATION_NAME, what=what)
