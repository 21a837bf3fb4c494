"""Measure plans for a budget, as the search for a ratio tries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from eosfm_edge.ensemble.model import Ensemble, build_from_state
from eosfm_edge.ensemble.specialist import build_encoder, view_of
from eosfm_edge.errors import UserError
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.plan import Plan
from eosfm_edge.formats.precision import Precision
from eosfm_edge.network.fidelity import least_cosine
from eosfm_edge.network.tiles import Tiles
from eosfm_edge.pruning.apply import apply_plan
from eosfm_edge.pruning.encoder import kept_widths, pruned_view
from eosfm_edge.pruning.features import FeatureMoments
from eosfm_edge.pruning.measured import MeasuredTable
from eosfm_edge.pruning.measures import fidelity_of, footprints_of
from eosfm_edge.pruning.narrow import narrowed_state
from eosfm_edge.pruning.planner import Planner
from eosfm_edge.pruning.specialists import without_specialists


def gauge(
    budget: Budget,
    ensemble: Ensemble,
    planner: Planner,
    tiles: Tiles,
    precision: Precision,
    measured: Sequence[Path],
) -> Callable[[Plan], float]:
    """Return what measures a plan in the unit of a budget.

    Args:
        budget: milliseconds, megabytes or fidelity.
        ensemble: the original.
        planner: that makes the plans.
        tiles: of the ensemble's input.
        precision: of the native engine's weights.
        measured: timings of another device, for milliseconds.
    """
    if budget.kind == "ms" and measured:
        table, pixels = MeasuredTable(measured), tiles.held_out[0][0].numel()
        return lambda plan: table.ms(plan.macs_after * pixels)

    def fidelity(plan: Plan) -> float:
        pruned = apply_plan(ensemble, plan, tiles)
        found = fidelity_of(ensemble, pruned, tiles)
        if found is None:
            raise UserError(
                "a budget of fidelity needs levels of as many channels as before",
                remedy="ask for a ratio, or prune hidden channels (--scope hidden)",
            )
        return least_cosine(found)

    def footprint(plan: Plan) -> float:
        found = footprints_of([of_shapes(ensemble, plan, planner.moments)], tiles, precision)[0]
        return found.ms if budget.kind == "ms" else found.megabytes

    return fidelity if budget.kind == "fidelity" else footprint


def of_shapes(
    ensemble: Ensemble, plan: Plan, moments: Sequence[FeatureMoments] | None = None
) -> Ensemble:
    """Return an ensemble of a plan's shapes with any weights: time does not depend on them.

    Args:
        ensemble: the original.
        plan: what goes.
        moments: of its features, where the plan removes whole specialists.
    """
    before = [view_of(encoder) for encoder in ensemble.encoders]
    views = [pruned_view(v, one.groups) for v, one in zip(before, plan.specialists, strict=True)]
    kept = {
        owner: kept_widths(before[owner].shape, one.groups)
        for owner, one in enumerate(plan.specialists)
    }
    state = narrowed_state(ensemble, kept)
    specialists = []
    for owner, (spec, view) in enumerate(zip(ensemble.spec.specialists, views, strict=True)):
        encoder = build_encoder(spec.backbone, view.bands, view.shape)
        state |= {f"encoders.{owner}.{k}": v for k, v in encoder.state_dict().items()}
        specialists.append(spec.model_copy(update={"shape": view.shape}))
    described = ensemble.spec.model_copy(update={"specialists": tuple(specialists)})
    empty = build_from_state(described, state)
    if plan.removed:
        assert moments is not None
        empty = without_specialists(empty, plan.removed, moments)
    return empty
