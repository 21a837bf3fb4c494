"""``eosfm-edge verify``: is this the bundle that was exported, and does it compute right here?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eosfm_edge.bundle.intact import require_intact
from eosfm_edge.formats.bundle import LevelDifference, read_manifest
from eosfm_edge.runtime.backends import open_context, wrong_answer
from eosfm_edge.runtime.fastest import fastest_backend


@dataclass(frozen=True)
class Verification:
    """The result of a check: files by their digests, and the known answer level by level.

    ``absent`` are files of the bundle that are not there, and that the backend does not read.
    """

    files: int
    absent: tuple[str, ...]
    backend: str
    tolerance: float
    levels: tuple[LevelDifference, ...]


def verify_bundle(
    bundle: Path, backend: str, tell: Callable[[str], None] = lambda sentence: None
) -> Verification:
    """Check every file's digest and the manifest's agreement with them, then the known answer.

    Args:
        bundle: the bundle's directory.
        backend: who computes; ``auto`` for the fastest that gives the known answer.
        tell: called with a sentence for every backend that ``auto`` finds to give another one.

    Raises:
        CheckFailedError: a file is missing, altered or surplus, the manifest was edited, or a level
            is further from the known answer than the bundle's tolerance.
        UserError: the bundle cannot be read, or the backend cannot run it.
    """
    manifest = read_manifest(bundle)
    if backend == "auto":
        backend = fastest_backend(bundle, manifest, tell)
    absent = require_intact(bundle, manifest, backend)
    with open_context(bundle, manifest, [backend]) as context:
        is_right, relative = context.verify()
        if not is_right:
            raise wrong_answer(bundle, backend, context.error)
        tolerance = min(context.tolerance())  # of all levels alike
    levels = tuple(
        LevelDifference(level=level.name, relative=value)
        for level, value in zip(manifest.levels, relative, strict=True)
    )
    return Verification(len(manifest.files) - len(absent), absent, backend, tolerance, levels)
