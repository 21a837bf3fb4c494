"""``eosfm-edge export``: an ensemble becomes a bundle, checked against PyTorch on real tiles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import eosfm_edge
from eosfm_edge.bundle.digests import file_entries
from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.device.cross import require_tools
from eosfm_edge.device.package import write_device_package
from eosfm_edge.engines.build import build_engines
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.cost import ensemble_cost
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.exporting.choice import Timer, choose_precision
from eosfm_edge.exporting.deployment import Scales, deployment, load_scales
from eosfm_edge.exporting.graphs import write_graphs
from eosfm_edge.exporting.memory import least_need
from eosfm_edge.exporting.onnx import level_names
from eosfm_edge.exporting.parity import TOLERANCE, Expected, check_native, check_onnx
from eosfm_edge.files import atomic_directory
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import (
    CONTENTS,
    DEVICE_FOLDER,
    MANIFEST_NAME,
    BundledSpecialist,
    Candidate,
    Layout,
    LeftOut,
    Level,
    Manifest,
    Parity,
    Tile,
    require_bundle_name,
)
from eosfm_edge.formats.ensemble import LEVEL_STRIDES
from eosfm_edge.formats.precision import DevicePrecision, Precision
from eosfm_edge.formats.target import Profile
from eosfm_edge.network.deployed import NATIVE
from eosfm_edge.network.native_files import Graphs, write_chain, write_specialists
from eosfm_edge.progress import Progress, silent
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.radiometry import require_plausible_scene
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import open_scene
from eosfm_edge.targets.feasibility import require_exportable, require_memory, tile_of
from eosfm_edge.targets.registry import find_target

FloatArray = NDArray[np.float32]

PARITY_TILES = 4


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        target: the device's profile; None is this machine's.
        precision: of the matrices; ``auto`` takes the fastest that keeps the budget and passes the
            checks.
        calibration: for int8, what eosfm-edge calibrate wrote.
        timer: for ``auto``, what times precisions.
        tile: pixels of a tile's side, a multiple of 32; None is the profile's.
        batch: tiles that the ONNX graphs take at once, at most; None is the profile's.
        layout: of the ONNX graphs.
        compute_capabilities: of the GPUs to build TensorRT-RTX engines for; see ``build_engines``.
        names: what the bands of the scene are, if its files do not say so.
        radiometry: scale, offset and nodata of the scene, if its files do not say so.
        overwrite: replace a bundle that is there.
    """

    target: Profile | None = None
    precision: DevicePrecision | Literal["auto"] = "fp32"
    calibration: Path | None = None
    timer: Timer | None = None
    tile: int | None = None
    batch: int | None = None
    layout: Layout = "whole"
    compute_capabilities: Sequence[str] = ()
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None
    overwrite: bool = False


def export_bundle(
    ensemble_directory: Path,
    scene: SceneName,
    bundle: Path,
    options: ExportOptions | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Export an ensemble as a bundle.

    Args:
        ensemble_directory: the ensemble.
        scene: real imagery, from which tiles are taken to check the exported files against the
            PyTorch ensemble, and one of them as the bundle's known answer.
        bundle: the directory to write; its name must end in ``.eosfm``.
        options: how to export.
        progress: called while TensorRT-RTX builds engines.

    Raises:
        CheckFailedError: what was written differs from PyTorch by more than 1e-4 of a level's
            largest value in fp32; or leaves too little of the signal, or is not what was
            calibrated, in other precisions. No bundle is written then.
        UserError: the ensemble or the scene cannot be used.
    """
    options = options or ExportOptions()
    profile = options.target or find_target("cpu")
    require_bundle_name(bundle)
    tile = tile_of(profile, options.tile, options.batch)
    require_exportable(
        profile,
        options.precision,
        options.compute_capabilities,
        calibrated=options.calibration is not None,
    )
    with atomic_directory(bundle, contents=CONTENTS, overwrite=options.overwrite) as scratch:
        if profile.architecture == "aarch64":
            require_tools()
        ensemble = load_ensemble(ensemble_directory)
        require_memory(profile, least_need(ensemble, tile))
        scales = load_scales(options.calibration, ensemble) if options.calibration else None
        tiles = _real_tiles(scene, ensemble, tile.size, options)
        candidates = _candidates(options, profile, ensemble, scales, tiles)
        exact = [_reference(ensemble, image) for image in tiles]
        wanted = _Wanted(bundle.stem, profile, tile, options.layout, scales, tiles, exact)
        written, candidates = _write_first_faithful(
            scratch, ensemble, wanted, options.precision, candidates
        )
        chain, precision, graphs = written.chain, written.precision, written.graphs
        if profile.architecture == "aarch64":
            write_device_package(scratch / DEVICE_FOLDER, profile, bundle.name)
        names = level_names(len(LEVEL_STRIDES))
        manifest = Manifest(
            name=bundle.stem,
            created_with=f"eosfm-edge {eosfm_edge.__version__}",
            target=profile.name,
            profile=profile,
            precision=precision,
            candidates=candidates,
            calibration=scales.record if scales and precision == "int8" else None,
            tile=tile,
            macs=round(ensemble_cost(ensemble).macs * tile.size**2),
            input=ensemble.spec.input,
            levels=tuple(
                Level(name=name, stride=stride, channels=features.shape[1])
                for name, stride, features in zip(names, LEVEL_STRIDES, exact[0], strict=True)
            ),
            specialists=_bundled(ensemble, chain),
            left_out=_left_out(ensemble, chain),
            parity=written.parity,
            layout=options.layout,
            graphs=graphs,
            files=file_entries(scratch),
        )
        (scratch / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n")
        if profile.engine == "tensorrt-rtx":
            build_engines(scratch, manifest, options.compute_capabilities, progress)
    return manifest


def _candidates(
    options: ExportOptions,
    profile: Profile,
    ensemble: Ensemble,
    scales: Scales | None,
    tiles: list[FloatArray],
) -> tuple[Candidate, ...]:
    """Return the precisions that ``auto`` chooses from, the best first; none if one is given."""
    if options.precision != "auto":
        return ()
    if options.timer is None:
        raise UserError(
            "the precision is auto, and there is nothing to time precisions with",
            remedy="ExportOptions(timer=eosfm_edge.network.latency.time_precisions), or give a "
            "precision",
        )
    return choose_precision(ensemble, profile, scales, tiles, options.timer)


@dataclass(frozen=True)
class _Wanted:
    """A bundle to be written, but for its precision.

    Attributes:
        name: of the bundle.
        profile, tile, layout, scales: as in the options.
        tiles: stored values to check on, (bands, size, size) each; the first is the known answer's.
        exact: what PyTorch makes of them.
    """

    name: str
    profile: Profile
    tile: Tile
    layout: Layout
    scales: Scales | None
    tiles: list[FloatArray]
    exact: list[list[FloatArray]]


@dataclass(frozen=True)
class _Written:
    """The report of an export. ``graphs`` are paths in the bundle."""

    chain: Chain
    precision: Precision
    graphs: tuple[str, ...]
    parity: tuple[Parity, Parity]


def _write_first_faithful(
    scratch: Path,
    ensemble: Ensemble,
    wanted: _Wanted,
    precision: DevicePrecision | Literal["auto"],
    candidates: tuple[Candidate, ...],
) -> tuple[_Written, tuple[Candidate, ...]]:
    """Write a bundle in a precision, or in the first candidate that passes its checks.

    Returns:
        What was written, and the candidates, the chosen one first, with those that failed marked.

    Raises:
        CheckFailedError: the precision fails its checks, or every candidate does.
    """
    if precision != "auto":
        assert precision != "fp8", "no target exports it"
        return _write_checked(scratch, ensemble, wanted, precision), candidates
    dropped: list[Candidate] = []
    for place, candidate in enumerate(candidates):
        if not candidate.keeps_budget:
            break
        try:
            written = _write_checked(scratch, ensemble, wanted, candidate.precision)
        except CheckFailedError as error:
            if candidate.precision == "fp32":
                raise  # nothing that is slower is more faithful
            dropped.append(candidate.model_copy(update={"failed": str(error).splitlines()[0]}))
            _empty(scratch)
            continue
        return written, (candidate, *dropped, *candidates[place + 1 :])
    raise AssertionError("fp32 keeps any budget")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_checked(
    scratch: Path, ensemble: Ensemble, wanted: _Wanted, precision: Precision
) -> _Written:
    """Write the graphs, specialists and chain in a precision, and check them against PyTorch."""
    profile, tiles, exact = wanted.profile, wanted.tiles, wanted.exact
    deployed = deployment(ensemble, profile.engine, precision, wanted.scales)

    def expected(simulated: nn.Module | None) -> Expected:
        if simulated is None:
            return Expected(tiles, exact, None, precision)
        return Expected(tiles, exact, [_run(simulated, image) for image in tiles], precision)

    graphs = write_graphs(
        deployed.traceable(wanted.layout),
        wanted.layout,
        torch.from_numpy(tiles[0][np.newaxis]),
        scratch,
        dynamic_batch=wanted.tile.batch > 1,
        integer_biases=profile.engine == "onnxruntime",
    )
    rounded = deployed.simulated(deployed.form, wanted.layout) if deployed.rounds else None
    onnx = check_onnx([scratch / graph for graph in graphs], expected(rounded))
    digests = write_specialists(scratch, deployed.chain, deployed.native)

    def write_chain_file(tolerance: float) -> None:
        answer = KnownAnswer(tiles[0][np.newaxis], tuple(exact[0]))
        size, others = wanted.tile.size, Graphs(graphs, onnx.tolerance)
        chain, name = deployed.chain, wanted.name
        write_chain(scratch, chain, name, size, precision, answer, tolerance, others, digests)

    write_chain_file(TOLERANCE)
    rounded = deployed.simulated(NATIVE) if precision != "fp32" else None
    native = check_native(scratch, expected(rounded))
    write_chain_file(native.tolerance)
    return _Written(deployed.chain, precision, graphs, (native, onnx))


def _real_tiles(
    scene: SceneName, ensemble: Ensemble, size: int, options: ExportOptions
) -> list[FloatArray]:
    """Return tiles to check parity on."""
    with open_scene(
        scene, ensemble.spec.input, names=options.names, radiometry=options.radiometry
    ) as opened:
        require_plausible_scene(opened)
        return sample_tiles(opened, size, PARITY_TILES)


@torch.inference_mode()
def _run(chain: nn.Module, image: FloatArray) -> list[FloatArray]:
    """Return the levels (1, C, h, w) that a chain makes of stored values (bands, H, W)."""
    return [level.numpy() for level in chain(torch.from_numpy(image[np.newaxis]))]


@torch.inference_mode()
def _reference(ensemble: Ensemble, image: FloatArray) -> list[FloatArray]:
    """Return the levels (1, C, h, w) that PyTorch makes of stored values (bands, H, W)."""
    stored = torch.from_numpy(image[np.newaxis])
    return [level.numpy() for level in ensemble(physical_units(ensemble.spec, stored))]


def _bundled(ensemble: Ensemble, chain: Chain) -> tuple[BundledSpecialist, ...]:
    return tuple(
        BundledSpecialist(
            name=s.name,
            backbone=s.backbone,
            bands=s.bands,
            runs=sets,
            factor=factor,
            weights_sha256=s.weights_sha256,
            provenance=s.provenance,
            shape=s.shape,
            pruning=s.pruning,
        )
        for s, sets, factor in zip(
            ensemble.spec.specialists, ensemble.sets, chain.factors, strict=True
        )
        if sets and factor != 0
    )


def _left_out(ensemble: Ensemble, chain: Chain) -> tuple[LeftOut, ...]:
    return tuple(
        LeftOut(name=s.name, reason="not selected" if sets else "no rule for the input's bands")
        for s, sets, factor in zip(
            ensemble.spec.specialists, ensemble.sets, chain.factors, strict=True
        )
        if not sets or factor == 0
    )
