"""Time models of libeosfm on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.native.binding import Model

_WARM_UP = 3
_ROUNDS = 9
_RUNS = 3  # in a round, of which the fastest counts


def time_in_turn(
    models: Sequence[Model], bands: Sequence[NDArray[np.float32]]
) -> list[list[float]]:
    """Return each model's milliseconds in every round.

    Models take turns, so that what slows the machine down for a while slows all of them.

    Args:
        models: with inputs of the same bands.
        bands: of one tile, stored values (size, size) each.
    """
    contexts = [model.context() for model in models]
    times: list[list[float]] = [[] for _ in contexts]
    for turn in range(_WARM_UP + _ROUNDS):
        for context, mine in zip(contexts, times, strict=True):
            runs = []
            for _ in range(_RUNS):
                started = time.perf_counter()
                context.run(bands)
                runs.append((time.perf_counter() - started) * 1e3)
            if turn >= _WARM_UP:
                mine.append(min(runs))
    for context in contexts:
        context.close()
    return times
