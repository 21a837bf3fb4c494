"""``eosfm-edge export``: an ensemble becomes a bundle, checked against PyTorch on real tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eosfm_edge.bundle.palette import Palette, palette_bytes
from eosfm_edge.device.cross import require_tools
from eosfm_edge.device.package import write_device_package
from eosfm_edge.engines.build import build_engines
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.exporting.choice import choose_precision
from eosfm_edge.exporting.deployment import load_scales
from eosfm_edge.exporting.manifest import describe
from eosfm_edge.exporting.memory import least_need
from eosfm_edge.exporting.samples import FloatArray, run_on, take_samples
from eosfm_edge.exporting.writing import Wanted, write_checked, write_first_faithful
from eosfm_edge.files import atomic_directory
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import (
    CONTENTS,
    DEVICE_FOLDER,
    MANIFEST_NAME,
    Candidate,
    Layout,
    Manifest,
    Purpose,
    require_bundle_name,
)
from eosfm_edge.formats.ensemble import PALETTE_NAME
from eosfm_edge.formats.precision import DevicePrecision
from eosfm_edge.formats.target import Profile
from eosfm_edge.network.palette import kept_palette, palette_of, palette_of_tiles
from eosfm_edge.network.tiles import as_seen
from eosfm_edge.progress import Progress, silent
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.targets.feasibility import require_exportable, require_memory, tile_of
from eosfm_edge.targets.registry import find_target


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        target: the device's profile; None is this machine's.
        precision: of the matrices; ``auto`` takes the fastest that keeps the budget and passes the
            checks.
        calibration: for int8, what eosfm-edge calibrate wrote.
        tile: pixels of a tile's side, a multiple of 32; None is the profile's.
        batch: tiles that the ONNX graphs take at once, at most; None is the profile's.
        layout: of the ONNX graphs.
        purpose: whose files are written: ``native`` for the CPU and CUDA engines of libeosfm,
            ``onnx`` for ONNX Runtime and TensorRT, or both.
        compute_capabilities: of the GPUs to build TensorRT-RTX engines for; see ``build_engines``.
        names: what the bands of the scene are, if its files do not say so.
        radiometry: scale, offset and nodata of the scene, if its files do not say so.
        beside: texts that are kept in the bundle with its files, by the files' names.
        overwrite: replace a bundle that is there.
    """

    target: Profile | None = None
    precision: DevicePrecision | Literal["auto"] = "fp32"
    calibration: Path | None = None
    tile: int | None = None
    batch: int | None = None
    layout: Layout = "whole"
    purpose: Purpose = "all"
    compute_capabilities: Sequence[str] = ()
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None
    beside: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False


def export_bundle(
    ensemble_directory: Path,
    scene: SceneName | Sequence[FloatArray],
    bundle: Path,
    options: ExportOptions | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Export an ensemble as a bundle.

    Args:
        ensemble_directory: the ensemble.
        scene: real imagery, from which tiles are taken to check the exported files against the
            PyTorch ensemble, and one of them as the bundle's known answer. Or tiles that were drawn
            of it: stored values (bands, size, size) each.
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
        samples = (
            take_samples(
                scene, ensemble, tile.size, names=options.names, radiometry=options.radiometry
            )
            if isinstance(scene, str | Path)
            else run_on(scene, ensemble)
        )
        wanted = Wanted(
            name=bundle.stem,
            ensemble=ensemble,
            engine=profile.engine,
            tile=tile,
            layout=options.layout,
            purpose=options.purpose,
            scales=scales,
            samples=samples,
        )
        candidates: tuple[Candidate, ...] = ()
        if options.precision == "auto":
            candidates = choose_precision(ensemble, profile, scales, samples.tiles)
            written, candidates = write_first_faithful(scratch, wanted, candidates)
        else:
            assert options.precision != "fp8", "no target exports it"
            written = write_checked(scratch, wanted, options.precision)
        palette = kept_palette(ensemble_directory, written.channels)
        if palette is None:
            palette = _fitted_palette(ensemble, scene, tile.size, options)
        (scratch / PALETTE_NAME).write_bytes(palette_bytes(palette))
        if profile.architecture == "aarch64":
            write_device_package(scratch / DEVICE_FOLDER, profile, bundle.name, options.purpose)
        for name, text in options.beside.items():
            (scratch / name).write_text(text, encoding="utf-8")
        manifest = describe(scratch, wanted, profile, written, candidates)
        (scratch / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n")
        if profile.engine == "tensorrt-rtx" and manifest.graphs:
            build_engines(scratch, manifest, options.compute_capabilities, progress)
    return manifest


def _fitted_palette(
    ensemble: Ensemble,
    scene: SceneName | Sequence[FloatArray],
    size: int,
    options: ExportOptions,
) -> Palette:
    """Fit a palette for an ensemble that brings none."""
    if isinstance(scene, str | Path):
        return palette_of(
            ensemble, [scene], size, names=options.names, radiometry=options.radiometry
        )
    return palette_of_tiles(ensemble, [as_seen(ensemble.spec, tile) for tile in scene])
