"""Text as people read it: runs of numbers, and what a terminal may be given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# All of C0 but tabs and line ends, DEL, and C1: a terminal obeys them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return a text with a question mark for each control character but tabs and line ends."""
    return _CONTROL.sub("?", text)


def has_control(value: object) -> bool:
    """Return whether a text, or one in a sequence or mapping, has such a character."""
    if isinstance(value, str):
        return _CONTROL.search(value) is not None
    if isinstance(value, Mapping):
        return any(has_control(key) or has_control(one) for key, one in value.items())
    return isinstance(value, (tuple, list)) and any(has_control(one) for one in value)


def runs_of_numbers(numbers: Sequence[int]) -> str:
    """Return sorted numbers as ``0-3 7 12-20``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
