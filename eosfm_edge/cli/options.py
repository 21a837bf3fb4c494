"""Options and output that several verbs share."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import click
from rich.console import Console

from eosfm_edge.files import file_kind
from eosfm_edge.formats.bands import PRESETS, parse_bands

Command = TypeVar("Command", bound=Callable[..., Any])


class _Path(click.Path):
    """A path that is no FIFO, socket or device: to read one can take for ever."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        kind = _kind(path)
        if kind not in ("a file", "a folder", None):
            self.fail(f"{path} is {kind}, expected a file or a folder", param, ctx)
        return path


def _kind(path: Path) -> str | None:
    try:
        return file_kind(path.stat().st_mode)
    except (OSError, ValueError):
        return None  # whoever opens it complains better


PATH = _Path(path_type=Path)


class _Scene(click.ParamType):  # type: ignore[type-arg]
    """A path, or a name that GDAL knows: a path would lose a slash of ``https://``."""

    name = "path"

    def convert(self, value: Any, param: object, ctx: object) -> Path | str:
        if isinstance(value, str) and re.match(r"[A-Za-z0-9_]{2,}:|/vsi", value):
            return value
        return PATH.convert(value, param, ctx)


SCENE = _Scene()


overwrite = click.option("--overwrite", is_flag=True, help="Replace an output that is there.")


class _Nodata(click.ParamType):  # type: ignore[type-arg]
    """A number, or ``none``."""

    name = "value"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        if isinstance(value, str) and value.strip().lower() == "none":
            return "none"
        return float(click.FLOAT.convert(value, param, ctx))


_IMAGERY = (
    click.option(
        "--bands",
        "names",
        type=parse_bands,
        metavar="BANDS",
        help="What the bands of a file are, in order, or the files of a folder in the order of "
        "their names, if these do not say so: names (B04,B03), "
        f"wavelengths (665nm,560nm) or one of {', '.join(PRESETS)}.",
    ),
    click.option(
        "--scale",
        type=float,
        help="physical = stored * SCALE + OFFSET, whatever the files say (0.0001).",
    ),
    click.option(
        "--offset",
        type=float,
        help="See --scale (Sentinel-2 from baseline 04.00: -0.1).",
    ),
    click.option(
        "--nodata",
        type=_Nodata(),
        metavar="VALUE",
        help="Stored value of pixels without data, whatever the files say; 'none': no value is.",
    ),
    click.option(
        "--trust-values",
        "trusted",
        is_flag=True,
        help="Take values that seem not to be what they are read as.",
    ),
)


def imagery(command: Command) -> Command:
    """Add what says how imagery is read; the command gets ``names`` and ``radiometry`` of it."""

    @functools.wraps(command)
    def read(*arguments: Any, **options: Any) -> Any:
        from eosfm_edge.scene.reading import Radiometry

        said = {field: options.pop(field) for field in ("scale", "offset", "nodata", "trusted")}
        return command(*arguments, radiometry=Radiometry(**said), **options)

    wrapped: Any = read
    for option in reversed(_IMAGERY):
        wrapped = option(wrapped)
    return cast(Command, wrapped)


compute_capabilities = click.option(
    "--sm",
    "capabilities",
    multiple=True,
    metavar="8.6",
    help="Compute capability of a GPU to build for, with TensorRT-RTX; may be repeated.  "
    "[default: the GPU at hand, or all that the target names]",
)


def console() -> Console:
    """Return where results are printed."""
    return _Output(
        highlight=False, markup=False, emoji=False, soft_wrap=True, width=_width(sys.stdout)
    )


def error_console() -> Console:
    """Return where progress and notes are shown: standard error."""
    return _Output(
        stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True,
        width=_width(sys.stderr),
    )  # fmt: skip


def _width(stream: TextIO) -> int | None:
    """Return a width at which nothing is wrapped where no terminal shows it: scripts read lines."""
    return None if stream.isatty() else 10_000


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave to ``main`` what it is for the reader to have seen enough."""
        raise BrokenPipeError


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:,.1f} MB"
