"""The report of a pruning: what went, what is left, and whether it keeps what is promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eosfm_edge.ensemble.cost import ensemble_cost
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.view import Cost
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.plan import Plan
from eosfm_edge.formats.precision import Precision
from eosfm_edge.network.fidelity import Closeness
from eosfm_edge.network.latency import Footprint
from eosfm_edge.network.tiles import Tiles
from eosfm_edge.pruning.budget import Tried
from eosfm_edge.pruning.measures import fidelity_of, footprints_of
from eosfm_edge.pruning.promise import promised_db, require_promise


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


def judge(
    ensemble: Ensemble,
    pruned: Ensemble,
    plan: Plan,
    tiles: Tiles,
    tried: Sequence[Tried],
    budget: Budget | None,
    precision: Precision,
) -> PruneReport:
    """Judge a pruned ensemble against its original, on the held-out tiles.

    Args:
        ensemble: the original.
        pruned: what the plan made of it.
        plan: that was carried out.
        tiles: that it was chosen and repaired on, and others to judge by.
        tried: for a budget.
        budget: that was asked for.
        precision: of the native engine's weights, in the footprints.
    """
    asks_for_fidelity = budget is not None and budget.kind == "fidelity"
    promises = not (plan.removed or plan.recipe.scope == "width" or asks_for_fidelity)
    share = 1 - plan.macs_after / plan.macs_before
    return PruneReport(
        plan,
        tiles,
        tried,
        ensemble_cost(ensemble),
        ensemble_cost(pruned),
        fidelity_of(ensemble, pruned, tiles),
        promised_db(share) if promises else None,
        footprints_of([ensemble, pruned], tiles, precision),
    )
