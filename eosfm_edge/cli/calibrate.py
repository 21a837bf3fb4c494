"""``eosfm-edge calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from eosfm_edge.cli.options import PATH, SCENE, console, imagery, overwrite
from eosfm_edge.cli.progress import progress_bars
from eosfm_edge.formats.calibration import METHODS

if TYPE_CHECKING:
    from eosfm_edge.formats.calibration import Calibration, LevelFidelity


@click.command()
@click.argument("ensemble", type=PATH)
@click.option(
    "-o", "--output", type=PATH, required=True, help="The calibration directory to write."
)
@click.option(
    "--data",
    type=SCENE,
    multiple=True,
    help="Unlabelled imagery: a scene, a folder of bands or chips, or a manifest (.yaml). May be "
    "repeated.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", *METHODS]),
    default="auto",
    show_default=True,
    help="What clips activations; 'auto' takes for each tensor what leaves the smallest error.",
)
@click.option(
    "--grn",
    type=click.Choice(["exact", "static"]),
    default="exact",
    show_default=True,
    help="'static' has calibrated constants for the tile's own norms: the network is local, and "
    "less faithful.",
)
@click.option(
    "--min-cosine",
    type=click.FloatRange(0, 1),
    default=0.995,
    show_default=True,
    help="What every level keeps: layers that cost too much are half or fp32.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    help="The same for the percentage of cells that a probe labels otherwise.",
)
@click.option(
    "--distill",
    type=click.IntRange(0, 1_000_000),
    default=0,
    show_default=True,
    help="Steps of quantisation-aware self-distillation.",
)
@click.option(
    "--tiles",
    type=click.IntRange(1, 100_000),
    help="Tiles for calibration, at most; by default as many as the channels need.",
)
@click.option(
    "--tile",
    type=int,
    default=224,
    show_default=True,
    help="Pixels a side: those of the export, on which GRN's norms depend.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of tiles."
)
@imagery
@overwrite
def calibrate(ensemble: Path, output: Path, **options: Any) -> None:
    """Find how each layer of an ENSEMBLE is rounded to int8.

    No labels are needed, only imagery like that which the specialists will see. What is written is
    a directory that export takes with --calibration: calibration.json says for each layer its
    range, its precision, and what it costs. If the budget cannot be kept, nothing is written and
    the exit status is 1.
    """
    from eosfm_edge.calibration.calibrate import CalibrateOptions, calibrate_ensemble
    from eosfm_edge.calibration.encoder import Recipe
    from eosfm_edge.calibration.mixed import Budget

    method = options["method"]
    chosen = CalibrateOptions(
        recipe=Recipe(
            method=None if method == "auto" else method,
            grn=options["grn"],
            budget=Budget(options["min_cosine"], options["max_drop"]),
            distill=options["distill"],
            seed=options["seed"],
        ),
        tiles=options["tiles"],
        tile=options["tile"],
        names=options["names"],
        radiometry=options["radiometry"],
        overwrite=options["overwrite"],
    )
    with progress_bars(output) as tell:
        calibration = calibrate_ensemble(ensemble, options["data"], output, chosen, tell)
    show_calibration(calibration)
    console().print(f"{output}: scales of {len(calibration.specialists)} specialists")


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
