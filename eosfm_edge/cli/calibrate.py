"""``eosfm-edge calibrate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.api.options import CalibrateOptions, as_path
from eosfm_edge.cli.options import (
    EnsembleArgument,
    Json,
    Overwrite,
    Quiet,
    Verbose,
    named_output,
)
from eosfm_edge.cli.output import console, print_json
from eosfm_edge.cli.places import calibration_place, the_ensemble
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options

if TYPE_CHECKING:
    from eosfm_edge.formats.calibration import Calibration, LevelFidelity


@with_options(CalibrateOptions)
def calibrate(
    options: CalibrateOptions,
    ensemble: EnsembleArgument = None,
    output: Annotated[
        str | None,
        named_output("The calibration directory to write.", "ENSEMBLE-int8"),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find how each layer of an ensemble is quantised to int8.

    No labels are needed, only imagery like that which the specialists will see. The output is a
    directory for export --calibration: its calibration.json has the range, the precision and the
    cost of each layer. Exits with 1, and writes nothing, if the budget cannot be kept.
    """
    source = the_ensemble(ensemble, "calibrate", options)
    place = calibration_place(source) if output is None else as_path(output)
    with shown_progress(place, quiet=quiet, verbose=verbose) as progress:
        calibration = ee.calibrate(source, place, options, overwrite=overwrite, progress=progress)
    if as_json:
        print_json({"output": place, "calibration": calibration})
        return
    show_calibration(calibration)
    console().print(f"{place}: scales of {len(calibration.specialists)} specialists")


def show_calibration(calibration: Calibration) -> None:
    """Print what a calibration says, but for its layers."""
    out = console()
    out.print(f"calibration: {calibration.data.tiles} tiles, {calibration.data.source}")
    table = Table("specialist", "int8", "not int8, or costliest", "level1 … level4, dB", box=None)
    for one in calibration.specialists:
        matrices = [layer for layer in one.layers if layer.output is None]
        others = [layer for layer in matrices if layer.precision != "int8"]
        worst = min(matrices, key=lambda layer: min(layer.sensitivity_db))
        named = ", ".join(f"{layer.name} {layer.precision}" for layer in others)
        table.add_row(
            one.name,
            f"{len(matrices) - len(others)} of {len(matrices)}",
            named or f"{worst.name} ({min(worst.sensitivity_db):.1f} dB alone)",
            _decibels(one.native),
        )
    out.print(table)
    for one in calibration.specialists:
        if one.static_grn is not None:
            out.print(f"static GRN alone leaves {one.name} {_decibels(one.static_grn)} dB")
    for index, level in enumerate(calibration.fused):
        out.print(
            f"level{index + 1} on {calibration.data.held_out} held-out tiles: cosine "
            f"{level.cosine:.5f}, signal to noise {_db(level)} dB, "
            f"{level.drop:.2f} % of cells labelled otherwise"
        )


def _decibels(levels: tuple[LevelFidelity, ...]) -> str:
    return " / ".join(_db(level) for level in levels)


def _db(level: LevelFidelity) -> str:
    return "-" if level.sqnr_db is None else f"{level.sqnr_db:.1f}"
