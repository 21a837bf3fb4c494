"""A bundle as it was exported: every check that comes before an engine may read it."""

from __future__ import annotations

from pathlib import Path

from eosfm_edge.bundle.agreement import disagreements
from eosfm_edge.bundle.digests import damaged_files
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.formats.backends import WEIGHTS_BACKENDS
from eosfm_edge.formats.bundle import DEVICE_FOLDER, ENGINES_FOLDER, Manifest
from eosfm_edge.formats.engines import INDEX_NAME, read_index

MOST_COMPLAINTS = 20  # about a bundle; a forger could make thousands


def require_intact(bundle: Path, manifest: Manifest, backend: str) -> tuple[str, ...]:
    """Check every file's digest, and that no other file contradicts the manifest.

    Args:
        bundle: the bundle's directory.
        manifest: the bundle's, against which its files are checked.
        backend: who is to compute; files that only others read may be missing.

    Returns:
        The files that are missing, which the backend does not read.

    Raises:
        CheckFailedError: a file is missing, altered or surplus, or the manifest was edited.
        UserError: the list of engines is damaged.
    """
    graphs = {name for name in manifest.files if name.endswith(".onnx")}
    device = {name for name in manifest.files if name.startswith(f"{DEVICE_FOLDER}/")}
    needed = set(manifest.files) - device
    needed -= graphs if backend in WEIGHTS_BACKENDS else graphs.difference(manifest.graphs)
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
