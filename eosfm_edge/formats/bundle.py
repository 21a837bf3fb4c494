"""``manifest.json``: what a bundle is, takes, gives, and is made of.

``export/manifest.schema.json`` is this model's JSON schema, ``export/bundle.md`` the format's page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from eosfm_edge.errors import UserError
from eosfm_edge.formats.adaptation import Indices
from eosfm_edge.formats.backends import CpuBackend, Source
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.base import (
    NAME_PATTERN,
    Name,
    RelativePath,
    Sha256,
    Strict,
    read_json_model,
)
from eosfm_edge.formats.ensemble import (
    PALETTE_NAME,
    SPEC_NAME,
    InputBand,
    Provenance,
    PruningRecord,
    Shape,
)
from eosfm_edge.formats.heads import HEADS_FOLDER
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import Profile

MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
CHAIN_NAME = "chain.gguf"
FUSION_NAME = "fusion.onnx"
SPECIALISTS_FOLDER = "specialists"
DEVICE_FOLDER = "device"
DEPLOY_NAME = "deploy.yaml"  # how the bundle was made, where eosfm-edge deploy made it
# What building leaves on the device. It is no part of what was exported: see engines/store.py.
ENGINES_FOLDER = "engines"
BUNDLE_SUFFIX = ".eosfm"
# The files of a bundle: `--overwrite` replaces nothing else.
CONTENTS = (
    MANIFEST_NAME,
    DEPLOY_NAME,
    MODEL_NAME,
    FUSION_NAME,
    CHAIN_NAME,
    PALETTE_NAME,
    f"{SPECIALISTS_FOLDER}/*.gguf",
    f"{SPECIALISTS_FOLDER}/*.onnx",
    f"{HEADS_FOLDER}/*.gguf",
    f"{DEVICE_FOLDER}/*",
    f"{DEVICE_FOLDER}/bin/*",
    f"{DEVICE_FOLDER}/lib/*",
    f"{DEVICE_FOLDER}/include/*",
    f"{DEVICE_FOLDER}/examples/*",
    f"{ENGINES_FOLDER}/*",
)

# Who reads a file: all of them; the CPU and CUDA engines of libeosfm; ONNX Runtime and TensorRT;
# libeosfm, where an answer is wanted, whichever engine computes; no engine, but who draws pictures
# of features, or who sets a board up; or nobody there, but who wants to know how the bundle was
# made.
Role = Literal["common", Source, "head", "picture", "device", "record"]
# What a bundle is exported for.
Purpose = Literal[Source, "all"]

# ``whole`` is one graph of the chain; ``split`` one for each specialist and one that fuses what
# they give; ``stacked`` one in which specialists of equal shape are computed together.
Layout = Literal["whole", "split", "stacked"]


class Tile(Strict):
    """The image that the graphs take: ``size`` x ``size`` pixels, up to ``batch`` at a time."""

    size: int = Field(ge=32, le=1024, multiple_of=32)
    batch: int = Field(default=1, ge=1, le=64)


class Level(Strict):
    """One output map: every ``stride`` pixels of the image give one cell of ``channels``."""

    name: Name
    stride: Literal[4, 8, 16, 32]
    channels: int = Field(ge=1)


class BundledSpecialist(Strict):
    """A specialist that is in the model, with the input's bands of each of its runs.

    ``shape`` and ``pruning`` are as in ``ensemble.json``.
    """

    name: Name
    backbone: str
    bands: tuple[Band, ...]
    runs: tuple[Indices, ...]
    factor: float
    weights_sha256: Sha256
    provenance: Provenance
    shape: Shape | None = None
    pruning: tuple[PruningRecord, ...] = ()


class LeftOut(Strict):
    """A specialist of the ensemble that is not in the model, and why."""

    name: Name
    reason: Literal["no rule for the input's bands", "not selected"]


class LevelDifference(Strict):
    """The difference of a level from the PyTorch ensemble's.

    Attributes:
        level: its name.
        relative: largest difference over largest value.
        sqnr_db: signal to noise, power over power of the difference, in decibels; none where only
            the largest difference is known.
    """

    level: str
    relative: float = Field(ge=0)
    sqnr_db: float | None = None


class Parity(Strict):
    """The check made when the bundle was written: a backend against the PyTorch ensemble.

    Attributes:
        backend: who computed.
        version: of the backend, and what it ran on.
        tiles: real tiles that were compared.
        tolerance: the known answer may be so far off, relative to a level's largest value.
        levels: the worst of all tiles.
        agreement: where values are rounded, the same against PyTorch's simulation of the backend's
            rounding.
    """

    backend: CpuBackend
    version: str
    tiles: int = Field(ge=1)
    tolerance: float = Field(gt=0)
    levels: tuple[LevelDifference, ...] = Field(min_length=1)
    agreement: tuple[LevelDifference, ...] | None = None

    @property
    def summary(self) -> str:
        """One-line summary."""
        worst = max(level.relative for level in self.levels)
        signals = [level.sqnr_db for level in self.levels if level.sqnr_db is not None]
        signal = f", signal to noise at least {min(signals):.0f} dB" if signals else ""
        return (
            f"{self.backend} {self.version} against PyTorch on {self.tiles} real tiles: "
            f"{worst:.1e} of the largest value at most{signal}"
        )


class Candidate(Strict):
    """A precision that ``--precision auto`` measured on the machine that exported.

    Attributes:
        precision: which.
        milliseconds: of libeosfm for a tile.
        min_cosine: the smallest of the levels' mean cosines with fp32.
        asked: what it must be.
        failed: what a check at export found wrong in a bundle of this precision, if one did.
    """

    precision: Precision
    milliseconds: float = Field(gt=0)
    min_cosine: float
    asked: float
    failed: str | None = None

    @property
    def keeps_budget(self) -> bool:
        """True if it has the requested fidelity."""
        return self.precision == "fp32" or self.min_cosine >= self.asked

    @property
    def summary(self) -> str:
        """One-line summary."""
        verdict = "keeps" if self.keeps_budget else "misses"
        return (
            f"{self.precision}: {self.milliseconds:.1f} ms, cosine {self.min_cosine:.5f}, "
            f"{verdict} {self.asked:g}" + (f"; dropped: {self.failed}" if self.failed else "")
        )


class CalibrationRecord(Strict):
    """The origin of an int8 bundle's scales.

    Attributes:
        tensors_sha256: of the calibration's tensors.
        data_sha256: of the stored values of the tiles that it saw.
        tiles: how many there were.
        source: what they are of.
        grn: ``static`` if constants stand for the norms of global response normalisation.
    """

    tensors_sha256: Sha256
    data_sha256: Sha256
    tiles: int = Field(ge=1)
    source: str
    grn: Literal["exact", "static"]


class FileEntry(Strict):
    """A file of the bundle.

    Attributes:
        size: in bytes.
        sha256: its digest.
        role: who reads it.
        compressed: its bytes after ``zstd -3``; none in version 1.
    """

    size: int = Field(ge=0)
    sha256: Sha256
    role: Role
    compressed: int | None = Field(default=None, ge=0)


def role_of(path: str) -> Role:
    """Return who reads a file of a bundle, by its path."""
    if path == DEPLOY_NAME:
        return "record"
    if path.startswith(f"{DEVICE_FOLDER}/"):
        return "device"
    if path.startswith(f"{HEADS_FOLDER}/"):
        return "head"
    if path.endswith(".onnx"):
        return "onnx"
    if path == PALETTE_NAME:
        return "picture"
    return "native" if path.startswith(f"{SPECIALISTS_FOLDER}/") else "common"


class Manifest(Strict):
    """The content of ``manifest.json``.

    Attributes:
        target: what the bundle is for; ``profile`` all that is known of it.
        candidates: what ``--precision auto`` chose from, the chosen one first.
        macs: multiply-accumulates of one tile.
        layout: of the graphs.
        graphs: what computes the levels in ONNX, in order. Each gives tensors, by their names, that
            those behind it take; the first takes ``image``, and the last give the levels. None
            where the bundle has no ONNX graphs.
        files: all but this one. Those of version 1 had no roles, and get theirs when it is read.
    """

    format: Literal["eosfm-bundle"] = "eosfm-bundle"
    schema_version: Literal[2] = 2
    name: Name
    created_with: str
    target: str
    profile: Profile | None = None
    precision: Precision
    candidates: tuple[Candidate, ...] = ()
    calibration: CalibrationRecord | None = None
    tile: Tile
    macs: int | None = Field(default=None, ge=1)
    input: tuple[InputBand, ...] = Field(min_length=1)
    levels: tuple[Level, ...] = Field(min_length=1)
    specialists: tuple[BundledSpecialist, ...] = Field(min_length=1)
    left_out: tuple[LeftOut, ...] = ()
    parity: tuple[Parity, ...] = Field(min_length=1)
    layout: Layout = "whole"
    graphs: tuple[RelativePath, ...] = ()
    files: dict[RelativePath, FileEntry]

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, data: Any) -> Any:
        """Give the files of version 1 the roles that their paths say."""
        if not isinstance(data, dict) or data.get("schema_version") != 1:
            return data
        files = data.get("files")
        if isinstance(files, dict):
            files = {
                name: {"role": role_of(name), **entry} if isinstance(entry, dict) else entry
                for name, entry in files.items()
            }
        return {"graphs": [MODEL_NAME], **data, "schema_version": 2, "files": files}

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        for needed in (*self.graphs, CHAIN_NAME):
            if needed not in self.files:
                raise ValueError(f"files does not list {needed}")
        for path, entry in self.files.items():
            if entry.role != role_of(path):
                raise ValueError(f"files.{path}.role is {entry.role}, expected {role_of(path)}")
        if odd := set(self.graphs) ^ set(self.of_role("onnx")):
            raise ValueError(f"{min(odd)} is among graphs or the files of role onnx, expected both")
        if not self.of_role("native", "onnx"):
            raise ValueError("files lists neither native files nor ONNX graphs: nothing to compute")
        names = [level.name for level in self.levels]
        if len(set(names)) != len(names):
            raise ValueError(f"levels have the same name: {', '.join(names)}")
        for specialist in self.specialists:
            for run in specialist.runs:
                if any(index < 0 or index >= len(self.input) for index in run):
                    raise ValueError(f"a run of {specialist.name} takes bands beyond the input")
        return self

    def of_role(self, *roles: Role) -> list[str]:
        """Return the paths of the files of some roles."""
        return [path for path, entry in self.files.items() if entry.role in roles]


def require_bundle_name(bundle: Path) -> None:
    """Check that a path can be a bundle's.

    Raises:
        UserError: its name does not end in ``.eosfm``, or has other characters than a name may.
    """
    if bundle.suffix != BUNDLE_SUFFIX or not re.fullmatch(NAME_PATTERN, bundle.stem):
        raise UserError(
            f"{bundle} is no name for a bundle",
            expected=f"NAME{BUNDLE_SUFFIX}, NAME of letters, digits, '.', '_' and '-'",
        )


def read_manifest(bundle: Path) -> Manifest:
    """Read and check the manifest of a bundle directory.

    Raises:
        UserError: it is missing or breaks the schema.
    """
    path = bundle / MANIFEST_NAME
    if (bundle / SPEC_NAME).is_file() and not path.exists():
        raise UserError(
            f"{bundle} is an ensemble",
            expected=f"a bundle, which has {MANIFEST_NAME}",
            remedy="make one of it with eosfm-edge export",
        )
    return read_json_model(Manifest, path, what=f"a bundle, which has {MANIFEST_NAME}")
