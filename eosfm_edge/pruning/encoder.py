"""One encoder: what is to be known of it, a plan for a ratio, and the plan carried out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from eosfm_edge.ensemble.cost import Cost, encoder_cost, hidden_price
from eosfm_edge.ensemble.specialist import shape_of
from eosfm_edge.formats.ensemble import Shape
from eosfm_edge.formats.plan import GroupPlan
from eosfm_edge.formats.recipe import Measure, Recipe
from eosfm_edge.network.batches import PIXELS_PER_BATCH, in_batches
from eosfm_edge.network.distill import distill
from eosfm_edge.network.moments import Moments, hidden_moments, level_moments
from eosfm_edge.network.steps import STAGES, blocks, weight_of
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
        shape: its channels.
        bands: of its input.
        hidden: for each block, in which order its hidden channels go.
        width: for each stage, in which order its residual channels go; empty unless they may.
        gains: for each block, how its error shows at the levels.
    """

    shape: Shape
    bands: int
    hidden: dict[str, Elimination]
    width: tuple[Elimination, ...]
    gains: dict[str, tuple[float, ...]]

    @property
    def cost(self) -> Cost:
        """The encoder's cost as it is."""
        return encoder_cost(self.shape, self.bands)

    def plan(self, ratio: float, recipe: Recipe) -> tuple[GroupPlan, ...]:
        """Return what to remove so that ``ratio`` of the cost goes.

        Raises:
            UserError: more is asked for than hidden channels cost.
        """
        widths: tuple[int, ...] = self.shape.widths
        plans: list[GroupPlan] = []
        if self.width and ratio > 0:
            widths = _narrowed(self.shape.widths, ratio, recipe.align)
            plans += [
                self._width_plan(s, width) for s, width in enumerate(widths)
                if width < self.shape.widths[s]
            ]  # fmt: skip
        groups = self._groups(widths, recipe.by)
        goal = self._goal(ratio, widths, recipe.by)
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
        elimination, count = self.width[stage], self.shape.widths[stage] - width
        return GroupPlan(
            of=f"stages_{stage}",
            keeps=width,
            removes=elimination.first(count),
            error=elimination.spent(count),
        )

    def _groups(self, widths: Sequence[int], by: Measure) -> list[Group]:
        groups = []
        for stage, hidden in enumerate(self.shape.hidden):
            price = hidden_price(widths[stage], stage)
            unit = {"macs": price.macs, "params": float(price.params), "channels": 1.0}[by]
            for index, channels in enumerate(hidden):
                name = f"stages_{stage}.blocks.{index}"
                groups.append(
                    Group(
                        name,
                        f"stage {stage}",
                        channels,
                        self.hidden[name],
                        unit,
                        self.gains.get(name, (1.0,) * STAGES),
                    )
                )
        return groups

    def _goal(self, ratio: float, widths: Sequence[int], by: Measure) -> float:
        """Return what hidden channels may cost together, in units of ``by``."""
        if by == "channels":
            return (1 - ratio) * sum(map(sum, self.shape.hidden))
        narrowed = Shape(widths=tuple(widths), hidden=self.shape.hidden)
        unit = (lambda cost: cost.macs) if by == "macs" else (lambda cost: float(cost.params))
        hidden = sum(
            unit(hidden_price(width, stage)) * sum(channels)
            for stage, (width, channels) in enumerate(zip(widths, self.shape.hidden, strict=True))
        )
        fixed = unit(encoder_cost(narrowed, self.bands)) - hidden
        return (1 - ratio) * unit(self.cost) - fixed


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
    bands = encoder.get_parameter("stem_0.weight").shape[1]
    return Study(shape_of(encoder), bands, hidden, width, gains)


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
    kept = kept_widths(shape_of(original), groups)
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
    shape, bands = shape_of(original), original.get_parameter("stem_0.weight").shape[1]
    before, after = (encoder_cost(s, bands).macs for s in (shape, pruned_shape(shape, groups)))
    return _STEPS if 1 - after / before > _DISTILLED else 0


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


def pruned_shape(shape: Shape, groups: Sequence[GroupPlan]) -> Shape:
    """Return the channels of an encoder of this shape after a plan."""
    gone = {group.of: len(group.removes) for group in groups}
    return Shape(
        widths=tuple(w - gone.get(f"stages_{s}", 0) for s, w in enumerate(shape.widths)),
        hidden=tuple(
            tuple(h - gone.get(f"stages_{s}.blocks.{b}", 0) for b, h in enumerate(hidden))
            for s, hidden in enumerate(shape.hidden)
        ),
    )
