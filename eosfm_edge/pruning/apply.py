"""Carry out a plan: prune specialists one at a time, and put the ensemble together again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from eosfm_edge.ensemble.model import Ensemble, build_from_state
from eosfm_edge.ensemble.specialist import build_encoder, view_of
from eosfm_edge.ensemble.view import EncoderView
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import PruningRecord, SpecialistSpec
from eosfm_edge.formats.plan import CREATED_WITH, Plan, SpecialistPlan, plan_text
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network.tiles import Tiles, inputs_of
from eosfm_edge.progress import Progress, silent
from eosfm_edge.pruning.encoder import (
    carry_out,
    distillation_steps,
    kept_widths,
    pruned_view,
)
from eosfm_edge.pruning.features import feature_moments
from eosfm_edge.pruning.narrow import narrowed_state, refit_shared, require_narrowable
from eosfm_edge.pruning.repair import Kept
from eosfm_edge.pruning.specialists import without_specialists
from eosfm_edge.resume import NOTHING_KEPT, Work


def apply_plan(
    ensemble: Ensemble,
    plan: Plan,
    tiles: Tiles,
    *,
    work: Work = NOTHING_KEPT,
    progress: Progress = silent,
) -> Ensemble:
    """Return the ensemble that a plan makes.

    Args:
        ensemble: the original; it stays as it is.
        plan: what goes.
        tiles: calibration imagery for the repair.
        work: keeps finished specialists, and the state of distillation.
        progress: called with what is done, how much of it, and of how much.

    Raises:
        UserError: the plan names channels that are not there, or leaves widths that are no
            multiples of 8.
    """
    views = [_view_after(ensemble, owner, one) for owner, one in enumerate(plan.specialists)]
    to_prune = [i for i, one in enumerate(plan.specialists) if one.action == "prune"]
    encoders: dict[int, nn.Module] = {}
    for done, owner in enumerate(to_prune):
        progress("repair", done, len(to_prune))
        encoders[owner] = work.step(
            f"{owner}.safetensors",
            partial(_prune, ensemble, owner, plan, tiles, work, progress),
            _save,
            partial(_load, ensemble.spec.specialists[owner].backbone, views[owner]),
        )
    progress("repair", len(to_prune), len(to_prune))
    pruned = _assemble(ensemble, plan, views, encoders, tiles)
    if plan.removed:
        images = (tile[None] for tile in tiles.calibration)
        pruned = without_specialists(pruned, plan.removed, feature_moments(pruned, images))
    return pruned


def _prune(
    ensemble: Ensemble,
    owner: int,
    plan: Plan,
    tiles: Tiles,
    work: Work,
    progress: Progress,
) -> nn.Module:
    if not ensemble.sets[owner]:
        raise UserError(
            f"{plan.specialists[owner].name} cannot be pruned: no rule gives it its bands of the "
            "input, so that there is nothing to repair it on",
            remedy="say `action: keep` in the plan",
        )
    name = plan.specialists[owner].name
    original, groups = ensemble.encoders[owner], plan.specialists[owner].groups
    steps, done = distillation_steps(original, groups, plan.recipe), 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(f"distill {name}", done, steps)

    return carry_out(
        original,
        groups,
        inputs_of(ensemble, owner, tiles.calibration),
        plan.recipe,
        checkpoint=work.checkpoint(f"{owner}.distillation"),
        tick=tick,
    )


def _save(encoder: nn.Module, path: Path) -> None:
    save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, path)


def _load(backbone: str, view: EncoderView, path: Path) -> nn.Module | None:
    """Return a finished specialist; None if its file is damaged."""
    encoder = build_encoder(backbone, view.bands, view.shape)
    try:
        encoder.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError):
        return None
    return encoder.eval()


def _view_after(ensemble: Ensemble, owner: int, one: SpecialistPlan) -> EncoderView:
    """Return the view of a specialist after the plan, which may have been edited."""
    view = view_of(ensemble.encoders[owner])
    there = view.groups
    seen: set[str] = set()
    for group in one.groups:
        if group.of in seen:
            raise UserError(f"the plan prunes {group.of} of {one.name} twice", expected="it once")
        seen.add(group.of)
        channels = there.get(group.of)
        if channels is None:
            raise UserError(f"the plan prunes {group.of} of {one.name}, which is not there")
        if group.removes and max(group.removes) >= channels:
            raise UserError(
                f"the plan removes channel {max(group.removes)} of {group.of} of {one.name}",
                expected=f"0 to {channels - 1}",
            )
        left = channels - len(group.removes)
        if left < 8 or left % 8:
            raise UserError(
                f"the plan leaves {left} channels of {group.of} of {one.name}",
                expected="a multiple of 8, and not none",
                remedy="edit `removes` in the plan",
            )
    if one.groups and any("." not in group.of for group in one.groups):
        require_narrowable(ensemble)
    return pruned_view(view, one.groups) if one.action == "prune" else view


def _assemble(
    ensemble: Ensemble,
    plan: Plan,
    views: Sequence[EncoderView],
    encoders: Mapping[int, nn.Module],
    tiles: Tiles,
) -> Ensemble:
    kept: dict[int, Kept] = {
        owner: kept_widths(view_of(ensemble.encoders[owner]).shape, plan.specialists[owner].groups)
        for owner in encoders
    }
    digest = hashlib.sha256(plan_text(plan).encode()).hexdigest()
    specialists = []
    state = narrowed_state(ensemble, kept)
    for owner, spec in enumerate(ensemble.spec.specialists):
        encoder = encoders.get(owner, ensemble.encoders[owner])
        state |= {f"encoders.{owner}.{k}": v for k, v in encoder.state_dict().items()}
        if owner in encoders:
            original = ensemble.encoders[owner]
            macs = [view.cost.macs for view in (view_of(original), views[owner])]
            steps = distillation_steps(original, plan.specialists[owner].groups, plan.recipe)
            record = _record(spec, macs, plan.recipe, steps, digest, tiles)
            spec = spec.model_copy(
                update={"shape": views[owner].shape, "pruning": (*spec.pruning, record)}
            )
        specialists.append(spec)
    described = ensemble.spec.model_copy(update={"specialists": tuple(specialists)})
    result = build_from_state(described, {k: v.clone() for k, v in state.items()})
    if any(k is not None for per_level in kept.values() for k in per_level):
        refit_shared(ensemble, result, tiles.calibration)
    return result


def _record(
    spec: SpecialistSpec,
    macs: Sequence[float],
    recipe: Recipe,
    steps: int,
    plan_sha256: str,
    tiles: Tiles,
) -> PruningRecord:
    repair = ["grn"] * recipe.repair_grn + ["fc2"] * recipe.repair_fc2
    return PruningRecord(
        created_with=CREATED_WITH,
        parent_sha256=spec.weights_sha256,
        plan_sha256=plan_sha256,
        scope=recipe.scope,
        criterion=recipe.criterion,
        ranking=recipe.ranking,
        macs_before=macs[0],
        macs_after=macs[1],
        repair=(*repair, *(["distillation"] * bool(steps))),
        distillation_steps=steps,
        seed=recipe.seed,
        tiles=len(tiles.calibration),
        tiles_sha256=tiles.sha256,
    )
