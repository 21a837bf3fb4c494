"""The progress of a deployment as one: how far it is, and about how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from eosfm_edge.progress import Progress


class Pace:
    """Tells how far all steps together are, by the time that those before took.

    Steps have an effort in any unit, as long as it is the same for all.
    """

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._done = 0.0
        self._seconds = 0.0

    @contextmanager
    def step(self, name: str, effort: float, ahead: float) -> Iterator[Progress]:
        """Give what a step reports its progress to.

        Args:
            name: of the step. How far it is, is what it tells of the name's first word, or in
                pruning of ``repair``, which counts specialists, and of ``distill`` within one.
            effort: of the step.
            ahead: the efforts of the steps after it, at most.
        """
        started = time.monotonic()
        counted, part = 0.0, 1.0  # the share of what is finished, and that of a specialist
        share = 0.0

        def tell(what: str, done: int, total: int) -> None:
            nonlocal counted, part, share
            if what.partition(":")[0] in (name.partition(" ")[0], "repair") and total:
                share = counted = done / total
                part = 1 / total
            elif what.startswith("distill ") and total:
                share = min(counted + part * done / total, 1.0)
            so_far = self._done + share * effort
            left = (1 - share) * effort + ahead
            words = f"deploy: {name}, {what.replace(': ', ' ')} {done} of {total}"
            if so_far:
                seconds = self._seconds + time.monotonic() - started
                words += f", about {duration(left * seconds / so_far)} left"
            self._tell(words, round(100 * so_far / (so_far + left)), 100)

        tell(name.partition(" ")[0], 0, 1)
        yield tell
        self._done += effort
        self._seconds += time.monotonic() - started


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
