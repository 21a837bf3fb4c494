"""``eosfm-edge bench``."""

from __future__ import annotations

from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.api.options import BenchOptions
from eosfm_edge.cli.options import BundleArgument, Json, Quiet, Verbose
from eosfm_edge.cli.output import console, print_json
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options


@with_options(BenchOptions)
def bench(
    bundle: BundleArgument,
    options: BenchOptions,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Time a bundle's backends on this machine.

    The image is that of its known answer. Backends take turns, each in a process of its own.
    Nothing else should run meanwhile. --json has everything measured, for prune --measured.
    """
    with shown_progress(quiet=quiet, verbose=verbose) as progress:
        report = ee.bench(bundle, options, progress=progress)
    if as_json:
        print_json(report)
        return
    last = report.timings[-1]
    table = Table(
        "backend", "ms", f"times as fast as {last.name}", "load ms", "memory MB", box=None
    )
    for timing in report.timings:
        table.add_row(
            timing.name,
            str(timing.ms),
            str(timing.ratio_to(last)),
            f"{timing.load_ms:.0f}",
            f"{timing.memory_mb:.0f}",
        )
    console().print(table)
