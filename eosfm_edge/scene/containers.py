"""Folders and archives that hold a scene's rasters and metadata, listed and read alike."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath, PurePosixPath
from typing import Protocol

from eosfm_edge.errors import UserError

# A path, or a name that GDAL knows and the file system does not: https://..., HDF5:"..."://...
SceneName = Path | str

_MOST_METADATA = 32 << 20  # bytes; a Sentinel-2 product's are under 1 MB
_ARCHIVES = {".zip": "/vsizip/", ".tar": "/vsitar/"}
# Files that stand for the folder that they lie in: a product's metadata.
_STANDS_FOR_ITS_FOLDER = re.compile(
    r"(MTD_MSIL\w+|MTD_TL|.*_MTD_\w+)\.xml|manifest\.safe|.*_MTL\.(txt|xml|json)", re.IGNORECASE
)
_STORES = {".zarr"}  # folders that GDAL opens as a raster


class Container(Protocol):
    """A folder or archive.

    Attributes:
        name: as messages call it.
        root: where its files are looked for.
    """

    name: SceneName
    root: PurePath

    def files(self, folder: PurePath, pattern: str = "*") -> list[PurePath]:
        """Return the files below a folder whose path from there is as the pattern, in order.

        Hidden files, such as the ``._`` twins that macOS writes, are left out.
        """

    def read(self, file: PurePath) -> bytes:
        """Return a file of metadata.

        Raises:
            UserError: it cannot be read, or is far too large to be metadata.
        """

    def place(self, file: PurePath) -> SceneName:
        """Return a file as GDAL opens it."""


def container_of(name: SceneName) -> Container | None:
    """Return the folder or archive that a scene's name stands for, or None: it is a raster.

    Raises:
        UserError: an archive cannot be read.
    """
    if isinstance(name, str):
        return _archive_of(name)
    if name.is_dir():
        return None if name.suffix.lower() in _STORES else _Folder(name, name)
    if name.suffix.lower() in _ARCHIVES and name.is_file():
        return _Archive(name, name, PurePosixPath("."))
    if _STANDS_FOR_ITS_FOLDER.fullmatch(name.name) and name.is_file():
        return _Folder(name, name.parent)
    return None


class _Folder:
    def __init__(self, name: SceneName, root: Path) -> None:
        self.name = name
        self.root: PurePath = root

    def files(self, folder: PurePath, pattern: str = "*") -> list[PurePath]:
        try:
            return [
                path
                for path in sorted(Path(folder).glob(pattern))
                if not path.name.startswith(".") and path.is_file()
            ]
        except OSError as error:
            raise UserError(f"cannot list {folder}: {error.strerror}") from error

    def read(self, file: PurePath) -> bytes:
        try:
            _require_small(file, Path(file).stat().st_size)
            return Path(file).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from error

    def place(self, file: PurePath) -> SceneName:
        return Path(file)


class _Archive:
    def __init__(self, name: SceneName, path: Path, root: PurePosixPath) -> None:
        self.name = name
        self.root: PurePath = root
        self._path = path
        self._zipped = path.suffix.lower() == ".zip"
        with self._errors():
            if self._zipped:
                with zipfile.ZipFile(path) as archive:
                    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
            else:
                with tarfile.open(path, "r:") as members:
                    sizes = {entry.name: entry.size for entry in members if entry.isfile()}
        self._sizes = {
            PurePosixPath(entry): size
            for entry, size in sorted(sizes.items())
            if not entry.endswith("/") and not _is_hidden(entry)
        }
        tops = {file.parts[0] for file in self._sizes}
        if (
            self.root == PurePosixPath(".")
            and len(tops) == 1
            and PurePosixPath(*tops) not in self._sizes
        ):
            self.root = PurePosixPath(*tops)  # all is in one folder, as usual

    def files(self, folder: PurePath, pattern: str = "*") -> list[PurePath]:
        wanted = (*folder.parts, *PurePosixPath(pattern).parts)
        return [
            file
            for file in self._sizes
            if len(file.parts) == len(wanted)
            and all(fnmatch(*pair) for pair in zip(file.parts, wanted, strict=True))
        ]

    def read(self, file: PurePath) -> bytes:
        found = PurePosixPath(file)
        _require_small(f"{file} in {self._path}", self._sizes[found])
        with self._errors():
            if self._zipped:
                with zipfile.ZipFile(self._path) as archive, archive.open(str(found)) as stream:
                    return stream.read(_MOST_METADATA)
            with tarfile.open(self._path, "r:") as members:
                member = members.extractfile(str(found))
                return member.read(_MOST_METADATA) if member else b""

    def place(self, file: PurePath) -> SceneName:
        return f"{_ARCHIVES[self._path.suffix.lower()]}{self._path.absolute()}/{file}"

    def holds(self, inside: PurePosixPath) -> bool:
        """Return whether a path is one of its folders."""
        return any(inside in file.parents for file in self._sizes)

    def _errors(self) -> _ArchiveErrors:
        return _ArchiveErrors(self._path)


class _ArchiveErrors:
    """Turns what the archive readers raise into a UserError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        damaged = (zipfile.BadZipFile, tarfile.TarError, EOFError, KeyError, RuntimeError)
        if isinstance(error, (OSError, NotImplementedError, *damaged)):
            raise UserError(
                f"cannot read {self._path} as an archive: {error}",
                expected="a .zip or an uncompressed .tar",
                remedy="get it again, or unpack it and give its folder",
            ) from error


def _archive_of(name: str) -> Container | None:
    """Return the archive that GDAL's name for one, or for a folder in it, means."""
    for suffix, prefix in _ARCHIVES.items():
        found = re.fullmatch(
            rf"{prefix}{{?(.+?{re.escape(suffix)})}}?(?:/(.*))?", name, re.IGNORECASE
        )
        if found is None or not Path(found[1]).is_file():
            continue
        inside = PurePosixPath(found[2] or ".")
        if _STANDS_FOR_ITS_FOLDER.fullmatch(inside.name):
            inside = inside.parent
        archive = _Archive(name, Path(found[1]), inside)
        return archive if inside == PurePosixPath(".") or archive.holds(inside) else None
    return None


def _is_hidden(entry: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(entry).parts)


def _require_small(file: object, size: int) -> None:
    if size > _MOST_METADATA:
        raise UserError(
            f"{file} is {size} bytes long", expected=f"metadata of at most {_MOST_METADATA} bytes"
        )


def upwards(file: PurePath) -> Iterator[PurePath]:
    """Give the folder that a file lies in and, inside a Sentinel-2 product, those above it."""
    yield file.parent
    places = (Path(file).absolute() if isinstance(file, Path) else file).parents
    names = [place.name for place in places]
    if "IMG_DATA" in names[:2]:
        granule = names.index("IMG_DATA") + 1
        yield from places[granule : granule + 3]
