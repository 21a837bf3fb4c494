"""``eosfm-edge build``."""

from __future__ import annotations

from pathlib import Path

import eosfm_edge as ee
from eosfm_edge.api.options import BuildOptions
from eosfm_edge.cli.options import BundleArgument, Json, Quiet, Verbose
from eosfm_edge.cli.output import console, print_json
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options
from eosfm_edge.formats.bundle import ENGINES_FOLDER


@with_options(BuildOptions)
def build(
    bundle: BundleArgument,
    options: BuildOptions,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Build a bundle's TensorRT engines for this machine.

    Run it on the device that will run them. Engines are kept in the bundle, for this TensorRT and
    this GPU, and are not built again while the graph is the same. Exits with 1 if TensorRT does not
    compute in the precision that was exported.
    """
    kept = Path(bundle) / ENGINES_FOLDER
    with shown_progress(finished=kept, quiet=quiet, verbose=verbose) as progress:
        report = ee.build(bundle, options, progress=progress)
    if as_json:
        print_json(report)
        return
    out = console()
    if report.parsed is not None:
        for graph, products in report.parsed.products.items():
            found = ", ".join(f"{count} in {precision}" for precision, count in products.items())
            out.print(f"{graph}: {report.parsed.parser} parses it; products: {found}")
    for engine in report.engines:
        out.print(engine.summary)
