"""The part of a test's cases that `make test` leaves to the deep tier."""

from __future__ import annotations

from typing import Any

import pytest


def thorough(*cases: Any) -> list[Any]:
    """Return cases of a parameter that repeat what a quicker one shows, for the deep tier."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.thorough)
        for case in cases
    ]
