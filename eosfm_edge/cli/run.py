"""``eosfm-edge run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from eosfm_edge.cli.options import (
    PATH,
    SCENE,
    console,
    error_console,
    imagery,
    megabytes,
    overwrite,
)
from eosfm_edge.formats.backends import BACKENDS
from eosfm_edge.packets.words import parse_levels, parse_size


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("scene", type=SCENE)
@click.option("-o", "--output", type=PATH, required=True, help="The folder for level*.tif.")
@click.option("--backend", type=click.Choice(BACKENDS), default=BACKENDS[0], show_default=True)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0: all cores.")
@click.option(
    "--grn",
    type=click.Choice(["tile", "scene"]),
    default="tile",
    show_default=True,
    help="What global response normalisation is over. scene: two passes, native backend only.",
)
@click.option(
    "--overlap",
    type=int,
    help="Pixels that tiles share, a multiple of 32.  [default: a quarter of a tile]",
)
@click.option(
    "--halo",
    type=int,
    default=0,
    show_default=True,
    help="Pixels along tiles' edges whose features are not used, up to half of the overlap.",
)
@click.option("--quicklook", is_flag=True, help="Write quicklook.png: the scene and its features.")
@click.option(
    "--packets",
    type=parse_size,
    metavar="200kB",
    help="Write features.eosp too: packets for a downlink, each of at most so many bytes.",
)
@click.option(
    "--packet-levels",
    type=parse_levels,
    default="1,2,3,4",
    show_default=True,
    help="Which levels are sent.",
)
@click.option(
    "--packet-encoding",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="int8: with a step for each channel. fp16: lossless from there on.",
)
@imagery
@overwrite
def run(bundle: Path, scene: Path | str, output: Path, **options: Any) -> None:
    """Run a BUNDLE over a SCENE and write its feature levels.

    They are cloud-optimised GeoTIFFs. SCENE is anything rasterio opens, a folder of single-band
    files, which may be of different resolutions (..._B02.jp2, ..._B11_20m.tif), or a product of
    Sentinel-2, Landsat or Sentinel-1: its folder, its metadata file, or a .zip or .tar of it. Tiles
    overlap and are blended; cells of which less than half is valid become NaN.
    """
    from eosfm_edge.packets.words import PacketOptions
    from eosfm_edge.runtime.run import RunOptions, RunReport, run_scene

    def table(report: RunReport) -> Table:
        rows = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        rows.add_row("scene", f"{report.megapixels:.2f} megapixels")
        rows.add_row("tiles", f"{report.tiles}, of which {report.skipped_tiles} without data")
        rows.add_row("GRN", f"over {'the scene' if report.grn == 'scene' else 'each tile'}")
        rows.add_row(
            "time",
            f"{report.seconds:.1f} s, {report.seconds_per_megapixel:.2f} s per megapixel "
            f"({report.backend}: {report.compute_seconds:.1f} s)",
        )
        for name, size in report.bytes.items():
            rows.add_row(name, megabytes(size))
        rows.add_row("all", f"{megabytes(sum(report.bytes.values()))} in {output}")
        return rows

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=error_console(),
        transient=True,
    ) as bar:
        stages: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stages[stage] = bar.add_task(stage, total=total)
            bar.update(stages[stage], completed=done)

        report = run_scene(
            bundle,
            scene,
            output,
            RunOptions(
                backend=options["backend"],
                threads=options["threads"],
                grn=options["grn"],
                overlap=options["overlap"],
                halo=options["halo"],
                quicklook=options["quicklook"],
                packets=options["packets"]
                and PacketOptions(
                    options["packets"], options["packet_levels"], options["packet_encoding"]
                ),
                overwrite=options["overwrite"],
                names=options["names"],
                radiometry=options["radiometry"],
            ),
            progress=progress,
            tell=bar.console.print,
        )
    console().print(table(report))
