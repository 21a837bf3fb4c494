"""From an ensemble to a plan: which specialists go, and which channels of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from eosfm_edge.ensemble.cost import ensemble_cost, runs_of
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import view_of
from eosfm_edge.ensemble.view import Cost
from eosfm_edge.errors import UserError
from eosfm_edge.formats.plan import CREATED_WITH, GroupPlan, Plan, SpecialistPlan
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network.tiles import Tiles, inputs_of
from eosfm_edge.progress import Progress
from eosfm_edge.pruning.encoder import Study, pruned_view, study
from eosfm_edge.pruning.features import FeatureMoments, feature_moments
from eosfm_edge.pruning.narrow import require_narrowable
from eosfm_edge.pruning.ranking import rank_by_probe, rank_by_reconstruction, rank_by_selection
from eosfm_edge.pruning.useless import find_dead, find_duplicates

RankBy = Literal["reconstruction", "selection", "probe"]
Chip = tuple[Tensor, int]


@dataclass(frozen=True)
class WholeSpecialists:
    """The specialists that go as a whole.

    Attributes:
        keep: how many stay; None: all but those that are dead or duplicates of others.
        rank_by: what says who goes first.
        chips: labelled images in physical units, for ``probe``.
    """

    keep: int | None
    rank_by: RankBy = "reconstruction"
    chips: Sequence[Chip] = ()


class Planner:
    """Everything that is known of an ensemble before channels go; gives plans for any ratio."""

    def __init__(
        self,
        ensemble: Ensemble,
        tiles: Tiles,
        recipe: Recipe,
        whole: WholeSpecialists | None,
        progress: Progress,
    ) -> None:
        """Study an ensemble.

        Args:
            ensemble: it stays as it is.
            tiles: calibration imagery.
            recipe: how channels are chosen.
            whole: which specialists go as a whole; None: none.
            progress: called with what is done, how much of it, and of how much.

        Raises:
            UserError: the recipe or the wish does not fit the ensemble.
        """
        if recipe.scope == "width":
            require_narrowable(ensemble)
        self._ensemble, self._recipe = ensemble, recipe
        self.moments: list[FeatureMoments] | None = None
        self.removed: dict[int, str] = {}
        if whole is not None:
            progress("features", 0, 1)
            images = (tile[None] for tile in tiles.calibration)
            self.moments = feature_moments(ensemble, images)
            progress("features", 1, 1)
            self.removed = _removed(ensemble, self.moments, whole)
        self.views = [view_of(encoder) for encoder in ensemble.encoders]
        self._studies: dict[int, Study] = {}
        alive = [i for i, sets in enumerate(ensemble.sets) if sets and i not in self.removed]
        for done, owner in enumerate(alive):
            progress(f"study: {ensemble.spec.specialists[owner].name}", done, len(alive))
            inputs = inputs_of(ensemble, owner, tiles.calibration)
            self._studies[owner] = study(ensemble.encoders[owner], inputs, recipe)
        progress("study", len(alive), len(alive))

    def plan(self, ratio: float, asked: str) -> Plan:
        """Return the plan that removes a share of the ensemble's cost.

        Args:
            ratio: 0 ... 1, of what the recipe's ``by`` says, whole specialists included.
            asked: what the user asked for, in words.

        Raises:
            UserError: the goal asks for more than can be removed.
        """
        share = self._share_of_each(ratio)
        specialists = [self._specialist(owner, share) for owner in range(len(self.views))]
        before = ensemble_cost(self._ensemble, self.views)
        after = before
        for one, runs in zip(specialists, runs_of(self._ensemble), strict=True):
            if runs:
                saved = (one.macs_before - one.macs_after) * runs
                after += Cost(-saved, one.params_after - one.params_before)
        return Plan(
            ensemble=self._ensemble.spec.name,
            created_with=CREATED_WITH,
            asked=asked,
            recipe=self._recipe,
            macs_before=before.macs,
            macs_after=after.macs,
            params_before=before.params,
            params_after=after.params,
            specialists=tuple(specialists),
        )

    def _share_of_each(self, ratio: float) -> float:
        """Return the share that every specialist that stays must lose."""
        if self._recipe.by == "channels":
            return ratio
        unit = (lambda c: c.macs) if self._recipe.by == "macs" else (lambda c: float(c.params))
        whole = ensemble_cost(self._ensemble, self.views)
        prunable = removed = 0.0
        for owner, (view, runs) in enumerate(zip(self.views, runs_of(self._ensemble), strict=True)):
            one = view.cost
            cost = unit(Cost(one.macs * runs, one.params)) if runs else 0.0
            prunable += cost if owner in self._studies else 0.0
            removed += cost if owner in self.removed else 0.0
        share = (ratio * unit(whole) - removed) / prunable if prunable else 0.0
        if share >= 1:
            most = (prunable + removed) / unit(whole)
            raise UserError(
                f"{ratio:.0%} of the ensemble cannot be removed by pruning channels",
                expected=f"less than {most:.0%}, what specialists cost",
                remedy="ask for less, or for fewer --specialists",
            )
        return max(share, 0.0)

    def _specialist(self, owner: int, share: float) -> SpecialistPlan:
        spec = self._ensemble.spec.specialists[owner]
        before = self.views[owner].cost
        groups: tuple[GroupPlan, ...] = ()
        after = before
        if owner in self.removed:
            action, why, after = "remove", self.removed[owner], Cost(0.0, 0)
        elif owner not in self._studies:
            action, why = "keep", "no rule gives it its bands of the input"
        elif share == 0:
            action, why = "keep", "nothing is asked of its channels"
        else:
            groups = self._studies[owner].plan(share, self._recipe)
            after = pruned_view(self.views[owner], groups).cost
            action = "prune"
            why = f"{self._recipe.criterion}, {self._recipe.ranking} ranking"
        return SpecialistPlan(
            name=spec.name,
            weights_sha256=spec.weights_sha256,
            action=action,
            why=why,
            macs_before=before.macs,
            macs_after=after.macs,
            params_before=before.params,
            params_after=after.params,
            groups=groups,
        )


def _removed(
    ensemble: Ensemble, moments: list[FeatureMoments], whole: WholeSpecialists
) -> dict[int, str]:
    """Return the specialists that go, and why."""
    names = [specialist.name for specialist in ensemble.spec.specialists]
    useless = dict(find_dead(ensemble, moments))
    for duplicate in find_duplicates(ensemble, moments):
        useless.setdefault(
            duplicate.index, f"says what {names[duplicate.of]} says (R² {duplicate.r2:.4f})"
        )
    if whole.keep is None:
        return useless
    going = len(names) - whole.keep
    if not 0 <= going < len(names):
        raise UserError(
            f"{whole.keep} specialists shall stay of {len(names)}", expected=f"1 to {len(names)}"
        )
    order = {
        "reconstruction": lambda: rank_by_reconstruction(ensemble, moments),
        "selection": lambda: rank_by_selection(ensemble),
        "probe": lambda: rank_by_probe(ensemble, whole.chips),
    }[whole.rank_by]()
    return {ranked.index: useless.get(ranked.index, ranked.why) for ranked in order[:going]}
