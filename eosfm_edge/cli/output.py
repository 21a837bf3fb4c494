"""Print results, notes and errors. Nothing that users named is read as markup."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class _Output(Console):
    def print(self, *objects: Any, **arguments: Any) -> None:
        """Print; scripts read no spaces at the ends of lines, with which tables are filled up."""
        if self.is_terminal:
            super().print(*objects, **arguments)
            return
        with self.capture() as text:
            super().print(*objects, **arguments)
        self.file.writelines(f"{line.rstrip()}\n" for line in text.get().splitlines())

    def on_broken_pipe(self) -> None:
        """Leave it to ``main`` that the reader has seen enough."""
        raise BrokenPipeError


def console() -> Console:
    """Return where results are printed."""
    return _console(sys.stdout)


def error_console() -> Console:
    """Return where progress is shown: standard error."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    # Scripts read lines: nothing is wrapped where no terminal shows it.
    width = None if stream.isatty() else 10_000
    return _Output(
        file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True, width=width
    )


def facts() -> Table:
    """Return an empty table of names and values."""
    return Table(show_header=False, box=None, padding=(0, 2, 0, 0))


def print_json(value: Any) -> None:
    """Print a report as JSON: models, dataclasses, paths and tuples as what they hold."""
    typer.echo(_ANYTHING.dump_json(value, indent=1).decode())


def say(message: str) -> None:
    """Print a message to standard error."""
    with suppress(OSError):  # there may be nobody who reads it
        typer.echo(message, err=True)


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
