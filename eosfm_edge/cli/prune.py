"""``eosfm-edge prune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.api.options import PruneOptions, as_path
from eosfm_edge.cli.options import (
    EnsembleArgument,
    Json,
    Overwrite,
    Quiet,
    Verbose,
    named_output,
)
from eosfm_edge.cli.output import console, print_json
from eosfm_edge.cli.places import pruned_place, the_ensemble
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options

if TYPE_CHECKING:
    from eosfm_edge.formats.plan import Plan
    from eosfm_edge.pruning.report import PruneReport


@with_options(PruneOptions, budget="BUDGET", specialists="K", recipe="RECIPE")
def prune(
    options: PruneOptions,
    ensemble: EnsembleArgument = None,
    output: Annotated[
        str | None,
        named_output("The ensemble directory to write.", "named after what is done: six-50"),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prune an ensemble: write another that costs less.

    No labels are needed, only imagery like that which the specialists will see. The output is an
    ensemble like any other, to be exported, or pruned again. Exits with 1 if a level keeps less
    than docs/pruning.md promises; the output stays, for you to look at.
    """
    source = the_ensemble(ensemble, "prune", options)
    place = pruned_place(source, options) if output is None else as_path(output)
    show = _print_json if as_json else _show
    try:
        with shown_progress(place, quiet=quiet, verbose=verbose) as progress:
            report = ee.prune(source, place, options, overwrite=overwrite, progress=progress)
    except ee.PromiseBrokenError as error:
        show(error.report, place, options)
        raise
    show(report, place, options)


def _print_json(report: PruneReport, output: Path | None, options: PruneOptions) -> None:
    tiles = report.tiles
    print_json(
        {
            "output": output,
            "save_plan": options.save_plan,
            "plan": report.plan,
            "tried": report.tried,
            "tiles": {
                "calibration": len(tiles.calibration),
                "held_out": len(tiles.held_out),
                "sha256": tiles.sha256,
                "source": tiles.source,
            },
            "before": report.before,
            "after": report.after,
            "fidelity": report.fidelity
            and [{"cosine": one.cosine, "sqnr_db": one.sqnr_db} for one in report.fidelity],
            "promised_db": report.promised_db,
            "footprints": report.footprints,
        }
    )


def _show(report: PruneReport, output: Path | None, options: PruneOptions) -> None:
    out = console()
    out.print(_plan_table(report.plan))
    for tried in report.tried:
        out.print(f"tried ratio {tried.ratio:.3f}: {tried.value:.4g}")
    out.print(f"calibration: {len(report.tiles.calibration)} tiles, {report.tiles.source}")
    if options.save_plan:
        out.print(f"plan: {options.save_plan}")
    if output is None or report.before is None or report.after is None:
        return
    before, after = report.before, report.after
    area = options.tile**2
    table = Table("", "before", "after", "share", box=None)
    table.add_row(*_row("MACs, million", before.macs * area / 1e6, after.macs * area / 1e6))
    table.add_row(*_row("parameters, million", before.params / 1e6, after.params / 1e6))
    one, other = report.footprints
    table.add_row(*_row(f"MB, {options.precision}", one.megabytes, other.megabytes))
    table.add_row(*_row(f"native ms, {options.precision}", one.ms, other.ms))
    out.print(table)
    if report.fidelity is None:
        out.print("the levels have other channels than before: they cannot be compared")
    for index, level in enumerate(report.fidelity or ()):
        out.print(
            f"level{index + 1} on {len(report.tiles.held_out)} held-out tiles: cosine "
            f"{level.cosine:.5f}, signal to noise {level.sqnr_db:.1f} dB"
        )
    if report.promised_db is not None:
        out.print(f"promised at this ratio: {report.promised_db:.1f} dB at every level")
    elif report.fidelity is not None:
        out.print("no fidelity is promised of this pruning: judge it by the figures above")
    out.print(f"{output}: {sum(s.action != 'remove' for s in report.plan.specialists)} specialists")


def _row(name: str, before: float, after: float) -> tuple[str, str, str, str]:
    return name, f"{before:,.1f}", f"{after:,.1f}", f"{after / before:.3f}"


def _plan_table(plan: Plan) -> Table:
    table = Table("specialist", "", "MACs", "hidden channels", "why", box=None)
    for one in plan.specialists:
        share = one.macs_after / one.macs_before
        kept = " ".join(str(group.keeps) for group in one.groups)
        table.add_row(one.name, one.action, f"{share:.0%}", kept, one.why)
    return table
