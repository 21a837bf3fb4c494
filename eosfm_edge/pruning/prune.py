"""``eosfm-edge prune``: an ensemble directory becomes another that costs less."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from eosfm_edge.ensemble.cost import Cost, ensemble_cost
from eosfm_edge.ensemble.model import Ensemble, build_from_state
from eosfm_edge.ensemble.specialist import build_encoder
from eosfm_edge.ensemble.store import load_ensemble, save_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.files import require_replaceable, sha256_file
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import CONTENTS
from eosfm_edge.formats.plan import Plan, read_plan, require_plan_fits, write_plan
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.recipe import LEAST_TILES, Recipe
from eosfm_edge.network.cells import tiles_needed, warn_if_few
from eosfm_edge.network.fidelity import Closeness, compare, least_cosine
from eosfm_edge.network.latency import Footprint
from eosfm_edge.network.tiles import Tiles, load_tiles
from eosfm_edge.progress import Progress, silent
from eosfm_edge.pruning.apply import apply_plan
from eosfm_edge.pruning.budget import Budget, Tried, search
from eosfm_edge.pruning.encoder import kept_widths
from eosfm_edge.pruning.measured import MeasuredTable
from eosfm_edge.pruning.narrow import narrowed_state
from eosfm_edge.pruning.planner import Planner, WholeSpecialists
from eosfm_edge.pruning.promise import promised_db, require_promise
from eosfm_edge.pruning.specialists import without_specialists
from eosfm_edge.pruning.wishes import require_one_wish
from eosfm_edge.resume import resumable
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.reading import Radiometry

_FINISHED = frozenset({".safetensors", ".distillation"})


# Times ensembles in turn on stored values (bands, size, size): the native engine, on this machine.
Stopwatch = Callable[[Sequence[Ensemble], Tensor, Precision], list[Footprint]]


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


@dataclass(frozen=True)
class PruneReport:
    """The report of a pruning. Without an output there is only the plan.

    Attributes:
        plan: what went.
        tiles: that it was chosen, repaired and judged on.
        tried: for a budget.
        before, after: what the ensembles cost.
        fidelity: by level, on the held-out tiles; None where channels cannot be compared.
        promised_db: the signal to noise ratio that is promised of every level; None where nothing
            is: beyond what was measured, of whole specialists and widths, and where a budget says
            what fidelity is wanted.
        footprints: of both.
    """

    plan: Plan
    tiles: Tiles
    tried: Sequence[Tried] = ()
    before: Cost | None = None
    after: Cost | None = None
    fidelity: Sequence[Closeness] | None = None
    promised_db: float | None = None
    footprints: Sequence[Footprint] = ()

    def require_promise(self, what: str) -> None:
        """Check the fidelity against what is promised; the ensemble is written either way.

        Raises:
            CheckFailedError: a level keeps less.
        """
        if self.fidelity is not None and self.promised_db is not None:
            require_promise(self.fidelity, self.promised_db, what)


def prune_ensemble(
    directory: Path,
    scenes: Sequence[SceneName],
    output: Path | None,
    options: PruneOptions,
    measure: Stopwatch,
    progress: Progress = silent,
) -> PruneReport:
    """Prune an ensemble.

    Args:
        directory: the ensemble.
        scenes: unlabelled imagery.
        output: the ensemble directory to write; None: only the plan is made.
        options: what, and how.
        measure: times ensembles with the native engine.
        progress: called with what is done, how much of it, and of how much.

    Raises:
        CheckFailedError: no pruning meets the budget.
        UserError: the wish, the ensemble or the scenes cannot be used.
    """
    _require_tile(options.tile)
    if output is not None:
        _require_free(output.absolute(), options.overwrite)
    ensemble = load_ensemble(directory)
    plan = _given_plan(options, ensemble)
    recipe = plan.recipe if plan else options.recipe
    tiles = load_tiles(
        scenes,
        ensemble.spec,
        options.tile,
        recipe.tiles or max(LEAST_TILES, tiles_needed(ensemble, options.tile)),
        recipe.seed,
        names=options.names,
        radiometry=options.radiometry,
    )
    warn_if_few(ensemble, len(tiles.calibration), options.tile, asked=recipe.tiles)
    tried: Sequence[Tried] = ()
    with _work(output, _request(ensemble, tiles, options)) as work:
        if plan is None and work is not None and (work / "plan.yaml").exists():
            plan = read_plan(work / "plan.yaml")
        if plan is None:
            plan, tried = _make_plan(ensemble, tiles, options, measure, progress)
        if options.save_plan is not None:
            write_plan(plan, options.save_plan)
        if output is None:
            return PruneReport(plan, tiles, tried)
        assert work is not None
        write_plan(plan, work / "plan.yaml")
        pruned = apply_plan(ensemble, plan, tiles, work=work, progress=progress)
        report = _judge(ensemble, pruned, plan, tiles, tried, options, measure)
        _save(pruned, output, overwrite=options.overwrite)
    return report


def _require_tile(size: int) -> None:
    if size % 32 or not 32 <= size <= 1024:
        raise UserError(
            f"tiles of {size} pixels a side", expected="a multiple of 32 from 32 to 1024"
        )


def _require_free(output: Path, overwrite: bool) -> None:
    """Check the output before the work; save_ensemble checks it again."""
    if os.path.lexists(output):
        require_replaceable(output, CONTENTS, overwrite)


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
    measure: Stopwatch,
    progress: Progress,
) -> tuple[Plan, Sequence[Tried]]:
    planner = Planner(ensemble, tiles, options.recipe, options.whole, progress)
    if options.budget is None:
        ratio = options.ratio or 0.0
        asked = f"ratio {ratio:g} by {options.recipe.by}" if options.ratio else "whole specialists"
        return planner.plan(ratio, asked), ()
    budget = options.budget
    gauge = _gauge(ensemble, planner, tiles, options, measure)
    attempts = 0

    def tell(tried: Tried) -> None:
        nonlocal attempts
        attempts += 1
        progress(f"budget {budget}: {tried.value:.4g} at ratio {tried.ratio:.2f}", attempts, 8)

    return search(budget, lambda r: planner.plan(r, f"budget {budget}"), gauge, tell)


def _gauge(
    ensemble: Ensemble,
    planner: Planner,
    tiles: Tiles,
    options: PruneOptions,
    measure: Stopwatch,
) -> Callable[[Plan], float]:
    """Return what measures a plan for the budget."""
    budget = options.budget
    assert budget is not None
    if budget.kind == "ms" and options.measured:
        table = MeasuredTable(options.measured)
        return lambda plan: table.ms(plan.macs_after * options.tile**2)

    def fidelity(plan: Plan) -> float:
        pruned = apply_plan(ensemble, plan, tiles)
        found = _fidelity(ensemble, pruned, tiles)
        if found is None:
            raise UserError(
                "a budget of fidelity needs levels of as many channels as before",
                remedy="ask for a ratio, or prune hidden channels (--scope hidden)",
            )
        return least_cosine(found)

    def footprint(plan: Plan) -> float:
        empty = _of_shapes(ensemble, planner, plan)
        found = measure([empty], _stored(ensemble, tiles.held_out[0]), options.precision)[0]
        return found.ms if budget.kind == "ms" else found.megabytes

    return fidelity if budget.kind == "fidelity" else footprint


def _of_shapes(ensemble: Ensemble, planner: Planner, plan: Plan) -> Ensemble:
    """Return an ensemble of a plan's shapes with any weights: time does not depend on them."""
    shapes = planner.shapes_of(plan)
    kept = {
        owner: kept_widths(planner.shapes[owner], one.groups)
        for owner, one in enumerate(plan.specialists)
    }
    state = narrowed_state(ensemble, kept)
    specialists = []
    for owner, (spec, shape) in enumerate(zip(ensemble.spec.specialists, shapes, strict=True)):
        encoder = build_encoder(spec.backbone, len(spec.bands), shape)
        state |= {f"encoders.{owner}.{k}": v for k, v in encoder.state_dict().items()}
        specialists.append(spec.model_copy(update={"shape": shape}))
    described = ensemble.spec.model_copy(update={"specialists": tuple(specialists)})
    empty = build_from_state(described, state)
    if plan.removed:
        assert planner.moments is not None
        empty = without_specialists(empty, plan.removed, planner.moments)
    return empty


def _judge(
    ensemble: Ensemble,
    pruned: Ensemble,
    plan: Plan,
    tiles: Tiles,
    tried: Sequence[Tried],
    options: PruneOptions,
    measure: Stopwatch,
) -> PruneReport:
    tile = _stored(ensemble, tiles.held_out[0])
    asks_for_fidelity = options.budget is not None and options.budget.kind == "fidelity"
    promises = not (plan.removed or plan.recipe.scope == "width" or asks_for_fidelity)
    share = 1 - plan.macs_after / plan.macs_before
    return PruneReport(
        plan,
        tiles,
        tried,
        ensemble_cost(ensemble),
        ensemble_cost(pruned),
        _fidelity(ensemble, pruned, tiles),
        promised_db(share) if promises else None,
        measure([ensemble, pruned], tile, options.precision),
    )


def _fidelity(ensemble: Ensemble, pruned: Ensemble, tiles: Tiles) -> Sequence[Closeness] | None:
    images = [tile[None] for tile in tiles.held_out]
    before, after = ensemble(images[0][:, :, :32, :32]), pruned(images[0][:, :, :32, :32])
    if any(a.shape != b.shape for a, b in zip(before, after, strict=True)):
        return None
    return compare(ensemble, pruned, images)


def _stored(ensemble: Ensemble, physical: Tensor) -> Tensor:
    """Return the stored values of a tile as specialists see it."""
    seen = [band.seen for band in ensemble.spec.input]
    planes = [(physical[i] - offset) / scale for i, (scale, offset) in enumerate(seen)]
    return torch.stack(planes)


def _save(pruned: Ensemble, output: Path, *, overwrite: bool) -> None:
    count = len(pruned.spec.specialists)
    state = {k: v.detach() for k, v in pruned.state_dict().items()}
    specialists = [
        {
            k.removeprefix(f"encoders.{i}."): v
            for k, v in state.items()
            if k.startswith(f"encoders.{i}.")
        }
        for i in range(count)
    ]
    shared = {
        k: v
        for k, v in state.items()
        if not k.startswith("encoders.") and not k.endswith("num_batches_tracked")
    }
    spec = pruned.spec.model_copy(update={"name": _name_of(output)})
    save_ensemble(output, spec, specialists, shared, overwrite=overwrite)


def _name_of(output: Path) -> str:
    """Return an ensemble's name made of its directory's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", output.name).lstrip("._-")[:64] or "pruned"


def _request(ensemble: Ensemble, tiles: Tiles, options: PruneOptions) -> str:
    """Return a digest of all that the result depends on."""
    whole = options.whole
    digest = hashlib.sha256()
    for part in (
        ensemble.spec.model_dump_json(),
        tiles.sha256,
        options.recipe.model_dump_json(),
        [options.ratio, str(options.budget), options.tile, options.precision],
        [whole.keep, whole.rank_by] if whole else None,
        [_digest(options.plan)] if options.plan else None,
        *(_digest(path) for path in options.measured),
    ):
        digest.update(f"{part}\n".encode())
    for image, label in whole.chips if whole else ():
        digest.update(image.numpy().tobytes() + bytes([label % 256]))
    return digest.hexdigest()


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error


def _work(output: Path | None, request: str) -> AbstractContextManager[Path | None]:
    return nullcontext() if output is None else resumable(output, request, _FINISHED)
