"""``eosfm-edge verify``: is this the bundle that was exported, and does it compute right here?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eosfm_edge.bundle.known_answer import read_known_answer, relative_difference
from eosfm_edge.bundle.manifest import LevelDifference, Manifest, read_manifest
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.runtime.backends import Native, open_backend, require_intact


@dataclass(frozen=True)
class Verification:
    """What was checked: files by their digests, and the known answer level by level."""

    files: int
    backend: str
    tolerance: float
    levels: tuple[LevelDifference, ...]


def verify_bundle(bundle: Path, backend: str) -> Verification:
    """Check every file's digest, then the known answer on a backend.

    Raises:
        CheckFailedError: a file is missing, altered or surplus, or a level is further from the
            known answer than the bundle's tolerance.
        UserError: the bundle cannot be read, or the backend cannot run it.
    """
    manifest = read_manifest(bundle)
    require_intact(bundle, manifest)
    parity = manifest.parity_of(backend)
    levels = _known_answer(bundle, manifest, backend)
    tolerance = parity.tolerance
    wrong = [level for level in levels if not level.relative <= tolerance]
    if wrong:
        raise CheckFailedError(
            f"{bundle} gives a wrong answer on {backend}: "
            + ", ".join(f"{level.level} differs by {level.relative:.1e}" for level in wrong),
            expected=f"at most {tolerance:.0e} of the largest value",
        )
    return Verification(len(manifest.files), backend, tolerance, levels)


def _known_answer(bundle: Path, manifest: Manifest, backend: str) -> tuple[LevelDifference, ...]:
    """Compute the known answer and return how far it is from what is expected."""
    opened = open_backend(backend, bundle, manifest)
    if isinstance(opened, Native):
        _, relative = opened.context.verify()
    else:
        answer = read_known_answer(bundle, manifest)
        got = opened.run(answer.image)
        pairs = zip(got, answer.levels, strict=True)
        relative = [relative_difference(mine, expected) for mine, expected in pairs]
    return tuple(
        LevelDifference(level=level.name, relative=value)
        for level, value in zip(manifest.levels, relative, strict=True)
    )
