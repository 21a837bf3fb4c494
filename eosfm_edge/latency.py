"""How long the native engine takes for an ensemble on this machine, and how large its weights are.

Beside the stages, since it needs two of them: export writes the engine's files, the runtime runs
them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.bundle.manifest import CHAIN_NAME, SPECIALISTS_FOLDER, Precision
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.export.chain import Chain
from eosfm_edge.export.native import write_chain, write_specialists
from eosfm_edge.export.ranges import measure_ranges
from eosfm_edge.pruning.prune import Footprint
from eosfm_edge.runtime.binding import Model

_WARM_UP = 3
_ROUNDS = 9
_RUNS = 3  # in a round, of which the fastest counts


@torch.inference_mode()
def footprints(
    ensembles: Sequence[Ensemble], tile: Tensor, precision: Precision
) -> list[Footprint]:
    """Time ensembles in turn, on one tile, in one process.

    Args:
        ensembles: which; none is changed.
        tile: stored values (bands, size, size), float32.
        precision: of the native engine's weights; megabytes are of the specialists' files.
    """
    image = tile.numpy()
    with tempfile.TemporaryDirectory() as folder:
        models, sizes = [], []
        for index, ensemble in enumerate(ensembles):
            place = Path(folder) / str(index)
            _write(place, ensemble, tile, precision)
            files = [place / CHAIN_NAME, *(place / SPECIALISTS_FOLDER).iterdir()]
            sizes.append(sum(f.stat().st_size for f in files if f.name != CHAIN_NAME))
            models.append(Model(place))
        contexts = [model.context() for model in models]
        bands = list(image)
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
        for context, model in zip(contexts, models, strict=True):
            context.close()
            model.close()
    results = []
    for mine, size in zip(times, sizes, strict=True):
        low, median, high = statistics.quantiles(mine, n=4, method="inclusive")
        results.append(Footprint(median, low, high, size / 1e6))
    return results


def _write(place: Path, ensemble: Ensemble, tile: Tensor, precision: Precision) -> None:
    """Write the native part of a bundle; its known answer is not right and never asked for."""
    place.mkdir()
    chain = Chain(ensemble)
    image = tile.numpy()
    ranges = measure_ranges(chain, [image]) if precision == "int8" else {}
    write_specialists(place, chain, precision, ranges)
    levels = tuple(level.numpy() for level in chain(tile[np.newaxis]))
    answer = KnownAnswer(image[np.newaxis], levels)
    write_chain(place, chain, "latency", tile.shape[-1], precision, answer, 1.0)
