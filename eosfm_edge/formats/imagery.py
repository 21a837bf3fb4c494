"""Imagery to calibrate on: manifests, and what an ensemble's directory keeps of it.

``calibration/manifest.schema.json`` is the JSON schema of manifests.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import parse_bands
from eosfm_edge.formats.base import RelativePath, Sha256, Strict

IMAGERY_NAME = "imagery.json"


def _known(bands: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parse_bands(",".join(bands))
    except UserError as error:
        raise ValueError(str(error)) from error
    return bands


def bare_name(name: object) -> str:
    """Return the name of imagery for records that travel: its last part, without its place.

    Folders name people, projects and hosts, and addresses carry keys: a bundle is sent to others.

    Args:
        name: a path, or a name that only GDAL knows. Of one that lists settings, as that of a
            database does, the driver is left.
    """
    text = str(name)
    quoted = re.search(r'"([^"]*)"', text)
    last = PurePosixPath((quoted[1] if quoted else text).partition("?")[0]).name.strip("{}")
    if quoted and ":" in text[quoted.end() :]:
        last += text[quoted.end() :]  # the variable of a file
    return text.partition(":")[0] if not last or "=" in last else last


class ManifestFile(Strict):
    """A file, or a folder of single-band files, of a manifest, and how to read it.

    Attributes:
        path: relative to the manifest's folder.
        sha256: of the file; of a folder, by the names of its files.
        bands: what the bands of a file are, or the files of a folder in the order of their
            names, if these do not say so.
        scale, offset: physical = stored * scale + offset, whatever the file says.
        nodata: stored value of pixels without data; ``none``: no value is.
    """

    path: RelativePath
    sha256: Sha256 | Annotated[dict[RelativePath, Sha256], Field(min_length=1)]
    bands: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known)] | None = None
    scale: float | None = Field(default=None, allow_inf_nan=False)
    offset: float | None = Field(default=None, allow_inf_nan=False)
    nodata: Annotated[float, Field(allow_inf_nan=False)] | Literal["none"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ManifestFile:
        if self.scale == 0:
            raise ValueError("the scale must not be 0")
        return self


class CalibrationManifest(Strict):
    """Imagery to calibrate on: which files, whose, and how they are read."""

    format: Literal["eosfm-calibration-data"]
    name: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    source: str | None = None
    files: tuple[ManifestFile, ...] = Field(min_length=1)


class KeptFile(Strict):
    """A scene, a folder or a manifest.

    Attributes:
        path: absolute, or a name that only GDAL knows; in a ``deploy.yaml`` its last part.
        sha256: of the file; of a folder, by the names of its files; None for GDAL's names.
    """

    path: str = Field(min_length=1)
    sha256: Sha256 | Annotated[dict[RelativePath, Sha256], Field(min_length=1)] | None


class KeptImagery(Strict):
    """``imagery.json`` of an ensemble: the imagery that verbs use where none is given.

    Attributes:
        files: at least one.
        seed: of the choice of tiles.
        bands, scale, offset, nodata: as in a manifest.
    """

    schema_version: Literal[1] = 1
    files: tuple[KeptFile, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    bands: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known)] | None = None
    scale: float | None = Field(default=None, allow_inf_nan=False)
    offset: float | None = Field(default=None, allow_inf_nan=False)
    nodata: Annotated[float, Field(allow_inf_nan=False)] | Literal["none"] | None = None

    def without_places(self) -> KeptImagery:
        """Return the description for a record that travels: names and digests, no paths."""
        files = [one.model_copy(update={"path": bare_name(one.path)}) for one in self.files]
        return self.model_copy(update={"files": tuple(files)})
