"""Does a backend compute here what the bundle says that it must?"""

from __future__ import annotations

import math
from pathlib import Path

from eosfm_edge.bundle.known_answer import read_known_answer, relative_difference
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.formats.bundle import LevelDifference, Manifest
from eosfm_edge.runtime.backends import Backend, Native, tolerance_of


def require_known_answer(
    backend: Backend, bundle: Path, manifest: Manifest
) -> tuple[LevelDifference, ...]:
    """Compute the known answer and return how far it is from what is expected.

    Raises:
        CheckFailedError: a level is further from it than the bundle allows.
    """
    if isinstance(backend, Native):
        _, relative = backend.context.verify()
    else:
        answer = read_known_answer(bundle, manifest)
        pairs = zip(backend.run(answer.image), answer.levels, strict=True)
        relative = [relative_difference(mine, expected) for mine, expected in pairs]
    tolerance = tolerance_of(backend.name, manifest)
    levels = tuple(
        LevelDifference(level=level.name, relative=value)
        for level, value in zip(manifest.levels, relative, strict=True)
    )
    wrong = [level for level in levels if not level.relative <= tolerance]
    if wrong:
        raise CheckFailedError(
            f"{bundle} gives a wrong answer on {backend.name}: "
            + ", ".join(f"{level.level} {_fault(level)}" for level in wrong),
            expected=f"at most {tolerance:.0e} of the largest value",
        )
    return levels


def _fault(level: LevelDifference) -> str:
    if math.isfinite(level.relative):
        return f"differs by {level.relative:.1e}"
    return "has values that are not finite"
