"""Errors as users see them.

Two families: a :class:`UserError` is for the user to fix and prints one message without a
traceback; anything else that escapes is a bug in eosfm-edge. :class:`ExitCode` is the contract
that scripts rely on.
"""

from __future__ import annotations

from enum import IntEnum

from eosfm_edge.text import printable


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    CHECK_FAILED = 1
    WRONG_USE = 2
    BUG = 3
    INTERRUPTED = 130


class UserError(Exception):
    """Wrong use or bad input: says what was found, what was expected and what to do.

    Attributes:
        found: what was found, alone.
        remedy: what to do, or None.
    """

    exit_code = ExitCode.WRONG_USE

    def __init__(
        self, found: str, *, expected: str | None = None, remedy: str | None = None
    ) -> None:
        self.found, self.remedy = printable(found), remedy
        parts = [found]
        if expected:
            parts.append(f"  expected: {expected}")
        if remedy:
            parts.append(f"  fix:      {remedy}")
        # Names of files and bands are others' words: no orders to the terminal.
        super().__init__(printable("\n".join(parts)))


class CheckFailedError(UserError):
    """Everything was read and run, but the result is not what it must be."""

    exit_code = ExitCode.CHECK_FAILED


class SceneWarning(UserWarning):
    """A scene is read in a way that it does not itself confirm."""


class BackendWarning(UserWarning):
    """A backend cannot be used, and another computes instead."""
