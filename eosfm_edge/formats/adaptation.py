"""Band adaptation: which of the input's bands a specialist is run on, and how often.

The table is EoS-FM's (arXiv:2511.21523). A specialist that wants R bands is run once for each
rule registered for (R, bands of the input); each run gives a feature set of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from eosfm_edge.formats.bands import PRESETS, Band, find

Indices = tuple[int, ...]
AdaptationMode = Literal["count", "name"]


def _repeated(wanted: int, available: int) -> tuple[Indices]:
    """Take the input's bands in turn until the specialist has its number."""
    return (tuple(i % available for i in range(wanted)),)


# (bands that the specialist wants, bands of the input): the input's bands that it takes
RULES: dict[tuple[int, int], tuple[Indices, ...]] = {
    (3, 12): ((3, 2, 1),),
    (3, 13): ((3, 2, 1), (7, 3, 2)),
    (3, 2): ((0, 1, 1),),
    (3, 14): ((5, 4, 3),),
    (3, 4): ((3, 0, 1), (0, 1, 2)),
    (3, 5): ((0, 1, 2), (3, 4, 4)),
    (12, 14): (tuple(range(2, 14)),),
    (2, 14): ((0, 1),),
    **{(want, have): _repeated(want, have) for want in (12, 13, 14) for have in (3, 4, 2)},
}

# The band sets that the numbers in RULES stand for, so that the rules can be looked up by name.
_SETS = {len(names): names for names in PRESETS.values()}


def feature_sets(
    wanted: Sequence[Band], available: Sequence[Band], adaptation: AdaptationMode = "name"
) -> tuple[Indices, ...]:
    """Return the input's band indices of each run of a specialist; empty if it cannot be run.

    By ``name``, where every band is known by name or wavelength, they are matched by that: the
    specialist's own bands wherever they stand in the input, and EoS-FM's rules with its numbers
    read as the band sets they stand for (13 is Sentinel-2 L1C, 4 is RGB and infrared, ...). By
    ``count``, and where a band is not known, only the numbers of bands count, as in the reference.
    """
    if adaptation == "count" or not all(band.known for band in (*wanted, *available)):
        return _sets_by_count(len(wanted), len(available))
    return _sets_by_name(wanted, available)


def _sets_by_count(wanted: int, available: int) -> tuple[Indices, ...]:
    if wanted == available:
        return (tuple(range(wanted)),)
    return RULES.get((wanted, available), ())


def _sets_by_name(wanted: Sequence[Band], available: Sequence[Band]) -> tuple[Indices, ...]:
    sets = _rules_by_name(wanted, available)
    own = [find(band, available) for band in wanted]
    direct = tuple(index for index in own if index is not None)
    if len(direct) == len(own) and direct not in sets:
        return (direct, *sets)
    return sets


def _rules_by_name(wanted: Sequence[Band], available: Sequence[Band]) -> tuple[Indices, ...]:
    stands_for = _SETS.get(len(wanted), ())
    if [find(Band(name=name), wanted) for name in stands_for] != list(range(len(wanted))):
        return ()  # the specialist's bands are its own: no rule speaks of them
    places = _largest_set_within(available)
    # A rule that fills up a specialist by repeating bands holds for exactly its input: with
    # more bands at hand, repeating some of them is not what the rule says.
    if len(wanted) > len(places) and len(places) != len(available):
        return ()
    rules = RULES.get((len(wanted), len(places)), ())
    return tuple(tuple(places[index] for index in rule) for rule in rules)


def _largest_set_within(available: Sequence[Band]) -> Indices:
    """Return the places in the input of the bands of the reference's largest band set."""
    for names in sorted(_SETS.values(), key=len, reverse=True):
        places = [find(Band(name=name), available) for name in names]
        found = tuple(place for place in places if place is not None)
        if len(found) == len(names):
            return found
    return ()
