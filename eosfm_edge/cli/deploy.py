"""``eosfm-edge deploy``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.api.options import DeployOptions, as_path
from eosfm_edge.cli.options import (
    EnsembleArgument,
    Json,
    Overwrite,
    Quiet,
    Verbose,
    named_output,
)
from eosfm_edge.cli.output import console, print_json
from eosfm_edge.cli.places import bundle_place, the_ensemble
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options
from eosfm_edge.deploying.search import front
from eosfm_edge.formats.deploy import read_deploy_record
from eosfm_edge.targets.registry import find_target

if TYPE_CHECKING:
    from eosfm_edge.api.verbs.deploy import DeployReport
    from eosfm_edge.formats.deploy import DeployCandidate, DeployRecord


@with_options(DeployOptions, target="TARGET", budget="BUDGET", max_drop="PERCENT")
def deploy(
    options: DeployOptions,
    ensemble: EnsembleArgument = None,
    output: Annotated[
        str | None,
        named_output("The bundle to write: NAME.eosfm.", "ENSEMBLE-TARGET.eosfm"),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Prune, calibrate, export and verify until budgets are met.

    Ratios and precisions are weighed by what they cost on the target, and those that are within the
    budgets are made and judged on held-out tiles. The most faithful one becomes the bundle; with a
    budget of fidelity alone it is the fastest that keeps it. Exits with 1, and writes nothing, if
    none meets the budgets. An interrupted deployment resumes from what it finished.
    """
    from eosfm_edge.bundle.sizes import bundle_sizes

    source = the_ensemble(ensemble, "deploy", options)
    place = _place(source, options) if output is None else as_path(output)
    try:
        with shown_progress(place, quiet=quiet, verbose=verbose) as progress:
            report = ee.deploy(source, place, options, overwrite=overwrite, progress=progress)
    except ee.BudgetsNotMetError as error:
        if as_json:
            print_json({"output": None, "candidates": error.candidates})
        else:
            console().print(_table(error.candidates))
        raise
    sizes = bundle_sizes(place, report.manifest)
    if as_json:
        verdict = report.record.verdict
        print_json(
            {
                "output": place,
                "verdict": {"summary": verdict.summary, **vars(verdict)},
                "record": report.record,
                "manifest": report.manifest,
                "verification": report.verification,
                "engines": report.engines,
                "next_step": report.next_step,
                "sizes": sizes,
            }
        )
        return
    _show(report, place, sizes.summary)


def _place(source: Path, options: DeployOptions) -> Path:
    if options.replay is None:
        return bundle_place(source, find_target(str(options.target)))
    return bundle_place(source, read_deploy_record(options.replay).target)


def _show(report: DeployReport, place: Path, sizes: str) -> None:
    out = console()
    record = report.record
    out.print(_table(record.candidates, record))
    for parity in report.manifest.parity:
        out.print(parity.summary)
    for engine in report.engines:
        out.print(engine.summary)
    taken = "no pruning" if record.ratio == 0 else f"pruned by {record.ratio:g}"
    out.print(f"{place}: {record.precision}, {taken}, for {record.target.name}")
    out.print(sizes)
    out.print(report.next_step)
    out.print(record.verdict.summary)


def _table(candidates: Sequence[DeployCandidate], taken: DeployRecord | None = None) -> Table:
    """Return the candidates with what they cost, and what those that were tried leave.

    Those of the Pareto front are marked: no other that was tried beats them in everything.
    """
    table = Table("", "ratio", "precision", "ms", "MB", "mJ", "cosine", "dB", "drop %", box=None)
    for name in ("ratio", "ms", "MB", "mJ", "cosine", "dB", "drop %"):
        next(c for c in table.columns if c.header == name).justify = "right"
    unbeaten = front(candidates)
    for one in candidates:
        mark = "failed" if one.failed else "front" if one in unbeaten else ""
        if taken and (one.ratio, one.precision) == (taken.ratio, taken.precision):
            mark = "taken"
        table.add_row(
            mark,
            f"{one.ratio:g}",
            one.precision,
            _figure(one.milliseconds, ".3g"),
            f"{one.size / 1e6:,.1f}",
            _figure(one.millijoules, ".3g"),
            _figure(one.cosine, ".5f"),
            _figure(one.sqnr_db, ".1f"),
            _figure(one.drop, ".2f"),
        )
    return table


def _figure(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)
