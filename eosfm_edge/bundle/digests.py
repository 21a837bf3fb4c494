"""The files of a bundle against the digests in its manifest."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from eosfm_edge.files import file_kind, sha256_file
from eosfm_edge.formats.bundle import (
    ENGINES_FOLDER,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    role_of,
)

_CHUNK = 1 << 20


def file_entries(directory: Path) -> dict[str, FileEntry]:
    """Return the entry of every file below a directory but the manifest, by relative path.

    What is in the folder of engines is left out: it has a list of its own.
    """
    return {
        name: file_entry(directory, name)
        for name, mode in sorted(_below(directory))
        if stat.S_ISREG(mode)
        and PurePosixPath(name).parts[0] not in (MANIFEST_NAME, ENGINES_FOLDER)
    }


def file_entry(directory: Path, name: str) -> FileEntry:
    """Return the entry of a file of a bundle, by its path in the bundle's directory."""
    path = directory / name
    return FileEntry(
        size=path.stat().st_size,
        sha256=sha256_file(path),
        role=role_of(name),
        compressed=zstd_size(path),
    )


def zstd_size(path: Path) -> int:
    """Return the bytes of a file after ``zstd -3``, a chunk of it in memory at a time."""
    # It is measured where a bundle is written; who reads one needs no zstandard.
    import zstandard

    packer = zstandard.ZstdCompressor(level=3).compressobj(size=path.stat().st_size)
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())


def damaged_files(
    directory: Path, manifest: Manifest, needed: Collection[str], engines: Collection[str]
) -> list[str]:
    """Return a complaint for every file that is missing, altered or not in the manifest.

    Args:
        directory: the bundle's.
        manifest: what lists the files.
        needed: those that must be there. Others may be missing, but if they are there must be what
            the manifest says.
        engines: paths of what a device built, which the manifest does not list.
    """
    there = dict(_below(directory))
    complaints = []
    for name, entry in manifest.files.items():
        mode = there.get(name)
        if mode is None:
            if name in needed:
                complaints.append(f"{name} is missing")
        elif not stat.S_ISREG(mode):
            complaints.append(f"{name} is {file_kind(mode)}, expected a file")
        elif (size := (directory / name).stat().st_size) != entry.size:
            complaints.append(f"{name} has {size} bytes, expected {entry.size}")
        elif sha256_file(directory / name) != entry.sha256:
            complaints.append(f"{name} was altered: its SHA-256 is not the manifest's")
    files = {MANIFEST_NAME, *manifest.files, *engines}
    folders = {ENGINES_FOLDER} | {str(p) for name in files for p in PurePosixPath(name).parents}
    for name, mode in sorted(there.items()):
        if name not in files and not (stat.S_ISDIR(mode) and name in folders):
            complaints.append(f"{name} is not in the manifest: it is {file_kind(mode)}")
    return complaints


def _below(directory: Path) -> Iterator[tuple[str, int]]:
    """Give the path and mode of all that is below a directory; no link is followed."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(directory / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                yield name, mode
                if stat.S_ISDIR(mode):
                    folders.append(name)
