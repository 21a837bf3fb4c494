"""Export an ensemble as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eosfm_edge.api.checks import require_bundle_output, require_ensemble
from eosfm_edge.api.imagery import (
    kept_imagery,
    no_imagery,
    radiometry_of,
    require_imagery,
    with_kept,
)
from eosfm_edge.api.options import ExportOptions, PathLike, as_path, flag
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import require_bundle_name
from eosfm_edge.formats.calibration import read_scales
from eosfm_edge.progress import Progress, silent
from eosfm_edge.targets.feasibility import (
    default_precision,
    default_purpose,
    require_exportable,
    tile_of,
)
from eosfm_edge.targets.registry import find_target

if TYPE_CHECKING:
    from eosfm_edge.formats.bundle import Manifest


def export(
    input: PathLike,  # noqa: A002
    output: PathLike,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Export an ensemble as a bundle for a target, checked against PyTorch on real tiles.

    Args:
        input: the ensemble directory.
        output: the bundle to write; its name must end in ``.eosfm``.
        options: the target, the imagery, and how.
        overwrite: replace a bundle that is there.
        progress: told of engines that are built here.

    Returns:
        The bundle's manifest.

    Raises:
        CheckFailedError: what was written differs too much from PyTorch; no bundle is left.
        UserError: the ensemble, the target or the imagery cannot be used; nothing is written.
    """
    options = options or ExportOptions()
    ensemble, target = as_path(input), as_path(output)
    kept = None if options.data is not None else kept_imagery(ensemble)
    options = with_kept(options, kept)
    device = options.target if isinstance(options.target, Path) else None
    inputs = [ensemble, options.data, options.calibration, device]
    require_bundle_output(target, inputs, overwrite)
    if options.split and options.stack:
        raise UserError("both split and stack are given", expected="one of them")
    profile = find_target(str(options.target))
    calibrated = options.calibration is not None
    purpose = options.for_ or default_purpose(profile)
    precision = options.precision or default_precision(profile, purpose, calibrated=calibrated)
    if purpose == "native":
        _refuse_options_of_graphs(options)
    if purpose == "onnx" and precision == "auto":
        raise UserError(
            "precision is auto, which times the native engine, and --for onnx leaves its files out",
            expected="a precision",
            remedy="give a precision, or --for all",
        )
    if options.data is None:
        raise no_imagery("export", ensemble, options)
    require_bundle_name(target)
    tile_of(profile, options.tile, options.batch)
    require_exportable(profile, precision, options.sm, calibrated=calibrated)
    require_ensemble(ensemble)
    if options.calibration is not None:
        read_scales(options.calibration)
    require_imagery([options.data], ensemble, kept)
    from eosfm_edge.exporting import exporter as stage

    return stage.export_bundle(
        ensemble,
        options.data,
        target,
        stage.ExportOptions(
            target=profile,
            precision=precision,
            calibration=options.calibration,
            tile=options.tile,
            batch=options.batch,
            layout="split" if options.split else "stacked" if options.stack else "whole",
            purpose=purpose,
            compute_capabilities=options.sm,
            names=options.bands,
            radiometry=radiometry_of(options),
            overwrite=overwrite,
        ),
        progress,
    )


def _refuse_options_of_graphs(options: ExportOptions) -> None:
    """Check that nothing is asked of ONNX graphs, of which the bundle will have none."""
    for name in ("split", "stack", "batch", "sm"):
        if getattr(options, name):
            raise UserError(
                f"{flag(name)} is of the ONNX graphs, and a bundle for native has none",
                remedy=f"add --for all, or leave out {flag(name)}",
            )
