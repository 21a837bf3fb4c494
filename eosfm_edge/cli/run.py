"""``eosfm-edge run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.api.options import RunOptions
from eosfm_edge.cli.options import BundleArgument, Json, Overwrite, Quiet, Verbose
from eosfm_edge.cli.output import console, facts, megabytes, print_json
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options

if TYPE_CHECKING:
    from eosfm_edge.runtime.run import RunReport


@with_options(RunOptions, packets="SIZE", packet_levels="LEVELS", beside="FEATURES")
def run(
    bundle: BundleArgument,
    scene: Annotated[str, typer.Argument(metavar="SCENE", help="The scene.")],
    options: RunOptions,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="PATH", help="The folder for level*.tif and maps."),
    ],
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a bundle over a scene and write its levels and maps.

    They are cloud-optimised GeoTIFFs: level1.tif to level4.tif, and NAME.tif for each head, with
    the classes' colours and names. SCENE is anything rasterio opens, a folder of single-band
    files, which may be of different resolutions (..._B02.jp2, ..._B11_20m.tif), or a product of
    Sentinel-2, Landsat or Sentinel-1: its folder, its metadata file, or a .zip or .tar of it. Tiles
    overlap and are blended; cells of which less than half is valid become NaN.
    """
    with shown_progress(quiet=quiet, verbose=verbose) as progress:
        report = ee.run(bundle, scene, output, options, overwrite=overwrite, progress=progress)
    if as_json:
        print_json({"output": output, "report": report})
        return
    console().print(_table(report, output))


def _table(report: RunReport, output: str) -> Table:
    rows = facts()
    rows.add_row("scene", f"{report.megapixels:.2f} megapixels")
    rows.add_row("tiles", f"{report.tiles}, of which {report.skipped_tiles} without data")
    rows.add_row("GRN", f"over {'the scene' if report.grn == 'scene' else 'each tile'}")
    rows.add_row(
        "time",
        f"{report.seconds:.1f} s, {report.seconds_per_megapixel:.2f} s per megapixel "
        f"({report.backend}: {report.compute_seconds:.1f} s)",
    )
    if report.same_group is not None:
        rows.add_row("same group", f"{100 * report.same_group:.1f} % of cells, of both runs")
    for name, size in report.bytes.items():
        rows.add_row(name, megabytes(size))
    rows.add_row("all", f"{megabytes(sum(report.bytes.values()))} in {output}")
    return rows
