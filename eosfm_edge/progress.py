"""The protocol by which long work reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is done (``prune: forest``), how much of it, and of how much."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Note that ``done`` of ``total`` parts are done."""


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
