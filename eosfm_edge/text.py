"""Numbers as people write and read them."""

from __future__ import annotations

from collections.abc import Sequence


def runs_of_numbers(numbers: Sequence[int]) -> str:
    """Return sorted numbers as ``0-3 7 12-20``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
