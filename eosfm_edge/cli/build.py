"""``eosfm-edge build``."""

from __future__ import annotations

from pathlib import Path

import click

from eosfm_edge.cli.options import PATH, compute_capabilities, console
from eosfm_edge.cli.progress import progress_bars


@click.command()
@click.argument("bundle", type=PATH)
@compute_capabilities
@click.option(
    "--dry-run",
    is_flag=True,
    help="Parse the graphs and check their precisions, without a GPU and without building.",
)
def build(bundle: Path, capabilities: tuple[str, ...], dry_run: bool) -> None:
    """Build the TensorRT engines of a BUNDLE for this machine.

    That is done on the device that is to run them. They are kept in the bundle, for this TensorRT
    and this GPU, and not built again while the graph is the same. Exits with 1 if TensorRT does not
    compute in the precision that was exported.
    """
    from eosfm_edge.bundle.intact import require_intact
    from eosfm_edge.engines.build import build_engines, parse_graphs
    from eosfm_edge.formats.bundle import ENGINES_FOLDER, read_manifest

    manifest = read_manifest(bundle)
    require_intact(bundle, manifest, "tensorrt")
    out = console()
    if dry_run:
        parsed = parse_graphs(bundle, manifest, capabilities)
        for graph, products in parsed.products.items():
            found = ", ".join(f"{count} in {precision}" for precision, count in products.items())
            out.print(f"{graph}: {parsed.parser} parses it; products: {found}")
        return
    with progress_bars(None, bundle / ENGINES_FOLDER) as progress:
        engines = build_engines(bundle, manifest, capabilities, progress)
    for engine in engines:
        out.print(engine.summary)
