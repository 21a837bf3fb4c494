"""``eosfm-edge packets``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from eosfm_edge.cli.options import PATH, console


@click.command()
@click.argument("file", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def packets(file: Path, as_json: bool) -> None:
    """Check and count the feature packets in a FILE.

    FILE is what ``run --packets`` wrote, or what arrived of it. Exits with 1 if bytes of it
    belong to no intact packet.
    """
    from eosfm_edge.errors import CheckFailedError
    from eosfm_edge.packets.summary import summarise

    summary = summarise(file)
    out = console()
    if as_json:
        out.print_json(json.dumps(asdict(summary)))
    else:
        table = Table("level", "packets", "reaches over", "values", "without data", box=None)
        for number, level in sorted(summary.levels.items()):
            table.add_row(
                str(number),
                str(level.packets),
                f"{level.rows} x {level.columns} cells",
                f"{level.values:,}",
                f"{level.values_without_data:,}",
            )
        out.print(table)
        out.print(f"{summary.bytes:,} bytes, of bundle {', '.join(summary.bundles)}")
    if summary.lost:
        raise CheckFailedError(
            f"{summary.lost} bytes of {file} belong to no intact packet",
            remedy="send again what is missing; the other packets can be used",
        )
