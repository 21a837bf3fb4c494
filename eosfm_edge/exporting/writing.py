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
from eosfm_edge.exporting.deployment import Deployment, Scales, deployment
from eosfm_edge.exporting.parity import TOLERANCE, Expected, check_native, check_onnx
from eosfm_edge.exporting.samples import Samples
from eosfm_edge.formats.bundle import Candidate, Layout, Parity, Purpose, Tile
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
        tile: the image's size, and how many images the graphs take.
        layout: of the graphs.
        purpose: whose files are written.
        scales: for int8.
        samples: to check the files on.
    """

    name: str
    ensemble: Ensemble
    engine: Engine
    tile: Tile
    layout: Layout
    purpose: Purpose
    scales: Scales | None
    samples: Samples


@dataclass(frozen=True)
class Written:
    """The checked files of a bundle.

    Attributes:
        chain: that they compute.
        precision: of the matrices.
        graphs: the ONNX graphs' paths in the bundle, if there are any.
        channels: of each level.
        parity: how far libeosfm and ONNX Runtime, those that have files, are from PyTorch.
    """

    chain: Chain
    precision: Precision
    graphs: tuple[str, ...]
    channels: tuple[int, ...]
    parity: tuple[Parity, ...]


def write_checked(folder: Path, wanted: Wanted, precision: Precision) -> Written:
    """Write a bundle's files in a precision.

    Raises:
        CheckFailedError: what was written differs too much from PyTorch.
        UserError: the engine has no such precision, or int8 has no scales.
    """
    deployed = deployment(wanted.ensemble, wanted.engine, precision, wanted.scales)
    graphs: tuple[str, ...] = ()
    digests: list[str] = []
    onnx = native = None
    if wanted.purpose != "native":
        graphs, onnx = _write_graphs(folder, wanted, deployed, precision)
    if wanted.purpose != "onnx":
        digests = write_specialists(folder, deployed.chain, deployed.native)

    def write_chain_file(tolerance: float | None) -> None:
        answer = wanted.samples.known_answer
        others = Graphs(graphs, onnx.tolerance) if onnx else None
        chain, name, size = deployed.chain, wanted.name, wanted.tile.size
        write_chain(folder, chain, name, size, precision, answer, tolerance, others, digests)

    if wanted.purpose == "onnx":
        write_chain_file(None)
    else:
        # The tolerance of the known answer is known once the native engine has run the file.
        write_chain_file(TOLERANCE)
        rounded = deployed.simulated(NATIVE) if precision != "fp32" else None
        native = check_native(folder, _expected(wanted, rounded, precision))
        write_chain_file(native.tolerance)
    channels = tuple(level.shape[1] for level in wanted.samples.exact[0])
    parity = tuple(one for one in (native, onnx) if one is not None)
    return Written(deployed.chain, precision, graphs, channels, parity)


def _write_graphs(
    folder: Path, wanted: Wanted, deployed: Deployment, precision: Precision
) -> tuple[tuple[str, ...], Parity]:
    """Write and check the ONNX graphs; returns their paths in the folder, and the check."""
    # It imports onnx, which a bundle without graphs does not need.
    from eosfm_edge.exporting.graphs import write_graphs

    graphs = write_graphs(
        deployed.traceable(wanted.layout),
        wanted.layout,
        torch.from_numpy(wanted.samples.tiles[0][np.newaxis]),
        folder,
        dynamic_batch=wanted.tile.batch > 1,
        integer_biases=wanted.engine == "onnxruntime",
    )
    rounded = deployed.simulated(deployed.form, wanted.layout) if deployed.rounds else None
    expected = _expected(wanted, rounded, precision)
    return graphs, check_onnx([folder / graph for graph in graphs], expected)


def _expected(wanted: Wanted, simulated: nn.Module | None, precision: Precision) -> Expected:
    samples = wanted.samples
    levels = None if simulated is None else samples.levels_of(simulated)
    return Expected(samples.tiles, samples.exact, levels, precision)


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
