"""``eosfm-edge packets``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from eosfm_edge.api.verbs.packets import PacketsLostError, check_packets
from eosfm_edge.cli.options import Json
from eosfm_edge.cli.output import console, print_json

if TYPE_CHECKING:
    from eosfm_edge.packets.summary import Summary


def packets(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file of packets.")],
    as_json: Json = False,
) -> None:
    """Check and count the feature packets in a file.

    FILE is what run --packets wrote, or what arrived of it. Exits with 1 if bytes of it belong to
    no intact packet.
    """
    show = print_json if as_json else _show
    try:
        show(check_packets(file))
    except PacketsLostError as error:
        show(error.summary)
        raise


def _show(summary: Summary) -> None:
    table = Table("level", "packets", "reaches over", "values", "without data", box=None)
    for number, level in sorted(summary.levels.items()):
        table.add_row(
            str(number),
            str(level.packets),
            f"{level.rows} x {level.columns} cells",
            f"{level.values:,}",
            f"{level.values_without_data:,}",
        )
    console().print(table)
    console().print(f"{summary.bytes:,} bytes, of bundle {', '.join(summary.bundles)}")
