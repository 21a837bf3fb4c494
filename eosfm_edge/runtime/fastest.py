"""``--backend auto``: the fastest backend here that gives a bundle's known answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from eosfm_edge.bundle.intact import require_intact, with_files
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.formats.backends import BACKENDS, Backend
from eosfm_edge.formats.bundle import Manifest
from eosfm_edge.runtime.backends import open_context, wrong_answer

_ROUNDS = 3


def fastest_backend(
    bundle: Path, manifest: Manifest, tell: Callable[[str], None], threads: int = 0
) -> Backend:
    """Let every backend that can be used here compute the known answer; return the fastest.

    Args:
        bundle: the bundle's directory.
        manifest: the bundle's.
        tell: called with a sentence for every backend that computes, but not the known answer.
        threads: of a backend on the CPU; 0 for all cores.

    Raises:
        CheckFailedError: a file of the bundle is missing, altered or surplus.
        UserError: no backend gives the known answer here; the error is the native one's, or else
            the last one's.
    """
    times: dict[Backend, float] = {}
    reasons: dict[Backend, UserError] = {}
    present = with_files(bundle, manifest, BACKENDS)
    for name in BACKENDS:
        if name not in present:
            continue
        require_intact(bundle, manifest, name)
        try:
            times[name] = _seconds(bundle, manifest, name, threads)
        except UserError as error:
            reasons[name] = error
            if isinstance(error, CheckFailedError):
                tell(f"{name} is not used: {error.found}")
    if times:
        return min(times, key=times.__getitem__)
    if not reasons:  # an exported file is missing, whichever backend were to read it
        require_intact(bundle, manifest, BACKENDS[0])
    raise reasons.get("native") or reasons[list(reasons)[-1]]


def _seconds(bundle: Path, manifest: Manifest, backend: Backend, threads: int) -> float:
    """Return the median time of the known answer, the first one not counted.

    Raises:
        CheckFailedError: the backend gives another answer.
        UserError: it cannot be used here.
    """
    with open_context(bundle, manifest, [backend], threads) as context:
        is_right, _ = context.verify()
        if not is_right:
            raise wrong_answer(bundle, backend, context.error)
        rounds = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            context.verify()
            rounds.append(time.perf_counter() - started)
    return statistics.median(rounds)
