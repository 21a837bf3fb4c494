"""One encoder: what is to be known of it, a plan for a ratio, and the plan carried out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from eosfm_edge.ensemble.specialist import view_of
from eosfm_edge.ensemble.view import Cost, EncoderView
from eosfm_edge.formats.ensemble import LEVELS, Shape
from eosfm_edge.formats.plan import GroupPlan
from eosfm_edge.formats.recipe import Measure, Recipe
from eosfm_edge.network.batches import PIXELS_PER_BATCH, in_batches
from eosfm_edge.network.distill import distill
from eosfm_edge.network.moments import Moments, hidden_moments, level_moments
from eosfm_edge.network.steps import blocks, weight_of
from eosfm_edge.pruning.allocation import Group, allocate, removals
from eosfm_edge.pruning.elimination import Elimination, by_reconstruction, by_score
from eosfm_edge.pruning.groups import Dependencies
from eosfm_edge.pruning.repair import Kept, repair
from eosfm_edge.pruning.sensitivity import level_gains
from eosfm_edge.pruning.taylor import taylor_scores

_GAIN_PIXELS = 4 * PIXELS_PER_BATCH  # that the levels' sensitivities are measured on
_DISTILLED = 0.6  # of the MACs: where more go, the closed form alone leaves too much
_STEPS = 400  # of that distillation: two minutes of one core for an Atto
_JUDGES = 4  # one tile in so many measures what is solved on the others


@dataclass(frozen=True)
class Study:
    """The study of an encoder, from which plans for any ratio are made.

    Attributes:
        view: of the encoder.
        hidden: for each block, in which order its hidden channels go.
        width: for each stage, in which order its residual channels go; empty unless they may.
        gains: for each block, how its error shows at the levels.
    """

    view: EncoderView
    hidden: dict[str, Elimination]
    width: tuple[Elimination, ...]
    gains: dict[str, tuple[float, ...]]

    def plan(self, ratio: float, recipe: Recipe) -> tuple[GroupPlan, ...]:
        """Return what to remove so that ``ratio`` of the cost goes.

        Raises:
            UserError: more is asked for than hidden channels cost.
        """
        narrowed = self.view
        plans: list[GroupPlan] = []
        if self.width and ratio > 0:
            widths = _narrowed(self.view.shape.widths, ratio, recipe.align)
            plans += [
                self._width_plan(s, width) for s, width in enumerate(widths)
                if width < self.view.shape.widths[s]
            ]  # fmt: skip
            narrowed = self.view.without({plan.of: len(plan.removes) for plan in plans})
        groups = self._groups(narrowed, recipe.by)
        goal = self._goal(ratio, narrowed, recipe.by)
        kept = {group.name: group.channels for group in groups}
        if goal < sum(group.price * group.channels for group in groups):
            kept = allocate(groups, goal, recipe.ranking, recipe.align)
        gone = removals(groups, kept)
        plans += [
            GroupPlan(
                of=group.name,
                keeps=kept[group.name],
                removes=gone[group.name],
                error=group.elimination.spent(len(gone[group.name])),
            )
            for group in groups
            if gone[group.name]
        ]
        return tuple(plans)

    def _width_plan(self, stage: int, width: int) -> GroupPlan:
        elimination, count = self.width[stage], self.view.shape.widths[stage] - width
        return GroupPlan(
            of=f"stages_{stage}",
            keeps=width,
            removes=elimination.first(count),
            error=elimination.spent(count),
        )

    def _groups(self, narrowed: EncoderView, by: Measure) -> list[Group]:
        groups = []
        for step in narrowed.steps:
            if step.kind != "block":
                continue
            (name,) = step.modules
            price = narrowed.hidden_price(step.stage)
            groups.append(
                Group(
                    name,
                    f"stage {step.stage}",
                    step.hidden,
                    self.hidden[name],
                    1.0 if by == "channels" else _unit(price, by),
                    self.gains.get(name, (1.0,) * len(LEVELS)),
                )
            )
        return groups

    def _goal(self, ratio: float, narrowed: EncoderView, by: Measure) -> float:
        """Return what hidden channels may cost together, in units of ``by``."""
        if by == "channels":
            return (1 - ratio) * sum(step.hidden for step in narrowed.steps)
        hidden = sum(
            _unit(narrowed.hidden_price(step.stage), by) * step.hidden for step in narrowed.steps
        )
        fixed = _unit(narrowed.cost, by) - hidden
        return (1 - ratio) * _unit(self.view.cost, by) - fixed


def _unit(cost: Cost, by: Measure) -> float:
    return cost.macs if by == "macs" else float(cost.params)


def _narrowed(widths: Sequence[int], ratio: float, align: int) -> tuple[int, ...]:
    """Residual widths that save about as much as the hidden channels then must."""
    share = (1 - ratio) ** 0.5
    return tuple(min(w, max(align, round(share * w / align) * align)) for w in widths)


def study(encoder: nn.Module, tiles: Sequence[Tensor], recipe: Recipe) -> Study:
    """Run an encoder over calibration tiles and find in which order its channels go.

    Args:
        encoder: timm's feature encoder.
        tiles: images (bands, H, W) in physical units, all of one size.
        recipe: the criterion, the scope and the ranking.
    """
    if recipe.criterion == "reconstruction":
        hidden, width, gains = _by_reconstruction(encoder, tiles, recipe)
    else:
        hidden, width = _by_score(encoder, in_batches(tiles), recipe)
        gains = {}
    return Study(view_of(encoder), hidden, width, gains)


def _by_reconstruction(
    encoder: nn.Module, tiles: Sequence[Tensor], recipe: Recipe
) -> tuple[dict[str, Elimination], tuple[Elimination, ...], dict[str, tuple[float, ...]]]:
    """Return in which order channels go, and how blocks' errors show at the levels.

    What is solved is solved on most tiles; what it leaves is measured on the others.
    """
    held_out = list(tiles[::_JUDGES])
    fitted = [tile for place, tile in enumerate(tiles) if place % _JUDGES] or held_out
    batches, judges = in_batches(fitted), in_batches(held_out)
    moments, judged = hidden_moments(encoder, batches), hidden_moments(encoder, judges)
    hidden = {
        block.name: _eliminated(
            moments[block.name], judged[block.name], weight_of(block.module.mlp.fc2)
        )
        for block in blocks(encoder)
    }
    width: tuple[Elimination, ...] = ()
    if recipe.scope == "width":
        pairs = zip(level_moments(encoder, batches), level_moments(encoder, judges), strict=True)
        width = tuple(_eliminated(a, b, torch.eye(len(a.mean))) for a, b in pairs)
    gains = {}
    if recipe.ranking != "uniform":
        some = judges[: max(1, _GAIN_PIXELS // judges[0][:, 0].numel())]
        gains = level_gains(encoder, some, moments, hidden)
    return hidden, width, gains


def _eliminated(moments: Moments, judged: Moments, weight: Tensor) -> Elimination:
    shift = judged.mean - moments.mean
    about_fitted_mean = judged.covariance + torch.outer(shift, shift)
    energy = _output_variance(judged, weight)
    return by_reconstruction(moments.covariance, weight, energy, about_fitted_mean)


def _by_score(
    encoder: nn.Module, batches: list[Tensor], recipe: Recipe
) -> tuple[dict[str, Elimination], tuple[Elimination, ...]]:
    layers = {b.name: weight_of(b.module.mlp.fc2) for b in blocks(encoder)}
    levels = level_moments(encoder, batches) if recipe.scope == "width" else []
    if recipe.criterion == "magnitude":
        graph = Dependencies(encoder)
        return (
            {name: _relative(graph.magnitude_of_hidden(name)) for name in layers},
            tuple(_relative(graph.magnitude_of_width(stage)) for stage in range(len(levels))),
        )
    if recipe.criterion == "taylor":
        scores, of_levels = taylor_scores(encoder, batches, recipe.seed)
        return (
            {name: by_score(scores[name]) for name in layers},
            tuple(by_score(score) for score in of_levels[: len(levels)]),
        )
    moments = hidden_moments(encoder, batches)
    hidden = {
        name: by_score(
            moments[name].energy.sqrt() * weight.double().norm(dim=0),
            1 / _output_variance(moments[name], weight),
        )
        for name, weight in layers.items()
    }
    return hidden, tuple(
        by_score(level.covariance.diagonal().sqrt(), 1 / float(level.covariance.trace()))
        for level in levels
    )


def _relative(scores: Tensor) -> Elimination:
    """Magnitudes of blocks differ by scale alone: compared to their mean."""
    return by_score(scores, 1 / float(scores.double().square().sum().clamp_min(1e-30)))


def _output_variance(moments: Moments, weight: Tensor) -> float:
    wide = weight.double()
    return max(float(((wide @ moments.covariance) * wide).sum()), 1e-30)


def carry_out(
    original: nn.Module,
    groups: Sequence[GroupPlan],
    tiles: Sequence[Tensor],
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    tick: Callable[[], None] = lambda: None,
) -> nn.Module:
    """Return a pruned and repaired copy of an encoder.

    Args:
        original: timm's feature encoder; it stays as it is.
        groups: what goes; channels that are there.
        tiles: calibration tiles, as for :func:`study`.
        recipe: the repair.
        checkpoint: of distillation.
        tick: called after each step of distillation.
    """
    pruned = copy.deepcopy(original)
    graph = Dependencies(pruned)
    for group in groups:
        if group.removes and "." in group.of:
            graph.remove_hidden(group.of, group.removes)
        elif group.removes:
            graph.remove_width(int(group.of.removeprefix("stages_")), group.removes)
    kept = kept_widths(view_of(original).shape, groups)
    if recipe.repair_grn or recipe.repair_fc2:
        repair(
            original,
            pruned,
            in_batches(tiles),
            grn=recipe.repair_grn,
            fc2=recipe.repair_fc2,
            kept=kept,
        )
    steps = distillation_steps(original, groups, recipe)
    if steps:
        distill(
            lambda batch: levels_left(original(batch), kept),
            pruned,
            tiles,
            steps,
            recipe.seed,
            checkpoint=checkpoint,
            tick=tick,
        )
    return pruned


def distillation_steps(original: nn.Module, groups: Sequence[GroupPlan], recipe: Recipe) -> int:
    """Return the steps of self-distillation after the repair of an encoder.

    Where the recipe leaves it open, encoders are distilled that lose more than 0.6 of their MACs.

    Args:
        original: timm's feature encoder.
        groups: what goes of it.
        recipe: the repair.
    """
    if recipe.distill is not None:
        return recipe.distill
    view = view_of(original)
    return _STEPS if 1 - pruned_view(view, groups).cost.macs / view.cost.macs > _DISTILLED else 0


def kept_widths(shape: Shape, groups: Sequence[GroupPlan]) -> tuple[Tensor | None, ...]:
    """Return the residual channels that are left in each stage, None where all are."""
    removed = {group.of: set(group.removes) for group in groups if "." not in group.of}
    return tuple(
        torch.tensor([c for c in range(width) if c not in removed[f"stages_{stage}"]])
        if removed.get(f"stages_{stage}")
        else None
        for stage, width in enumerate(shape.widths)
    )


def levels_left(levels: Sequence[Tensor], kept: Kept) -> list[Tensor]:
    """Return levels (N, C, h, w) with the channels that are left of each."""
    return [x if k is None else x[:, k] for x, k in zip(levels, kept, strict=True)]


def pruned_view(view: EncoderView, groups: Sequence[GroupPlan]) -> EncoderView:
    """Return the view of an encoder after a plan."""
    return view.without({group.of: len(group.removes) for group in groups})
