"""``eosfm-edge prune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.table import Table

from eosfm_edge.cli.options import PATH, SCENE, console, imagery, overwrite
from eosfm_edge.cli.progress import progress_bars
from eosfm_edge.formats.recipe import DEFAULT, Criterion, Measure, Ranking, Scope, shipped

if TYPE_CHECKING:
    from eosfm_edge.formats.plan import Plan
    from eosfm_edge.pruning.planner import WholeSpecialists
    from eosfm_edge.pruning.prune import PruneReport

_RECIPE_OPTIONS = ("scope", "criterion", "ranking", "align", "by", "distill", "tiles", "seed")


@click.command()
@click.argument("ensemble", type=PATH)
@click.option("-o", "--output", type=PATH, help="The ensemble directory to write.")
@click.option(
    "--data",
    "scenes",
    type=SCENE,
    multiple=True,
    help="Unlabelled scenes, folders of bands or chips, or a manifest (.yaml), to choose and "
    "repair on. May be repeated.",
)
@click.option("--ratio", type=click.FloatRange(0, 1, max_open=True), help="The share that goes.")
@click.option("--budget", metavar="BUDGET", help="Instead of a ratio: 40ms, 5MB or fidelity=0.98.")
@click.option(
    "--specialists",
    metavar="K",
    help="Keep K whole specialists; 'useful': all but dead ones and duplicates.",
)
@click.option(
    "--rank-by",
    type=click.Choice(["reconstruction", "selection", "probe"]),
    default="reconstruction",
    show_default=True,
    help="What says which specialists go.",
)
@click.option(
    "--labels", type=PATH, help="For --rank-by probe: a CSV of image files and their labels."
)
@click.option("--plan", "plan_file", type=PATH, help="Replay a plan instead of making one.")
@click.option("--save-plan", type=PATH, help="Write the plan here; without -o, do no more.")
@click.option(
    "--recipe",
    default=DEFAULT,
    show_default=True,
    help=f"How to prune: {', '.join(shipped())}, or a .yaml file. The options below override it.",
)
@click.option("--scope", type=click.Choice(get_args(Scope)), help="'width' changes the outputs.")
@click.option("--criterion", type=click.Choice(get_args(Criterion)), help="Which channels go.")
@click.option("--ranking", type=click.Choice(get_args(Ranking)), help="Which channels compete.")
@click.option("--align", type=click.Choice(["8", "16"]), help="Widths are multiples of this.")
@click.option("--by", type=click.Choice(get_args(Measure)), help="What a ratio is of.")
@click.option("--distill", type=click.IntRange(0, 1_000_000), help="Steps of self-distillation.")
@click.option(
    "--tiles",
    type=click.IntRange(1, 100_000),
    help="Tiles for calibration, at most; by default as many as the channels need.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of tiles and distillation.")
@click.option("--tile", type=int, default=224, show_default=True, help="Pixels a side.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the native engine, for milliseconds and megabytes.",
)
@click.option(
    "--measured",
    type=PATH,
    multiple=True,
    help="For a budget of ms on another device: what bench --json wrote there, for two bundles or "
    "more.",
)
@imagery
@overwrite
def prune(ensemble: Path, output: Path | None, **options: Any) -> None:
    """Prune an ENSEMBLE: write another that costs less.

    No labels are needed, only scenes like those that the specialists will see. A ratio is the
    share of multiply-accumulates that goes. What is written is an ensemble like any other, to be
    exported, or pruned again. Exit code 1 if a level keeps less than what docs/pruning.md promises;
    what was written stays, to be looked at.
    """
    from eosfm_edge.network.latency import footprints
    from eosfm_edge.pruning.budget import parse_budget
    from eosfm_edge.pruning.prune import PruneOptions, prune_ensemble

    if output is None and options["save_plan"] is None:
        raise click.UsageError("there is nothing to write: give -o ENSEMBLE or --save-plan FILE")
    chosen = PruneOptions(
        recipe=_recipe(options),
        ratio=options["ratio"],
        budget=parse_budget(options["budget"]) if options["budget"] else None,
        plan=options["plan_file"],
        whole=_whole(ensemble, options),
        tile=options["tile"],
        precision=options["precision"],
        measured=options["measured"],
        save_plan=options["save_plan"],
        names=options["names"],
        radiometry=options["radiometry"],
        overwrite=options["overwrite"],
    )
    with progress_bars(output) as tell:
        report = prune_ensemble(ensemble, options["scenes"], output, chosen, footprints, tell)
    _show(report, output, options)
    report.require_promise(str(output))


def _recipe(options: dict[str, Any]) -> Any:
    from eosfm_edge.formats.recipe import Recipe, load_recipe

    given = {k: options[k] for k in _RECIPE_OPTIONS if options[k] is not None}
    if options["plan_file"] and (given or options["recipe"] != DEFAULT):
        raise click.UsageError("--plan has its recipe in it: edit it there")
    if "align" in given:
        given["align"] = int(given["align"])
    return Recipe(**{**load_recipe(options["recipe"]).model_dump(), **given})


def _whole(ensemble: Path, options: dict[str, Any]) -> WholeSpecialists | None:
    from eosfm_edge.pruning.labels import read_chips
    from eosfm_edge.pruning.planner import WholeSpecialists

    wanted, labels = options["specialists"], options["labels"]
    if (options["rank_by"] == "probe") != (labels is not None):
        raise click.UsageError("--rank-by probe and --labels go together")
    if wanted is None:
        if labels is not None:
            raise click.UsageError(
                "--labels rank whole specialists: say how many stay, --specialists K"
            )
        return None
    if wanted != "useful" and not (wanted.isdecimal() and int(wanted) > 0):
        raise click.UsageError(f"--specialists is {wanted!r}, expected a number or 'useful'")
    chips = read_chips(labels, ensemble) if labels else ()
    return WholeSpecialists(None if wanted == "useful" else int(wanted), options["rank_by"], chips)


def _show(report: PruneReport, output: Path | None, options: dict[str, Any]) -> None:
    out = console()
    out.print(_plan_table(report.plan))
    for tried in report.tried:
        out.print(f"tried ratio {tried.ratio:.3f}: {tried.value:.4g}")
    out.print(f"calibration: {len(report.tiles.calibration)} tiles, {report.tiles.source}")
    if options["save_plan"]:
        out.print(f"plan: {options['save_plan']}")
    if output is None or report.before is None or report.after is None:
        return
    before, after = report.before, report.after
    area = options["tile"] ** 2
    table = Table("", "before", "after", "share", box=None)
    table.add_row(*_row("MACs, million", before.macs * area / 1e6, after.macs * area / 1e6))
    table.add_row(*_row("parameters, million", before.params / 1e6, after.params / 1e6))
    one, other = report.footprints
    table.add_row(*_row(f"MB, {options['precision']}", one.megabytes, other.megabytes))
    table.add_row(*_row(f"native ms, {options['precision']}", one.ms, other.ms))
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
