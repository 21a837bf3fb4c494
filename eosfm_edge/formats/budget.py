"""Budgets as they are written: ``40ms``, ``5MB``, ``300mJ``, ``fidelity=0.98``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from eosfm_edge.errors import UserError

Kind = Literal["ms", "MB", "mJ", "fidelity"]
_EXAMPLES: dict[Kind, str] = {
    "ms": "40ms",
    "MB": "5MB",
    "mJ": "300mJ",
    "fidelity": "fidelity=0.98",
}
EVERY_KIND = tuple(_EXAMPLES)


@dataclass(frozen=True)
class Budget:
    """At most so many milliseconds, megabytes (10^6 bytes) or millijoules, or such a fidelity.

    The fidelity is the least of the levels' mean cosines.
    """

    kind: Kind
    limit: float

    def met_by(self, value: float) -> bool:
        """Return whether a value is within it; one that is not a number never is."""
        return value >= self.limit if self.kind == "fidelity" else value <= self.limit

    def __str__(self) -> str:
        limit = format(Decimal(repr(self.limit)), "f")  # 1000000, not 1e+06
        limit = limit.removesuffix(".0")
        return f"fidelity={limit}" if self.kind == "fidelity" else f"{limit}{self.kind}"


def parse_budget(text: str, kinds: Sequence[Kind] = EVERY_KIND) -> Budget:
    """Read a budget.

    Args:
        text: ``40ms``, ``5MB``, ``300mJ`` or ``fidelity=0.98``.
        kinds: those that can be met.

    Raises:
        UserError: it is none of these.
    """
    found = None
    if match := re.fullmatch(r"fidelity=(0?\.\d+|1(?:\.0*)?)", text.strip(), re.ASCII):
        found = Budget("fidelity", float(match[1]))
    elif match := re.fullmatch(r"(\d+(?:\.\d*)?)\s*(ms|MB|mJ)", text.strip(), re.ASCII):
        kind: Kind = "ms" if match[2] == "ms" else "MB" if match[2] == "MB" else "mJ"
        found = Budget(kind, float(match[1]))
    if found is None or found.kind not in kinds or not 0 < found.limit < float("inf"):
        *most, last = (_EXAMPLES[kind] for kind in kinds)
        raise UserError(f"the budget is {text!r}", expected=f"one like {', '.join(most)} or {last}")
    return found


def parse_budgets(texts: Sequence[str]) -> tuple[Budget, ...]:
    """Read budgets, of which a text may hold several: ``40ms,5MB``.

    Raises:
        UserError: one is none, or there are two of a kind.
    """
    found = [parse_budget(one) for text in texts for one in text.split(",")]
    by_kind: dict[Kind, Budget] = {}
    for one in found:
        if one.kind in by_kind:
            raise UserError(
                f"two budgets are of one kind: {by_kind[one.kind]} and {one}",
                expected="one of each kind",
                remedy="leave one of them out",
            )
        by_kind[one.kind] = one
    return tuple(found)
