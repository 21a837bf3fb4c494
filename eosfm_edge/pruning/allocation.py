"""Choose how many channels each group keeps, so that a goal is met at the least cost.

- ``uniform``: every group loses the same share.
- ``isomorphic``: groups of the same shape share a fate: all blocks of a stage lose the same share
  on average, and compete among themselves (Fang et al., Isomorphic Pruning for Vision Models,
  ECCV 2024).
- ``global``: all groups compete: the next to go is always what costs least for what it saves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eosfm_edge.errors import UserError
from eosfm_edge.formats.recipe import Ranking
from eosfm_edge.pruning.elimination import Elimination

_LEVELS = 4


@dataclass(frozen=True)
class Group:
    """Channels that compete.

    Attributes:
        name: of the block.
        kind: groups of the same kind are isomorphic.
        channels: how many there are.
        elimination: in which order they go, and what it costs.
        price: what one channel adds to what is to be saved.
        gain: how an error of the block's output, relative to it, shows at each level.
    """

    name: str
    kind: str
    channels: int
    elimination: Elimination
    price: float
    gain: Sequence[float] = field(default=(1.0,) * _LEVELS)


def allocate(groups: Sequence[Group], goal: float, ranking: Ranking, align: int) -> dict[str, int]:
    """Return how many channels each group keeps, multiples of ``align``.

    Args:
        groups: all groups of an encoder.
        goal: what all channels that are kept may cost together, in units of the price.
        ranking: who competes with whom.
        align: 8 or 16.

    Raises:
        UserError: one row of ``align`` channels in every group is more than the goal.
    """
    least = sum(group.price * min(align, group.channels) for group in groups)
    if goal < least:
        everything = sum(group.price * group.channels for group in groups)
        raise UserError(
            f"hidden channels cannot be pruned to {goal / everything:.1%} of their cost",
            expected=f"at least {least / everything:.1%}, which is {align} channels in every block",
            remedy="ask for less, or prune the residual width too (--scope width), or whole "
            "specialists (--specialists)",
        )
    if ranking == "global":
        return _compete(groups, goal, align)
    kinds: dict[str, list[Group]] = {}
    for group in groups:
        kinds.setdefault(group.kind if ranking == "isomorphic" else group.name, []).append(group)
    share = _common_share(list(kinds.values()), goal, align)
    kept: dict[str, int] = {}
    for members in kinds.values():
        kept |= _compete(members, share * _total(members), align)
    return kept


def _total(groups: Sequence[Group]) -> float:
    return sum(group.price * group.channels for group in groups)


def _common_share(kinds: Sequence[Sequence[Group]], goal: float, align: int) -> float:
    """The largest share for which rounding to ``align`` still meets the goal."""
    low, high = 0.0, 1.0
    for _ in range(40):
        share = (low + high) / 2
        spent = 0.0
        for members in kinds:
            kept = _compete(members, share * _total(members), align)
            spent += sum(group.price * kept[group.name] for group in members)
        low, high = (share, high) if spent <= goal else (low, share)
    return low


def _compete(groups: Sequence[Group], goal: float, align: int) -> dict[str, int]:
    """Take rows of ``align`` channels, the cheapest for what it saves first, until the goal is met.

    What counts is the sum over levels of the squared relative error, so that the worst level is
    spared most: errors of blocks add up, since they have little to do with each other.
    """
    kept = {group.name: group.channels for group in groups}
    errors = [0.0] * _LEVELS
    spent = _total(groups)
    while spent > goal:
        best: tuple[float, Group, int, list[float]] | None = None
        for group in groups:
            left = kept[group.name]
            step = left % align or align
            if left - step < min(align, group.channels):
                continue
            gone = group.channels - left
            cost = sum(group.elimination.cost[gone : gone + step])
            after = [e + gain * cost for e, gain in zip(errors, group.gain, strict=True)]
            harm = sum(b * b - a * a for a, b in zip(errors, after, strict=True))
            value = harm / (group.price * step)
            if best is None or value < best[0]:
                best = value, group, step, after
        if best is None:
            break
        _, group, step, errors = best
        kept[group.name] -= step
        spent -= group.price * step
    return kept


def removals(groups: Sequence[Group], kept: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the channels that go, sorted, by group."""
    return {
        group.name: group.elimination.first(group.channels - kept[group.name]) for group in groups
    }
