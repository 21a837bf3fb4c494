"""The bars of verbs that take minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Tell = Callable[[str, int, int], None]


@contextmanager
def progress_bars(output: Path | None) -> Iterator[Tell]:
    """Show what is told as ``tell("prune: name", done, total)``, a bar for each word before ':'.

    Where the block is interrupted, says that the same command goes on from what is finished.

    Args:
        output: what the block writes.
    """
    from eosfm_edge.resume import work_directory

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
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
        except KeyboardInterrupt:
            if output is not None and work_directory(output).exists():
                bar.console.print(
                    f"what is finished is in {work_directory(output)}: "
                    "the same command goes on from there"
                )
            raise
