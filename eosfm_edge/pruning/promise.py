"""The fidelity that docs/pruning.md promises, which every pruning is held to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eosfm_edge.errors import CheckFailedError
from eosfm_edge.network.fidelity import Closeness

# Shares of multiply-accumulates that go, and the signal to noise ratio in decibels that the worst
# level keeps: some 5 dB less than was measured of the specialist that has the least to spare.
_SHARES = (0.25, 0.5, 0.75)
_DECIBELS = (25.0, 20.0, 12.0)


def promised_db(share: float) -> float | None:
    """Return what every level keeps when a share of the MACs goes; None where nothing is promised.

    Between the shares that were measured decibels are taken as linear.
    """
    if share > _SHARES[-1] + 0.01:  # rows of channels are not of any size
        return None
    return float(np.interp(share, _SHARES, _DECIBELS))


def require_promise(levels: Sequence[Closeness], promised: float, what: str) -> None:
    """Check that every level keeps what is promised.

    Args:
        levels: on tiles that nothing was learned from.
        promised: decibels.
        what: what was pruned, for the message.

    Raises:
        CheckFailedError: a level keeps less, or has a value that is not finite.
    """
    wrong = [
        f"level{index + 1} keeps {level.sqnr_db:.1f} dB"
        for index, level in enumerate(levels)
        if not level.sqnr_db >= promised
    ]
    if wrong:
        raise CheckFailedError(
            f"{what} does not keep the fidelity that is promised: {', '.join(wrong)}",
            expected=f"at least {promised:.1f} dB of signal at every level on held-out tiles",
            remedy="give more --data or --tiles, add --distill, or ask for a smaller --ratio",
        )
