"""The time that a deployment still takes, by the time that its steps took."""

from __future__ import annotations

import pytest

from eosfm_edge.deploying import pace
from eosfm_edge.deploying.pace import Pace, duration


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_the_time_left_follows_the_pace_of_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    told: list[tuple[str, int, int]] = []
    whole = Pace(lambda what, done, total: told.append((what, done, total)))
    with whole.step("study", effort=2.0, ahead=6.0) as tell:
        assert told == [("deploy: study, study 0 of 1", 0, 100)]  # nothing is known yet
        clock.now = 60.0
        tell("study", 1, 2)
    # A half of 2 in a minute: 7 are left.
    assert told[-1] == ("deploy: study, study 1 of 2, about 7 min left", 12, 100)
    clock.now = 120.0  # the rest of the step; no time but that of steps counts
    with whole.step("prune by 0.5", effort=4.0, ahead=2.0) as tell:
        clock.now = 480.0
        tell("repair", 2, 4)
        tell("distill forest", 400, 400)  # one specialist of four more
        assert told[-1][0].endswith("distill forest 400 of 400, about 4 min left")
        tell("repair", 3, 4)
    assert told[-1][0].startswith("deploy: prune by 0.5, repair 3 of 4, about ")
    # 5 of 8 took 60 + 360 seconds: 3 are left.
    assert told[-1] == ("deploy: prune by 0.5, repair 3 of 4, about 4 min left", 62, 100)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_durations_are_in_units_that_fit(seconds: float, words: str) -> None:
    assert duration(seconds) == words
