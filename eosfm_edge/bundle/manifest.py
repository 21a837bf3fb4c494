"""``manifest.json``: what a bundle is, takes, gives, and is made of.

``export/manifest.schema.json`` is this model's JSON schema, ``export/bundle.md`` the format's page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from eosfm_edge.ensemble.adaptation import Indices
from eosfm_edge.ensemble.bands import Band
from eosfm_edge.ensemble.spec import (
    InputBand,
    Name,
    Provenance,
    RelativePath,
    Sha256,
    Strict,
    read_json_model,
)

MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
KNOWN_ANSWER_NAME = "known_answer.safetensors"
CHAIN_NAME = "chain.gguf"
SPECIALISTS_FOLDER = "specialists"
BUNDLE_SUFFIX = ".eosfm"


class Tile(Strict):
    """The image that the model takes: ``size`` x ``size`` pixels, one at a time or in batches."""

    size: int = Field(ge=32, le=1024, multiple_of=32)
    dynamic_batch: bool = False


class Level(Strict):
    """One output map: every ``stride`` pixels of the image give one cell of ``channels``."""

    name: str
    stride: int = Field(ge=1)
    channels: int = Field(ge=1)


class BundledSpecialist(Strict):
    """A specialist that is in the model, with the input's bands of each of its runs."""

    name: Name
    backbone: str
    bands: tuple[Band, ...]
    runs: tuple[Indices, ...]
    factor: float
    weights_sha256: Sha256
    provenance: Provenance


class LeftOut(Strict):
    """A specialist of the ensemble that is not in the model, and why."""

    name: Name
    reason: Literal["no rule for the input's bands", "not selected"]


class LevelDifference(Strict):
    """How far a level is from the PyTorch ensemble's: largest difference over largest value."""

    level: str
    relative: float = Field(ge=0)


class Parity(Strict):
    """The check made when the bundle was written: this model against the PyTorch ensemble."""

    backend: str
    tiles: int = Field(ge=1)
    tolerance: float = Field(gt=0)
    levels: tuple[LevelDifference, ...]


class FileEntry(Strict):
    """Size in bytes and digest of a file of the bundle."""

    size: int = Field(ge=0)
    sha256: Sha256


class Manifest(Strict):
    """The content of ``manifest.json``."""

    format: Literal["eosfm-bundle"] = "eosfm-bundle"
    schema_version: Literal[1] = 1
    name: Name
    created_with: str
    target: str
    precision: Literal["fp32"]
    tile: Tile
    input: tuple[InputBand, ...] = Field(min_length=1)
    levels: tuple[Level, ...] = Field(min_length=1)
    specialists: tuple[BundledSpecialist, ...] = Field(min_length=1)
    left_out: tuple[LeftOut, ...] = ()
    parity: Parity
    files: dict[RelativePath, FileEntry]

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        for needed in (MODEL_NAME, KNOWN_ANSWER_NAME):
            if needed not in self.files:
                raise ValueError(f"files does not list {needed}")
        for specialist in self.specialists:
            for run in specialist.runs:
                if any(index < 0 or index >= len(self.input) for index in run):
                    raise ValueError(f"a run of {specialist.name} takes bands beyond the input")
        return self


def read_manifest(bundle: Path) -> Manifest:
    """Read and check the manifest of a bundle directory.

    Raises:
        UserError: it is missing or breaks the schema.
    """
    return read_json_model(Manifest, bundle / MANIFEST_NAME)
