"""Time ensembles in the native engine on this machine, and measure their weights' files."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.formats.bundle import SPECIALISTS_FOLDER
from eosfm_edge.formats.precision import Precision
from eosfm_edge.native.binding import Model
from eosfm_edge.native.timing import time_in_turn
from eosfm_edge.network.deployed import Dense, DeployedEncoder
from eosfm_edge.network.native_files import write_chain, write_specialists
from eosfm_edge.network.rounding import Quantisation, Rounding

Encoders = Mapping[int, DeployedEncoder]
# An ensemble, its encoders by place as the native engine gets them, and its fusions' precision.
Subject = tuple[Ensemble, Encoders, Precision]


@dataclass(frozen=True)
class Footprint:
    """Milliseconds for a tile, with quartiles, and what the files take.

    Attributes:
        ms: the median.
        low_ms, high_ms: the quartiles.
        megabytes: 10^6 bytes of the specialists' files.
        native_bytes: of all files that the native engine reads.
    """

    ms: float
    low_ms: float
    high_ms: float
    megabytes: float
    native_bytes: int


def footprints(
    ensembles: Sequence[Ensemble], tile: Tensor, precision: Precision
) -> list[Footprint]:
    """Time ensembles in a precision; int8 has scales of no meaning, on which time does not depend.

    Args:
        ensembles: which; none is changed.
        tile: stored values (bands, size, size), float32.
        precision: of the native engine's weights; megabytes are of the specialists' files.
    """
    return time_encoders([nominal(one, precision) for one in ensembles], tile)


@torch.inference_mode()
def time_encoders(subjects: Sequence[Subject], tile: Tensor) -> list[Footprint]:
    """Time ensembles in turn, on one tile, in one process.

    Args:
        subjects: what is timed.
        tile: stored values (bands, size, size), float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        models, sizes = [], []
        for index, (ensemble, encoders, precision) in enumerate(subjects):
            place = Path(folder) / str(index)
            _write(place, ensemble, encoders, tile, precision)
            sizes.append((_size(place / SPECIALISTS_FOLDER), _size(place)))
            models.append(Model(place))
        times = time_in_turn(models, list(tile.numpy()))
        for model in models:
            model.close()
    results = []
    for mine, (weights, everything) in zip(times, sizes, strict=True):
        low, median, high = statistics.quantiles(mine, n=4, method="inclusive")
        results.append(Footprint(median, low, high, weights / 1e6, everything))
    return results


@torch.inference_mode()
def native_bytes(subject: Subject, tile: Tensor) -> int:
    """Return the bytes of all files that the native engine reads; ``tile`` as for timing."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bundle"
        ensemble, encoders, precision = subject
        _write(place, ensemble, encoders, tile, precision)
        return _size(place)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def time_precisions(
    ensemble: Ensemble,
    encoders: Mapping[Precision, Encoders],
    tile: NDArray[np.float32],
) -> dict[Precision, float]:
    """Time an ensemble with several sets of encoders in turn; returns milliseconds.

    Args:
        ensemble: what lies around the encoders.
        encoders: by their places, for each precision.
        tile: stored values (bands, size, size).
    """
    subjects = [(ensemble, one, precision) for precision, one in encoders.items()]
    found = time_encoders(subjects, torch.from_numpy(tile))
    return {p: footprint.ms for p, footprint in zip(encoders, found, strict=True)}


def nominal(ensemble: Ensemble, precision: Precision) -> Subject:
    """Return an ensemble in a precision; int8 has scales of no meaning."""
    encoders = {}
    for owner, encoder in enumerate(ensemble.encoders):
        encoders[owner] = DeployedEncoder(encoder)
        for layer in encoders[owner].layers().values():
            layer.precision = "fp32" if precision == "fp32" else "half"
            if precision == "int8" and isinstance(layer, Dense):
                layer.precision = "int8"
                inputs = torch.ones(len(layer.weight))
                scale = layer.weight.abs().amax(0).clamp_min(1e-12) / 127
                layer.rounding = Rounding(inputs, Quantisation.over(-4, 4), scale)
    return ensemble, encoders, precision


def _write(
    place: Path, ensemble: Ensemble, encoders: Encoders, tile: Tensor, precision: Precision
) -> None:
    """Write the native part of a bundle; its known answer is not right and never asked for."""
    place.mkdir()
    chain = Chain(ensemble)
    write_specialists(place, chain, encoders)
    levels = tuple(level.numpy() for level in chain(tile[np.newaxis]))
    answer = KnownAnswer(tile.numpy()[np.newaxis], levels)
    write_chain(place, chain, "latency", tile.shape[-1], precision, answer, 1.0)
