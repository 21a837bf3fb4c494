"""Options and output that several verbs share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from rich.console import Console

from eosfm_edge.ensemble.bands import PRESETS, parse_bands

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


class _Scene(click.ParamType):  # type: ignore[type-arg]
    """A path, or a name that GDAL knows: a path would lose a slash of ``https://``."""

    name = "path"

    def convert(self, value: Any, param: object, ctx: object) -> Path | str:
        if isinstance(value, str) and re.match(r"[A-Za-z0-9_]{2,}:|/vsi", value):
            return value
        return Path(value)


SCENE = _Scene()
# As in runtime.backends, which is not imported for a page of help.
CPU_BACKENDS = ("native", "onnxruntime")
BACKENDS = (*CPU_BACKENDS, "cuda", "onnxruntime-cuda", "tensorrt")


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
    return Console(highlight=False, soft_wrap=True)


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:,.1f} MB"
