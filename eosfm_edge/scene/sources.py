"""Resolve ``--data``: scenes, folders of bands or of chips, and manifests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eosfm_edge.errors import UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.bands import Band, parse_bands
from eosfm_edge.formats.base import read_yaml_model
from eosfm_edge.formats.imagery import CalibrationManifest, ManifestFile, bare_name
from eosfm_edge.scene.bands import is_scene
from eosfm_edge.scene.containers import SceneName, container_of
from eosfm_edge.scene.products import band_files, metadata_files
from eosfm_edge.scene.reading import Radiometry

CHIPS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2")
MANIFESTS = (".yaml", ".yml")
_MANIFEST = "a manifest of calibration data"


@dataclass(frozen=True)
class Part:
    """A raster, or a folder of bands, and how it is read."""

    path: SceneName
    names: Sequence[Band] | None
    radiometry: Radiometry


@dataclass(frozen=True)
class Source:
    """The images that one ``--data`` names.

    Attributes:
        title: as messages name it.
        record: as records that travel name it, without its place.
        parts: at least one.
        chips: whether the parts are chips of one folder.
    """

    title: str
    record: str
    parts: tuple[Part, ...]
    chips: bool = False


def find_sources(
    data: Sequence[SceneName],
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
) -> list[Source]:
    """Find out what is to be read.

    Args:
        data: each a raster scene (a path, or GDAL's name for it), a folder of single-band files, a
            folder of chips, which are rasters that hold all bands, or a manifest (``.yaml``).
        names: what the bands of raster files are, or the files of folders in the order of their
            names, if neither they nor a manifest say so.
        radiometry: scale, offset and nodata, whatever files and manifests say.

    Raises:
        UserError: a folder holds nothing that can be read, a manifest is not valid, a file is not
            what its manifest says, or something is given twice.
    """
    sources = [_source(name, names, radiometry or Radiometry()) for name in data]
    seen = set()
    for part in (part for source in sources for part in source.parts):
        place = os.path.realpath(part.path) if isinstance(part.path, Path) else part.path
        if place in seen:
            raise UserError(
                f"a scene is given twice: {part.path}",
                remedy="give each --data once, and nothing that a manifest or folder has in it",
            )
        seen.add(place)
    return sources


def _source(name: SceneName, names: Sequence[Band] | None, radiometry: Radiometry) -> Source:
    if isinstance(name, Path) and name.suffix.lower() in MANIFESTS:
        manifest = read_manifest(name)
        parts = tuple(_listed(name, file, names, radiometry) for file in manifest.files)
        licence = manifest.licence
        record = f"{manifest.name} ({bare_name(name)}, {licence})"
        return Source(f"{manifest.name} ({name}, {licence})", record, parts)
    if isinstance(name, Path) and name.is_dir() and not is_scene(name, names):
        chips = [Part(path, names, radiometry) for path in _chips(name)]
        count = f"({len(chips)} chips)"
        return Source(f"{name} {count}", f"{bare_name(name)} {count}", tuple(chips), chips=True)
    return Source(str(name), bare_name(name), (Part(name, names, radiometry),))


def _chips(folder: Path) -> list[Path]:
    """Return the images of a folder, or else those of its folders, one for each class or so."""
    chips = _images(folder)
    if chips:
        return chips
    for place in sorted(path for path in folder.rglob("*") if path.is_dir()):
        if any(part.startswith(".") for part in place.relative_to(folder).parts):
            continue
        if is_scene(place, None):
            raise UserError(
                f"{folder} holds folders of chips or scenes: {place} is a scene",
                expected="a scene, or chips in it or in folders for each class",
                remedy=f"give each scene by itself, such as --data {place}",
            )
        chips += _images(place)
    if not chips:
        raise UserError(
            f"{folder} holds neither band files nor chips",
            expected="files like ..._B04.jp2 or ..._VV.tif, or rasters that hold all bands "
            f"({' '.join(CHIPS)}), also in folders for each class",
        )
    return chips


def _images(folder: Path) -> list[Path]:
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in files if path.suffix.lower() in CHIPS and path.is_file()]


def read_manifest(path: Path) -> CalibrationManifest:
    """Read a manifest; the files that it names are not looked at.

    Raises:
        UserError: there is none, or it is not valid; names the field.
    """
    return read_yaml_model(CalibrationManifest, path, what=_MANIFEST)


def _listed(
    manifest: Path, file: ManifestFile, names: Sequence[Band] | None, radiometry: Radiometry
) -> Part:
    """Check the digests of what a manifest lists; what the caller says of values counts more."""
    path = manifest.parent / file.path
    for place, expected in _digests(manifest, path, file):
        try:
            found = sha256_file(place)
        except OSError as error:
            raise UserError(f"cannot read {place}: {error.strerror}") from error
        if found != expected:
            raise UserError(
                f"{place} is not the file that {manifest} lists: its SHA-256 is {found}",
                expected=expected,
                remedy="get the file again, or correct the manifest if the file is meant to differ",
            )
    if file.bands:
        names = parse_bands(",".join(file.bands))
    elif path.is_dir():
        names = None  # what the caller says is of files
    said = {k: v for k, v in vars(radiometry).items() if v is not None}
    return Part(
        path,
        names,
        replace(Radiometry(file.scale, file.offset, file.nodata), **said),
    )


def _digests(manifest: Path, path: Path, file: ManifestFile) -> Iterator[tuple[Path, str]]:
    """Give every file of an entry with the digest that it should have."""
    if isinstance(file.sha256, str):
        _require(path.is_file(), path, "is no file", manifest)
        yield path, file.sha256
        return
    _require(path.is_dir(), path, "is no folder", manifest)
    for name, digest in file.sha256.items():
        _require((path / name).is_file(), path / name, "is no file", manifest)
        yield path / name, digest
    folder = container_of(path)
    for place in (*band_files(folder), *metadata_files(folder)) if folder else ():
        if place.relative_to(path).as_posix() not in file.sha256:
            raise UserError(
                f"{place} is in a folder that {manifest} lists, but is not listed there",
                remedy="move it elsewhere, or add its SHA-256 to the manifest",
            )


def _require(there: bool, path: Path, what: str, manifest: Path) -> None:
    if not there:
        raise UserError(
            f"{path} {what if path.exists() else 'does not exist'}",
            expected=f"what {manifest} lists: a file with its SHA-256, or a folder of bands with "
            "those of its files",
        )
