"""The files of a bundle against the digests in its manifest."""

from __future__ import annotations

from pathlib import Path

from eosfm_edge.bundle.manifest import ENGINES_FOLDER, MANIFEST_NAME, FileEntry, Manifest
from eosfm_edge.files import sha256_file


def file_entries(directory: Path) -> dict[str, FileEntry]:
    """Return the entry of every file below a directory but the manifest, by relative path."""
    return {
        name: FileEntry(
            size=(directory / name).stat().st_size, sha256=sha256_file(directory / name)
        )
        for name in _files(directory)
    }


def damaged_files(directory: Path, manifest: Manifest) -> list[str]:
    """Return a complaint for every file that is missing, altered or not in the manifest."""
    complaints = []
    for name, entry in manifest.files.items():
        path = directory / name
        if not path.is_file():
            complaints.append(f"{name} is missing")
        elif path.stat().st_size != entry.size:
            complaints.append(f"{name} has {path.stat().st_size} bytes, expected {entry.size}")
        elif sha256_file(path) != entry.sha256:
            complaints.append(f"{name} was altered: its SHA-256 is not the manifest's")
    surplus = [name for name in _files(directory) if name not in manifest.files]
    return complaints + [f"{name} is not in the manifest" for name in surplus]


def _files(directory: Path) -> list[str]:
    """Return what a manifest lists: not itself, nor the engines, which have a list of their own."""
    paths = (p.relative_to(directory) for p in directory.rglob("*") if p.is_file())
    left_out = {MANIFEST_NAME, ENGINES_FOLDER}
    return sorted(path.as_posix() for path in paths if path.parts[0] not in left_out)
