"""Write an ensemble's graphs, specialists and chain in a precision, checked against PyTorch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.exporting.deployment import Scales, deployment
from eosfm_edge.exporting.graphs import write_graphs
from eosfm_edge.exporting.parity import TOLERANCE, Expected, check_native, check_onnx
from eosfm_edge.exporting.samples import Samples
from eosfm_edge.formats.bundle import Candidate, Layout, Parity, Tile
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import Engine
from eosfm_edge.network.deployed import NATIVE
from eosfm_edge.network.native_files import Graphs, write_chain, write_specialists


@dataclass(frozen=True)
class Wanted:
    """A bundle to be written, but for its precision.

    Attributes:
        name: of the bundle.
        ensemble: it is not changed.
        engine: that runs the ONNX graphs.
        tile, layout: of the graphs.
        scales: for int8.
        samples: to check the files on.
    """

    name: str
    ensemble: Ensemble
    engine: Engine
    tile: Tile
    layout: Layout
    scales: Scales | None
    samples: Samples


@dataclass(frozen=True)
class Written:
    """The checked files of a bundle.

    Attributes:
        chain: that they compute.
        precision: of the matrices.
        graphs: the ONNX graphs' paths in the bundle.
        channels: of each level.
        parity: how far libeosfm and ONNX Runtime are from PyTorch.
    """

    chain: Chain
    precision: Precision
    graphs: tuple[str, ...]
    channels: tuple[int, ...]
    parity: tuple[Parity, Parity]


def write_checked(folder: Path, wanted: Wanted, precision: Precision) -> Written:
    """Write a bundle's files in a precision.

    Raises:
        CheckFailedError: what was written differs too much from PyTorch.
        UserError: the engine has no such precision, or int8 has no scales.
    """
    samples, tile = wanted.samples, wanted.tile
    deployed = deployment(wanted.ensemble, wanted.engine, precision, wanted.scales)

    def expected(simulated: nn.Module | None) -> Expected:
        levels = None if simulated is None else samples.levels_of(simulated)
        return Expected(samples.tiles, samples.exact, levels, precision)

    graphs = write_graphs(
        deployed.traceable(wanted.layout),
        wanted.layout,
        torch.from_numpy(samples.tiles[0][np.newaxis]),
        folder,
        dynamic_batch=tile.batch > 1,
        integer_biases=wanted.engine == "onnxruntime",
    )
    rounded = deployed.simulated(deployed.form, wanted.layout) if deployed.rounds else None
    onnx = check_onnx([folder / graph for graph in graphs], expected(rounded))
    digests = write_specialists(folder, deployed.chain, deployed.native)

    def write_chain_file(tolerance: float) -> None:
        answer, others = samples.known_answer, Graphs(graphs, onnx.tolerance)
        chain, name, size = deployed.chain, wanted.name, tile.size
        write_chain(folder, chain, name, size, precision, answer, tolerance, others, digests)

    # The tolerance of the known answer is known once the native engine has run the file.
    write_chain_file(TOLERANCE)
    rounded = deployed.simulated(NATIVE) if precision != "fp32" else None
    native = check_native(folder, expected(rounded))
    write_chain_file(native.tolerance)
    channels = tuple(level.shape[1] for level in samples.exact[0])
    return Written(deployed.chain, precision, graphs, channels, (native, onnx))


def write_first_faithful(
    folder: Path, wanted: Wanted, candidates: tuple[Candidate, ...]
) -> tuple[Written, tuple[Candidate, ...]]:
    """Write a bundle's files in the first candidate precision that passes its checks.

    Returns:
        What was written, and the candidates, the chosen one first, with those that failed marked.

    Raises:
        CheckFailedError: every candidate fails its checks.
    """
    dropped: list[Candidate] = []
    for place, candidate in enumerate(candidates):
        if not candidate.keeps_budget:
            break
        try:
            written = write_checked(folder, wanted, candidate.precision)
        except CheckFailedError as error:
            if candidate.precision == "fp32":
                raise  # nothing that is slower is more faithful
            dropped.append(candidate.model_copy(update={"failed": str(error).splitlines()[0]}))
            _empty(folder)
            continue
        return written, (candidate, *dropped, *candidates[place + 1 :])
    raise AssertionError("fp32 keeps any budget")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
