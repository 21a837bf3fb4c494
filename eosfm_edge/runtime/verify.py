"""``eosfm-edge verify``: is this the bundle that was exported, and does it compute right here?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eosfm_edge.bundle.intact import require_intact
from eosfm_edge.bundle.known_answer import read_known_answer, relative_difference
from eosfm_edge.formats.bundle import LevelDifference, Manifest, read_manifest
from eosfm_edge.native.binding import Context
from eosfm_edge.native.head import Head
from eosfm_edge.runtime.backends import open_context, wrong_answer
from eosfm_edge.runtime.fastest import fastest_backend
from eosfm_edge.runtime.maps import open_heads


@dataclass(frozen=True)
class HeadDifference:
    """A head's answer to the known image, by the levels that are computed here.

    Attributes:
        head: its name.
        relative: largest difference of an output from the known answer's over its largest value.
        changed: share of the cells that are in another class; None of a regression.
    """

    head: str
    relative: float
    changed: float | None


@dataclass(frozen=True)
class Verification:
    """The result of a check: files by their digests, and the known answer level by level.

    ``heads`` says for each head how far its outputs for the known image are off, in parts of the
    largest, and which share of the cells is in another class.

    ``absent`` are files of the bundle that are not there, and that the backend does not read.
    """

    files: int
    absent: tuple[str, ...]
    backend: str
    tolerance: float
    levels: tuple[LevelDifference, ...]
    heads: tuple[HeadDifference, ...] = ()


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
            is further from the known answer than the bundle's tolerance, or a head does not
            give its own.
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
        heads = _compare_heads(open_heads(context, bundle, manifest), context, bundle, manifest)
    levels = tuple(
        LevelDifference(level=level.name, relative=value)
        for level, value in zip(manifest.levels, relative, strict=True)
    )
    return Verification(
        len(manifest.files) - len(absent), absent, backend, tolerance, levels, heads
    )


def _compare_heads(
    heads: Sequence[Head], context: Context, bundle: Path, manifest: Manifest
) -> tuple[HeadDifference, ...]:
    """Compare the answers to the levels computed here with those to the known levels."""
    if not heads:
        return ()
    answer = read_known_answer(bundle, manifest)
    known = [np.ascontiguousarray(level[0]) for level in answer.levels]
    found = context.run(list(answer.image[0]))
    differences = []
    for head in heads:
        expected, codes = head.apply(known)
        outputs, others = head.apply(found)
        changed = None
        if codes is not None and others is not None:
            changed = float((codes != others).mean())
        relative = relative_difference(outputs, expected)
        differences.append(HeadDifference(head.name, relative, changed))
    return tuple(differences)
