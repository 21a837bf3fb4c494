"""A bundle as it was exported: every check that comes before an engine may read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eosfm_edge.bundle.agreement import disagreements
from eosfm_edge.bundle.digests import damaged_files
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.formats.backends import SOURCES, Source
from eosfm_edge.formats.bundle import ENGINES_FOLDER, Manifest
from eosfm_edge.formats.engines import INDEX_NAME, read_index

MOST_COMPLAINTS = 20  # about a bundle; a forger could make thousands
_NAMES: dict[Source, str] = {"native": "native file", "onnx": "ONNX graph"}


def require_source(bundle: Path, manifest: Manifest, backend: str) -> None:
    """Check that a bundle was exported with the files that a backend computes from.

    Raises:
        UserError: it was exported without.
    """
    source = SOURCES[backend]
    if manifest.of_role(source):
        return
    other: Source = "native" if source == "onnx" else "onnx"
    readers = ", ".join(name for name, reads in SOURCES.items() if reads == other)
    raise UserError(
        f"{bundle} has no {_NAMES[source]}: it was exported --for {other}",
        expected=f"{_NAMES[source]}s, from which {backend} computes",
        remedy=f"export it again with --for all, or use another --backend: {readers}",
    )


def with_files(bundle: Path, manifest: Manifest, backends: Sequence[str]) -> list[str]:
    """Return those of some backends whose files were exported and are here."""
    found = []
    for backend in backends:
        names = manifest.of_role(SOURCES[backend])
        if names and all((bundle / name).exists() for name in names):
            found.append(backend)
    return found


def require_intact(bundle: Path, manifest: Manifest, backend: str) -> tuple[str, ...]:
    """Check every file's digest, and that no other file contradicts the manifest.

    Args:
        bundle: the bundle's directory.
        manifest: the bundle's, against which its files are checked.
        backend: who is to compute; files that it does not read may be missing.

    Returns:
        The files that are missing, which the backend does not read.

    Raises:
        CheckFailedError: a file is missing, altered or surplus, or the manifest was edited.
        UserError: the bundle was exported without what the backend computes from, or the list of
            engines is damaged.
    """
    require_source(bundle, manifest, backend)
    needed = manifest.of_role("common", SOURCES[backend])
    index = read_index(bundle)
    engines = {entry.file for entry in index.engines} | {f"{ENGINES_FOLDER}/{INDEX_NAME}"}
    complaints = damaged_files(bundle, manifest, needed, engines)
    complaints = complaints or disagreements(bundle, manifest)
    if complaints:
        more = len(complaints) - MOST_COMPLAINTS
        shown = complaints[:MOST_COMPLAINTS] + ([f"and {more} more"] if more > 0 else [])
        raise CheckFailedError(
            f"{bundle} is not as it was exported:\n    " + "\n    ".join(shown),
            remedy="transfer or export it again",
        )
    return tuple(name for name in manifest.files if not (bundle / name).exists())
