"""A full-size scene through libeosfm's stream, against ONNX Runtime on its tiles, in one run.

    python benchmarks/swath.py --scene SCENE [--side 10980] [--rows-between 8]

The scene, Sentinel-2 L1C at 10, 20 and 60 m, is mirrored until it is 10,980 x 10,980 pixels, and
streams through the demo's ensemble of 13 bands on two threads. Every eighth row of tiles the peers
have their turn: ONNX Runtime, fp32, as one graph or a graph for each run of a specialist, and the
int8 stream. Peers are given tiles that are ready and need not blend them. Prints a table, and
writes all of it to benchmarks/results/swath-PROCESSOR-PATH.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio
from engines import DEMO, HERE, SPECIALISTS, TILE, Case, machine_name
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.bench import Spread
from eosfm_edge.native.stream import tile_count
from eosfm_edge.runtime.bench import Contender, Process, machine_facts

OVERLAP = 64  # libeosfm's own choice for tiles of 224 pixels
TILES_OF_PEERS = 10  # in a turn


def write_bands(scene: Path, case: Case, path: Path) -> list[int]:
    """Write the scene's bands as they are at their own resolutions; returns their steps.

    They are cut to begin where pixels of all of them do, as a whole Sentinel-2 tile does, and so
    that all mirror at one place.
    """
    names = [str(band.name) for band in load_ensemble(case.folder / "ensemble").spec.input]
    with ExitStack() as stack:
        files = [next(scene.glob(f"*_{name}.*")) for name in names]
        bands = [stack.enter_context(rasterio.open(file)) for file in files]
        coarsest, finest = max(band.res[0] for band in bands), min(band.res[0] for band in bands)
        grid = next(band for band in bands if band.res[0] == coarsest).bounds
        left = max(band.bounds.left for band in bands)
        left = grid.left + math.ceil((left - grid.left) / coarsest) * coarsest
        top = min(band.bounds.top for band in bands)
        top = grid.top - math.ceil((grid.top - top) / coarsest) * coarsest
        steps = [round(band.res[0] / finest) for band in bands]
        arrays = []
        for band in bands:
            column, row = (
                (left - band.bounds.left) / band.res[0],
                (band.bounds.top - top) / band.res[0],
            )
            assert column == int(column) and row == int(row), f"{band.name} is on another grid"
            arrays.append(band.read(1)[int(row) :, int(column) :])
    whole = math.lcm(*steps)
    height, width = (
        min(array.shape[axis] * step for array, step in zip(arrays, steps, strict=True))
        // whole
        * whole
        for axis in (0, 1)
    )
    cut = {
        f"band{i}": array[: height // step, : width // step]
        for i, (array, step) in enumerate(zip(arrays, steps, strict=True))
    }
    np.savez(path, steps=np.array(steps), **cut)
    return steps


def main() -> None:
    """Stream the scene."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", type=Path, required=True, help="a Sentinel-2 L1C scene")
    parser.add_argument("--side", type=int, default=10980)
    parser.add_argument("--rows-between", type=int, default=8)
    options = parser.parse_args()
    facts = machine_facts().model_dump(mode="json")
    side = options.side
    with tempfile.TemporaryDirectory() as scratch:
        shared = SPECIALISTS / "ensemble.safetensors"
        sources = [*(SPECIALISTS / name / "model.safetensors" for name in DEMO), shared]
        case = Case(Path(scratch) / "case", sources, options.scene, ee.ImportOptions())
        bands = Path(scratch) / "bands.npz"
        steps = write_bands(options.scene, case, bands)

        def stream(precision: str) -> Contender:
            worker = [sys.executable, str(HERE / "swath_worker.py")]
            bundle = case.folder / f"{precision}.eosfm"
            return Contender(f"stream {precision}", [*worker, str(bundle), str(bands), str(side)])

        main_process = Process(stream("fp32"))
        peers = [
            Process(stream("int8")),
            Process(case.contender("ONNX Runtime fp32, one graph", "onnxruntime", 2, [case.onnx])),
            Process(
                case.contender("ONNX Runtime fp32, a graph a run", "onnxruntime", 2, case.split())
            ),
        ]
        across = tile_count(side, TILE, TILE, OVERLAP)
        rows = tile_count(side, side, TILE, OVERLAP) // across
        row_ms: list[float] = []
        resident: list[float] = []
        turns: dict[str, list[float]] = {process.name: [] for process in [main_process, *peers]}
        for peer in peers:
            peer.run(TILES_OF_PEERS)
        with Progress(transient=True) as bar:
            for row in bar.track(range(rows), description="rows of tiles"):
                row_ms.append(statistics.fmean(main_process.run(across)))
                resident.append(main_process.resident_mb())
                if row % options.rows_between == 0:
                    turns[main_process.name].append(row_ms[-1])
                    for peer in peers:
                        times = peer.run(across if "stream" in peer.name else TILES_OF_PEERS)
                        turns[peer.name].append(statistics.fmean(times))
        peak = main_process.finish()
        for peer in peers:
            peer.kill()
        name = machine_name(facts, case)
    seconds = sum(row_ms) * across / 1e3
    results = {
        "machine": facts,
        "side": side,
        "steps": steps,
        "tiles": rows * across,
        "seconds": seconds,
        "megapixels_per_second": side * side / 1e6 / seconds,
        "row_ms_per_tile": row_ms,
        "turns_ms_per_tile": turns,
        "resident_mb_after_each_row": resident,
        "peak_mb_less_interpreter": peak,
        "peak_mb": max(resident),
    }
    path = HERE / "results" / f"swath-{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    show(results, turns)
    print(f"all of it is in {path}")


def show(results: dict[str, object], turns: dict[str, list[float]]) -> None:
    """Print what was measured."""
    pixels = (TILE - OVERLAP) ** 2 / 1e6  # that a tile adds
    table = Table(box=None)
    for column in (
        "engine",
        "ms per tile",
        "megapixels per second",
        "the fp32 stream is faster by",
    ):
        table.add_column(column)
    stream = turns["stream fp32"]
    for name, times in turns.items():
        ratio = Spread.of([theirs / mine for mine, theirs in zip(stream, times, strict=True)])
        median = statistics.median(times)
        table.add_row(name, str(Spread.of(times)), f"{pixels / median * 1e3:.2f}", str(ratio))
    Console(width=160).print(table)
    resident = results["resident_mb_after_each_row"]
    assert isinstance(resident, list)
    print(
        f"{results['tiles']} tiles in {results['seconds']:.0f} s, "
        f"{results['megapixels_per_second']:.2f} megapixels per second; in memory "
        f"{resident[0]:.1f} MB after the first row of tiles, {resident[-1]:.1f} MB after the last, "
        f"{max(resident):.1f} MB at most"
    )


if __name__ == "__main__":
    main()
