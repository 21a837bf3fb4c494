"""Progress of verbs that take a while: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from eosfm_edge.cli.output import error_console, say
from eosfm_edge.errors import UserError
from eosfm_edge.progress import Progress, silent
from eosfm_edge.resume import work_directory

_SECONDS = 10.0  # between lines where no terminal shows bars


@contextmanager
def shown_progress(
    output: Path | None = None,
    finished: Path | None = None,
    *,
    quiet: bool = False,
    verbose: bool = False,
) -> Iterator[Progress]:
    """Give what shows progress such as ``tell("prune: name", done, total)``.

    Where the block is interrupted, ``main`` is told where what is finished is.

    Args:
        output: what the block writes.
        finished: where it keeps what is finished; None: the output's work directory.
        quiet: show nothing.
        verbose: show each step on a line, with the seconds since the start.

    Raises:
        UserError: both quiet and verbose.
    """
    if quiet and verbose:
        raise UserError("both --quiet and --verbose are given", expected="one of them")
    if finished is None and output is not None:
        finished = work_directory(output)
    try:
        if quiet:
            yield silent
        elif verbose:
            yield _lines(every=0)
        elif sys.stderr.isatty():
            with _bars() as tell:
                yield tell
        else:
            yield _lines(every=_SECONDS)
    except KeyboardInterrupt as stop:
        if finished is not None and finished.is_dir():
            stop.outcome = (  # type: ignore[attr-defined]
                f"what is finished is in {finished}: the same command resumes from there"
            )
        raise


@contextmanager
def _bars() -> Iterator[Progress]:
    """Show a bar for each word before ':'."""
    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=error_console(),
        transient=True,
    ) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            name = what.partition(":")[0]
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total, description=what)

        yield tell


def _lines(every: float) -> Progress:
    """Return what prints a line where as many seconds have passed since the last."""
    start = last = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every:
            last = now
            say(f"{now - start:6.1f} s  {what}: {done} of {total}")

    return tell
