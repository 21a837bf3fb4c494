"""``eosfm-edge bench``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.progress import Progress
from rich.table import Table

from eosfm_edge.cli.options import PATH, console, error_console
from eosfm_edge.formats.backends import BACKENDS, CPU_BACKENDS


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--backend",
    "backends",
    type=click.Choice(BACKENDS),
    multiple=True,
    default=CPU_BACKENDS,
    show_default=True,
    help="Who is timed; may be repeated. Ratios are to the last.",
)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0: all cores.")
@click.option("--rounds", type=click.IntRange(min=2), default=20, show_default=True)
@click.option("--json", "json_file", type=PATH, help="Write everything measured to this file.")
def bench(
    bundle: Path, backends: tuple[str, ...], threads: int, rounds: int, json_file: Path | None
) -> None:
    """Time a BUNDLE's backends on this machine.

    The image is that of its known answer.

    Backends take turns, each in a process of its own. Nothing else should run meanwhile.
    """
    from eosfm_edge.files import cannot_write
    from eosfm_edge.formats.bundle import read_manifest
    from eosfm_edge.runtime.bench import bench_bundle, machine_facts

    facts = machine_facts()
    with Progress(console=error_console(), transient=True) as bar:
        task = bar.add_task("rounds", total=rounds)
        timings = bench_bundle(
            bundle, backends, threads, rounds, lambda _, done, __: bar.update(task, completed=done)
        )
    last = timings[-1]
    table = Table(
        "backend", "ms", f"times as fast as {last.name}", "load ms", "memory MB", box=None
    )
    for timing in timings:
        table.add_row(
            timing.name,
            str(timing.ms),
            str(timing.ratio_to(last)),
            f"{timing.load_ms:.0f}",
            f"{timing.memory_mb:.0f}",
        )
    console().print(table)
    if json_file:
        results: dict[str, object] = {"machine": facts, "bundle": str(bundle), "threads": threads}
        results["macs"] = read_manifest(bundle).macs
        results["timings"] = [asdict(timing) for timing in timings]
        try:
            json_file.write_text(json.dumps(results, indent=1) + "\n")
        except OSError as error:
            raise cannot_write(json_file, error.strerror) from error
