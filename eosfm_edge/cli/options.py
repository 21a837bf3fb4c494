"""Options and output that several verbs share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

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
BACKENDS = (*CPU_BACKENDS, "onnxruntime-cuda", "tensorrt")


overwrite = click.option("--overwrite", is_flag=True, help="Replace an output that is there.")

scene_bands = click.option(
    "--bands",
    "names",
    type=parse_bands,
    metavar="BANDS",
    help="What the scene's bands are, in order, if its file does not say so: names (B04,B03), "
    f"wavelengths (665nm,560nm) or one of {', '.join(PRESETS)}.",
)


def radiometry(command: Command) -> Command:
    """Add what says how a scene's values are to be read."""
    for option in (
        click.option("--nodata", type=float, help="Value of pixels without data."),
        click.option(
            "--offset",
            type=float,
            help="Physical value of a stored 0 (Sentinel-2 from baseline 04.00: -0.1).",
        ),
        click.option("--scale", type=float, help="Physical value of a stored step (0.0001)."),
    ):
        command = option(command)
    return command


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
