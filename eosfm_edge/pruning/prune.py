"""``eosfm-edge prune``: an ensemble directory becomes another that costs less."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from eosfm_edge.bundle.palette import Palette
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.store import load_ensemble, save_model
from eosfm_edge.errors import UserError
from eosfm_edge.files import require_replaceable, sha256_file
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.base import plain_name
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.ensemble import CONTENTS
from eosfm_edge.formats.plan import Plan, plan_text, read_plan, require_plan_fits, write_plan
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.recipe import LEAST_TILES, Recipe
from eosfm_edge.network.palette import (
    kept_palette,
    level_channels,
    palette_of,
    palette_of_tiles,
)
from eosfm_edge.network.tiles import Tiles, load_tiles
from eosfm_edge.progress import Progress, silent
from eosfm_edge.pruning.apply import apply_plan
from eosfm_edge.pruning.budget import Tried, search
from eosfm_edge.pruning.gauge import gauge
from eosfm_edge.pruning.planner import Planner, WholeSpecialists
from eosfm_edge.pruning.report import PruneReport, judge
from eosfm_edge.pruning.wishes import require_one_wish
from eosfm_edge.resume import resumable
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.reading import Radiometry


@dataclass(frozen=True)
class PruneOptions:
    """Options of pruning: how much, and by which recipe.

    Attributes:
        recipe: how.
        ratio: the share of the cost that goes.
        budget: instead of a ratio, what must be met.
        plan: instead of both, a plan to be replayed.
        whole: which specialists go as a whole.
        tile: pixels of a tile's side, a multiple of 32.
        precision: of the native engine's weights in a budget and in the report.
        measured: timings of another device, for a budget of milliseconds.
        save_plan: where the plan is written.
        names, radiometry: of the scenes, as in export.
        overwrite: replace an ensemble that is there.
    """

    recipe: Recipe = field(default_factory=Recipe)
    ratio: float | None = None
    budget: Budget | None = None
    plan: Path | None = None
    whole: WholeSpecialists | None = None
    tile: int = 224
    precision: Precision = "fp32"
    measured: Sequence[Path] = ()
    save_plan: Path | None = None
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None
    overwrite: bool = False


def prune_ensemble(
    directory: Path,
    scenes: Sequence[SceneName] | Tiles,
    output: Path | None,
    options: PruneOptions,
    progress: Progress = silent,
) -> PruneReport:
    """Prune an ensemble.

    Args:
        directory: the ensemble.
        scenes: unlabelled imagery, or tiles that were drawn of it.
        output: the ensemble directory to write; None: only the plan is made.
        options: what, and how.
        progress: called with what is done, how much of it, and of how much.

    Raises:
        CheckFailedError: no pruning meets the budget.
        UserError: the wish, the ensemble or the scenes cannot be used.
    """
    if output is not None:
        # Before the work; save_model checks it again.
        require_replaceable(output.absolute(), CONTENTS, options.overwrite)
    ensemble = load_ensemble(directory)
    given = _given_plan(options, ensemble)
    recipe = given.recipe if given else options.recipe
    tiles = load_tiles(
        ensemble,
        scenes,
        options.tile,
        asked=recipe.tiles,
        least=LEAST_TILES,
        seed=recipe.seed,
        names=options.names,
        radiometry=options.radiometry,
    )
    with resumable(output, _request(ensemble, tiles, options)) as work:
        plan, tried = (
            (given, ())
            if given
            else work.step(
                "plan.yaml",
                partial(_make_plan, ensemble, tiles, options, progress),
                lambda made, path: path.write_text(plan_text(made[0]), encoding="utf-8"),
                lambda path: (read_plan(path), ()),
            )
        )
        if options.save_plan is not None:
            write_plan(plan, options.save_plan)
        if output is None:
            return PruneReport(plan, tiles, tried)
        pruned = apply_plan(ensemble, plan, tiles, work=work, progress=progress)
        report = judge(ensemble, pruned, plan, tiles, tried, options.budget, options.precision)
        save_model(
            output,
            pruned,
            plain_name(output.name) or "pruned",
            palette=_palette(directory, scenes, ensemble, pruned, options),
            overwrite=options.overwrite,
        )
    return report


def _palette(
    directory: Path,
    scenes: Sequence[SceneName] | Tiles,
    ensemble: Ensemble,
    pruned: Ensemble,
    options: PruneOptions,
) -> Palette | None:
    """Return the original's palette, by which both are coloured; None if their channels differ."""
    channels = level_channels(pruned)
    if level_channels(ensemble) != channels:
        return None
    if kept := kept_palette(directory, channels):
        return kept
    if isinstance(scenes, Tiles):
        return palette_of_tiles(ensemble, scenes.calibration)
    return palette_of(
        ensemble, scenes, options.tile, names=options.names, radiometry=options.radiometry
    )


def _given_plan(options: PruneOptions, ensemble: Ensemble) -> Plan | None:
    require_one_wish(options.ratio, options.budget, options.plan, options.whole)
    if options.plan is None:
        return None
    plan = read_plan(options.plan)
    specialists = ensemble.spec.specialists
    require_plan_fits(plan, [s.name for s in specialists], [s.weights_sha256 for s in specialists])
    return plan


def _make_plan(
    ensemble: Ensemble,
    tiles: Tiles,
    options: PruneOptions,
    progress: Progress,
) -> tuple[Plan, Sequence[Tried]]:
    planner = Planner(ensemble, tiles, options.recipe, options.whole, progress)
    if options.budget is None:
        ratio = options.ratio or 0.0
        asked = f"ratio {ratio:g} by {options.recipe.by}" if options.ratio else "whole specialists"
        return planner.plan(ratio, asked), ()
    budget = options.budget
    measure = gauge(budget, ensemble, planner, tiles, options.precision, options.measured)
    attempts = 0

    def tell(tried: Tried) -> None:
        nonlocal attempts
        attempts += 1
        progress(f"budget {budget}: {tried.value:.4g} at ratio {tried.ratio:.2f}", attempts, 8)

    return search(budget, lambda r: planner.plan(r, f"budget {budget}"), measure, tell)


def _request(ensemble: Ensemble, tiles: Tiles, options: PruneOptions) -> list[object]:
    """Return everything that the result depends on."""
    whole = options.whole
    request: list[object] = [
        ensemble.spec.model_dump_json(),
        tiles.sha256,
        tiles.held_out_sha256,
        options.recipe.model_dump_json(),
        [options.ratio, str(options.budget), options.tile, options.precision],
        [whole.keep, whole.rank_by] if whole else None,
        *(_digest(path) for path in (options.plan, *options.measured) if path),
    ]
    for image, label in whole.chips if whole else ():
        request.append(hashlib.sha256(image.numpy().tobytes()).hexdigest())
        request.append(label)
    return request


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
