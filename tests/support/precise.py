"""Bundles in any precision, with the calibrations that they need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eosfm_edge.calibration.calibrate import CalibrateOptions, calibrate_ensemble
from eosfm_edge.calibration.encoder import Recipe
from eosfm_edge.calibration.mixed import Budget
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bundle import Layout
from eosfm_edge.formats.precision import Precision
from eosfm_edge.targets.registry import find_target

TILE = 64


def calibrated(
    folder: Path, ensemble: Path, imagery: Path, tile: int = TILE, **recipe: Any
) -> Path:
    """Calibrate an ensemble whatever it costs."""
    recipe = {"budget": Budget(0.0), **recipe}
    options = CalibrateOptions(recipe=Recipe(**recipe), tiles=16, tile=tile)
    calibrate_ensemble(ensemble, [imagery], folder / "calibration", options)
    return folder / "calibration"


def exported(
    folder: Path,
    ensemble: Path,
    imagery: Path,
    target: str,
    precision: Precision,
    layout: Layout = "whole",
    capabilities: Sequence[str] = (),
    **recipe: Any,
) -> Path:
    """Export an ensemble in a precision as ``b.eosfm``."""
    scales = calibrated(folder, ensemble, imagery, **recipe) if precision == "int8" else None
    bundle = folder / "b.eosfm"
    options = ExportOptions(
        target=find_target(target),
        precision=precision,
        calibration=scales,
        tile=TILE,
        layout=layout,
        compute_capabilities=capabilities,
    )
    export_bundle(ensemble, imagery, bundle, options)
    return bundle
