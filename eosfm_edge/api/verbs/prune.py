"""Prune an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eosfm_edge.api.checks import require_ensemble, require_output, require_there
from eosfm_edge.api.imagery import (
    IMAGERY,
    keep_imagery,
    kept_imagery,
    no_imagery,
    radiometry_of,
    require_imagery,
    used_imagery,
    with_kept,
)
from eosfm_edge.api.options import PathLike, PruneOptions, as_path
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.formats.budget import Kind, parse_budget
from eosfm_edge.formats.ensemble import CONTENTS as ENSEMBLE_CONTENTS
from eosfm_edge.formats.plan import read_plan, require_plan_fits
from eosfm_edge.formats.recipe import DEFAULT, Recipe, load_recipe
from eosfm_edge.progress import Progress, silent
from eosfm_edge.pruning.wishes import WISHES, require_one_wish

if TYPE_CHECKING:
    from eosfm_edge.pruning.planner import WholeSpecialists
    from eosfm_edge.pruning.report import PruneReport


class PromiseBrokenError(CheckFailedError):
    """A pruned ensemble keeps less than promised; it is written all the same.

    Attributes:
        report: of the pruning.
    """

    def __init__(self, error: CheckFailedError, report: PruneReport) -> None:
        Exception.__init__(self, *error.args)
        self.report = report


def prune(
    input: PathLike,  # noqa: A002
    output: PathLike | None,
    options: PruneOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PruneReport:
    """Prune an ensemble: write another that costs less. No labels are needed.

    Args:
        input: the ensemble directory.
        output: the ensemble directory to write; None: only ``options.save_plan`` is written.
        options: what to prune, how, and on which imagery.
        overwrite: replace an ensemble that is there.
        progress: told of each specialist.

    Returns:
        The plan, what both ensembles cost, and how close their features are.

    Raises:
        PromiseBrokenError: a level keeps less than promised; the ensemble is written.
        CheckFailedError: no pruning meets the budget; nothing is written.
        UserError: the wish, the ensemble or the imagery cannot be used; nothing is written.
    """
    options = options or PruneOptions()
    ensemble = as_path(input)
    target = None if output is None else as_path(output)
    if target is None and options.save_plan is None:
        raise UserError(
            "there is nothing to write", remedy="give an output (-o ENSEMBLE), or --save-plan FILE"
        )
    kept = None if options.data else kept_imagery(ensemble)
    options = with_kept(options, kept)
    files = [options.plan, options.labels, *options.measured]
    if target is not None:
        inputs = [ensemble, *options.data, *files, options.save_plan, _recipe_file(options.recipe)]
        require_output(target, inputs, ENSEMBLE_CONTENTS, overwrite)
    recipe = _recipe(options)
    _require_wish(options, ensemble)
    budget = None if options.budget is None else parse_budget(options.budget, _BUDGETS)
    require_there(files, "a file")
    spec = require_ensemble(ensemble)
    if options.plan is not None:
        plan = read_plan(options.plan)
        require_plan_fits(
            plan,
            [specialist.name for specialist in spec.specialists],
            [specialist.weights_sha256 for specialist in spec.specialists],
        )
    require_imagery(options.data, ensemble, kept)
    from eosfm_edge.pruning import prune as stage

    whole = _whole(ensemble, options)
    report = stage.prune_ensemble(
        ensemble,
        options.data,
        target,
        stage.PruneOptions(
            recipe=recipe,
            ratio=options.ratio,
            budget=budget,
            plan=options.plan,
            whole=whole,
            tile=options.tile,
            precision=options.precision,
            measured=options.measured,
            save_plan=options.save_plan,
            names=options.bands,
            radiometry=radiometry_of(options),
            overwrite=overwrite,
        ),
        progress,
    )
    if target is not None:
        keep_imagery(target, used_imagery(options, kept, report.plan.recipe.seed))
    try:
        report.require_promise(str(target))
    except CheckFailedError as error:
        raise PromiseBrokenError(error, report) from error
    return report


_BUDGETS: tuple[Kind, ...] = ("ms", "MB", "fidelity")
_OF_RECIPES = ("scope", "criterion", "ranking", "align", "by", "distill", "tiles", "seed")


def _recipe(options: PruneOptions) -> Recipe:
    given = {name: getattr(options, name) for name in _OF_RECIPES}
    given = {name: value for name, value in given.items() if value is not None}
    if options.plan is not None and (given or options.recipe != DEFAULT):
        raise UserError(
            "a plan and options of a recipe are given",
            remedy="--plan has its recipe in it: edit it there",
        )
    if "align" in given:
        given["align"] = int(given["align"])
    return Recipe(**{**load_recipe(options.recipe).model_dump(), **given})


def _recipe_file(recipe: str) -> Path | None:
    return Path(recipe) if Path(recipe).suffix in (".yaml", ".yml") else None


def _require_wish(options: PruneOptions, ensemble: Path) -> None:
    """Check what to prune and on which imagery; what lacks of both is asked for at once."""
    wishes = (options.ratio, options.budget, options.plan, options.specialists)
    nothing = all(wish is None for wish in wishes)
    if nothing and not options.data:
        raise UserError(
            "nothing to prune was given, and no imagery",
            expected=f"{WISHES}, and {IMAGERY}",
            remedy=f"eosfm-edge prune {ensemble} --ratio 0.5 --data SCENE",
        )
    require_one_wish(*wishes)
    wanted = options.specialists
    if (options.rank_by == "probe") != (options.labels is not None):
        raise UserError(
            "of --rank-by probe and --labels one is given", expected="both, or none of them"
        )
    if wanted is None and options.labels is not None:
        raise UserError(
            "--labels rank whole specialists, and how many stay is not given",
            remedy="add --specialists K",
        )
    if wanted not in (None, "useful") and not (str(wanted).isdecimal() and int(wanted) > 0):
        raise UserError(
            f"--specialists is {str(wanted)!r}", expected="a number of at least 1, or 'useful'"
        )
    if not options.data:
        raise no_imagery("prune", ensemble, options)


def _whole(ensemble: Path, options: PruneOptions) -> WholeSpecialists | None:
    """Return which specialists stay; reads the labelled images, which takes torch."""
    from eosfm_edge.pruning.labels import read_chips
    from eosfm_edge.pruning.planner import WholeSpecialists

    wanted = options.specialists
    if wanted is None:
        return None
    chips = read_chips(options.labels, ensemble) if options.labels else ()
    return WholeSpecialists(None if wanted == "useful" else int(wanted), options.rank_by, chips)
