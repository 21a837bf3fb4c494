"""The bars of verbs that take minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eosfm_edge.cli.options import error_console

Tell = Callable[[str, int, int], None]


@contextmanager
def progress_bars(output: Path | None, finished: Path | None = None) -> Iterator[Tell]:
    """Show what is told as ``tell("prune: name", done, total)``, a bar for each word before ':'.

    Where the block is interrupted, ``main`` is told where what is finished is.

    Args:
        output: what the block writes.
        finished: where it keeps what is finished; None: the output's work directory.
    """
    from eosfm_edge.resume import work_directory

    if finished is None and output is not None:
        finished = work_directory(output)
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=error_console(),
        transient=True,
    ) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            name = what.partition(":")[0]
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total, description=what)

        try:
            yield tell
        except KeyboardInterrupt as stop:
            if finished is not None and finished.is_dir():
                stop.outcome = (  # type: ignore[attr-defined]
                    f"what is finished is in {finished}: the same command resumes from there"
                )
            raise
