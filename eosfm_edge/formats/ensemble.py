"""The content of ``ensemble.json``: everything about an ensemble but its tensors.

Reading, checking and printing it needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    TypeAdapter,
    model_validator,
)

from eosfm_edge.errors import UserError
from eosfm_edge.formats.adaptation import AdaptationMode, Indices, feature_sets
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.base import Name, RelativePath, Sha256, Strict, read_json_model
from eosfm_edge.formats.imagery import IMAGERY_NAME

SPEC_NAME = "ensemble.json"
SHARED_NAME = "ensemble.safetensors"
SPECIALISTS_FOLDER = "specialists"
PALETTE_NAME = "palette.safetensors"  # bundle/palette.py
# What an ensemble's directory holds.
CONTENTS = (
    SPEC_NAME,
    SHARED_NAME,
    IMAGERY_NAME,
    PALETTE_NAME,
    f"{SPECIALISTS_FOLDER}/*.safetensors",
)
_BUNDLE_HAS = "manifest.json"  # formats.bundle, which reads it, imports this module
LEVEL_STRIDES = (4, 8, 16, 32)
LEVELS = range(len(LEVEL_STRIDES))
LEVEL_NAMES = tuple(f"level{index + 1}" for index in LEVELS)

NormalisationMode = Literal["batch", "layer", "none"]
FusionMode = Literal["none", "conv1x1", "mlp", "addition", "multiplication"]


class InputBand(Band):
    """A band of the ensemble's input and how its stored values are to be read.

    physical = stored * scale + offset. ``nodata`` and ``fill`` are stored values: pixels where
    any band is ``nodata`` are not valid, and are given ``fill`` before the specialists see them.
    Specialists that were trained on standardised values have ``mean`` and ``std`` of stored values,
    and see (stored - mean) / std instead of the physical value.
    """

    scale: float = Field(default=1.0, allow_inf_nan=False)
    offset: float = Field(default=0.0, allow_inf_nan=False)
    nodata: float | None = Field(default=None, allow_inf_nan=False)
    fill: float = Field(default=0.0, allow_inf_nan=False)
    mean: float | None = Field(default=None, allow_inf_nan=False)
    std: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _scale_is_usable(self) -> InputBand:
        if self.scale == 0:
            raise ValueError("a band's scale must not be 0")
        if (self.mean is None) != (self.std is None):
            raise ValueError("a band has a mean and a std, or neither")
        return self

    @property
    def seen(self) -> tuple[float, float]:
        """The scale and offset that make of a stored value what specialists see."""
        if self.mean is None or self.std is None:
            return self.scale, self.offset
        return 1 / self.std, -self.mean / self.std


class Provenance(Strict):
    """The source of a specialist, and the terms of its use."""

    source: str
    source_sha256: Sha256 | None = None
    licence: str | None = None
    citation: str | None = None


PrunedWidth = Annotated[int, Field(ge=8, multiple_of=8)]


class Shape(Strict):
    """Channels that pruning left of an encoder.

    Attributes:
        widths: of the four levels.
        hidden: of every block, stage by stage.
    """

    widths: tuple[PrunedWidth, PrunedWidth, PrunedWidth, PrunedWidth]
    hidden: tuple[tuple[PrunedWidth, ...], ...] = Field(min_length=4, max_length=4)


class PruningRecord(Strict):
    """One pruning of a specialist: what it was, what was asked for, and what it was repaired on.

    ``macs_before`` and ``macs_after`` are multiply-accumulates for one input pixel.
    """

    created_with: str
    parent_sha256: Sha256
    plan_sha256: Sha256
    scope: Literal["hidden", "width"]
    criterion: str
    ranking: str
    macs_before: float
    macs_after: float
    repair: tuple[Literal["grn", "fc2", "distillation"], ...]
    distillation_steps: int = Field(default=0, ge=0)
    seed: int
    tiles: int = Field(ge=1)
    tiles_sha256: Sha256


class SpecialistSpec(Strict):
    """One specialist: a timm ConvNeXtV2 run for its features, with the bands it wants.

    ``shape`` is there if the specialist was pruned; ``pruning`` says how, the latest last.
    """

    name: Name
    backbone: str = Field(pattern=r"^convnextv2_[a-z0-9_]+$")
    bands: tuple[Band, ...] = Field(min_length=1)
    weights: RelativePath
    weights_sha256: Sha256
    provenance: Provenance
    shape: Shape | None = None
    pruning: tuple[PruningRecord, ...] = ()


class SelectionSpec(Strict):
    """The rule by which each specialist counts.

    ``topk``: the ``k`` largest selection weights count 1, or their value with
    ``scale_features``; the others 0. ``smooth``: the sigmoid of the weight, or its value.
    """

    mode: Literal["topk", "smooth"] = "topk"
    k: int | None = Field(default=None, ge=1)  # None: all
    scale_features: bool = False


class EnsembleSpec(Strict):
    """An ensemble without its tensors: the content of ``ensemble.json``."""

    schema_version: Literal[1] = 1
    name: Name
    input: tuple[InputBand, ...] = Field(min_length=1)
    specialists: tuple[SpecialistSpec, ...] = Field(min_length=1)
    adaptation: AdaptationMode = "name"
    normalisation: NormalisationMode
    projection: bool
    selection: SelectionSpec
    fusion: FusionMode
    shared_sha256: Sha256

    @model_validator(mode="after")
    def _consistent(self) -> EnsembleSpec:
        names = [specialist.name for specialist in self.specialists]
        if len(set(names)) != len(names):
            raise ValueError(f"specialists have the same name: {', '.join(names)}")
        if self.selection.k is not None and self.selection.k > len(names):
            raise ValueError(f"selection.k is {self.selection.k}, specialists are {len(names)}")
        return self

    def feature_sets(self) -> tuple[tuple[Indices, ...], ...]:
        """Return for each specialist the input's band indices of each of its runs."""
        return tuple(feature_sets(s.bands, self.input, self.adaptation) for s in self.specialists)


# How the parts of an ensemble travel in the header of a .safetensors file, as JSON strings.
INPUT_ADAPTER: TypeAdapter[tuple[InputBand, ...]] = TypeAdapter(tuple[InputBand, ...])
PRUNING_ADAPTER: TypeAdapter[tuple[PruningRecord, ...]] = TypeAdapter(tuple[PruningRecord, ...])


def read_spec(directory: Path) -> EnsembleSpec:
    """Read and check ``ensemble.json`` of an ensemble directory.

    Raises:
        UserError: it is missing, is not JSON or breaks the schema.
    """
    what = f"an ensemble, which has {SPEC_NAME}"
    if (directory / _BUNDLE_HAS).exists() and not (directory / SPEC_NAME).exists():
        raise UserError(
            f"{directory} is a bundle", expected=what, remedy="give what it was exported from"
        )
    return read_json_model(EnsembleSpec, directory / SPEC_NAME, what=what)
