"""``eosfm-edge head``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.api.options import HeadOptions, as_path
from eosfm_edge.cli.options import BundleArgument, Json, Overwrite, Quiet, Verbose
from eosfm_edge.cli.output import console, megabytes, print_json
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options

if TYPE_CHECKING:
    from eosfm_edge.heads.fit import FitReport

_MOST_COLUMNS = 12  # of a confusion matrix on a terminal; --json has all


@with_options(HeadOptions, labels="LABELS", classes="CODE=NAME", levels="LEVELS")
def fit(
    bundle: BundleArgument,
    options: HeadOptions,
    name: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="NAME",
            help="The head's name.  \\[default: that of the labels' file]",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit a head, which turns features into a map of classes, and put it into the bundle.

    LABELS is a raster of class codes, polygons with an attribute that names their class, or a CSV
    of points with the columns lon, lat and label. A cell has the label of at least half of its
    pixels. Blocks of the scenes are held out in turn, and show how the head does in places that it
    has not seen.
    """
    with shown_progress(quiet=quiet, verbose=verbose) as progress:
        report = ee.fit_head(bundle, options, name, overwrite=overwrite, progress=progress)
    if as_json:
        print_json(report)
        return
    show_fit(report)
    console().print(f"{bundle}: has the head {report.head}, {megabytes(report.bytes)}")


def list_(bundle: BundleArgument, as_json: Json = False) -> None:
    """List the heads of a bundle."""
    heads = ee.Bundle(as_path(bundle)).heads
    if as_json:
        print_json(heads)
        return
    if not heads:
        console().print(f"{bundle} has no heads")
        return
    table = Table(
        "head", "levels", "classes", "fitted to", "held out", box=None, padding=(0, 2, 0, 0)
    )
    for head in heads:
        table.add_row(
            head.name,
            ",".join(map(str, head.levels)),
            ", ".join(f"{one.code} {one.name}" for one in head.classes),
            f"{head.labels}, {head.cells:,} cells",
            "" if head.score is None else f"{100 * head.score:.1f} % right",
        )
    console().print(table)


def remove(
    bundle: BundleArgument,
    head: Annotated[str, typer.Argument(metavar="HEAD", help="The head's name.")],
) -> None:
    """Take a head out of a bundle."""
    ee.remove_head(bundle, head)
    console().print(f"{bundle}: the head {head} is removed")


def show_fit(report: FitReport) -> None:
    """Print how a head does in places that were held out."""
    out = console()
    judged = sum(map(sum, report.confusion))
    out.print(
        f"fitted to {report.cells:,} cells with {report.channels} channels of levels "
        f"{','.join(map(str, report.levels))}"
    )
    out.print(
        f"held out: {report.places} places in {report.folds} parts, {judged:,} cells, "
        f"{100 * report.accuracy:.1f} % right (always the most frequent class: "
        f"{100 * report.most_frequent:.1f} %), mean F1 {report.macro_f1:.3f}"
    )
    shown = report.classes[:_MOST_COLUMNS]
    table = Table(
        "code", "class", "cells", "precision", "recall", "F1", "classified as:",
        *(str(one.code) for one in shown),
        box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    for one, row in zip(report.classes, report.confusion, strict=True):
        table.add_row(
            str(one.code),
            one.name,
            f"{one.cells:,}",
            f"{one.precision:.2f}",
            f"{one.recall:.2f}",
            f"{one.f1:.2f}",
            "",
            *(f"{count:,}" for count in row[:_MOST_COLUMNS]),
        )
    out.print(table)
