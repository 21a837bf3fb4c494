"""Measure what `eosfm-edge prune` with its defaults leaves, on images that nothing else has used.

    python benchmarks/held_out.py --data DATA [--only NAME ...] [--ratios 0.5 0.75]

DATA is the folder of data sets that examples/specialists/tasks.py describes. For specialists of
chips: 2,000 chips of the training split are written as a folder of GeoTIFFs, without labels, and

    eosfm-edge prune SPECIALIST --data CHIPS --tile T --ratio R -o OUT

is called by its API with no other option; T is the largest multiple of 32 that the chips hold.
Accuracies of the own head and of a probe that was fitted on the original features are of the test
split, which neither the specialist's training nor the calibration saw.

Writes benchmarks/results/held-out.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from probe import TASKS, Probe
from specialist import load, score
from tasks import Chips, Task

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.network.latency import footprints
from eosfm_edge.pruning.prune import PruneOptions, prune_ensemble
from eosfm_edge.runtime.bench import machine_facts

HERE = Path(__file__).parent
SPECIALISTS = HERE.parent / "examples" / "specialists"
RESULTS = HERE / "results" / "held-out.json"
CHIPS = 2000  # to calibrate on, of which the command takes what it needs


@dataclass
class Row:
    """One pruned specialist; accuracies in percent of the test split."""

    specialist: str
    ratio: float
    macs: float  # share that is left
    tiles: int
    tile: int
    sqnr_db: list[float]  # by level, on the tiles that the command holds out
    promised_db: float | None
    accuracy: float
    accuracy_before: float
    probe: float
    probe_before: float
    test_images: int
    seconds: float  # of the command
    cpu_seconds: float


def write_chips(task: Task, folder: Path) -> int:
    """Write unlabelled chips of the training split; returns their side in pixels."""
    chips = task.train
    assert isinstance(chips, Chips), "regions are for benchmarks/fidelity.py"
    folder.mkdir()
    for index in np.random.default_rng(0).permutation(len(chips.images))[:CHIPS]:
        image = chips.images[index]
        count, height, width = image.shape
        path, dtype = folder / f"{index}.tif", str(image.dtype)
        with rasterio.open(path, "w", "GTiff", width, height, count, dtype=dtype) as file:
            file.write(image)
            file.descriptions = task.bands
    return int(min(chips.images.shape[2:]))


def measure(name: str, data: Path, ratios: list[float], folder: Path) -> list[Row]:
    """Prune one specialist by the command's API, and measure what is left."""
    task = TASKS[name](data)
    model = load(task, SPECIALISTS / name)
    encoder, test = model.encoder.requires_grad_(False), next(iter(task.tests.values()))
    probe = Probe(encoder, task)
    before = score(model, test)["accuracy"], probe.accuracy(encoder, task)
    tile = write_chips(task, folder / "chips") // 32 * 32
    assert isinstance(task.train, Chips) and isinstance(test, Chips)
    bands = tuple(
        InputBand(name=band, scale=task.train.scale, offset=task.train.offset)
        for band in task.bands
    )
    options = ImportOptions(input=bands, normalisation="none", fusion="none")
    source = folder / name
    import_ensemble([SPECIALISTS / name / "model.safetensors"], source, options)
    rows = []
    for ratio in ratios:
        output, wall, cpu = folder / f"{name}-{ratio:g}", time.monotonic(), time.process_time()
        asked = PruneOptions(ratio=ratio, tile=tile)
        report = prune_ensemble(source, [folder / "chips"], output, asked, footprints)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        assert report.fidelity is not None
        model.encoder = load_ensemble(output).encoders[0]
        rows.append(
            Row(
                name, ratio, report.plan.macs_after / report.plan.macs_before,
                len(report.tiles.calibration), tile,
                [level.sqnr_db for level in report.fidelity], report.promised_db,
                score(model, test)["accuracy"], before[0],
                probe.accuracy(model.encoder, task), before[1],
                len(test.images), wall, cpu,
            )
        )  # fmt: skip
        print(line_of(rows[-1]), flush=True)
    return rows


def line_of(row: Row) -> str:
    """Return a row for people."""
    levels = " / ".join(f"{value:.1f}" for value in row.sqnr_db)
    return (
        f"{row.specialist} {row.ratio:g}: {row.tiles} tiles of {row.tile}, {levels} dB (promised "
        f"{row.promised_db}), own task {row.accuracy - row.accuracy_before:+.2f}, probe "
        f"{row.probe - row.probe_before:+.2f} points of {row.test_images} images, "
        f"{row.seconds:.0f} s ({row.cpu_seconds:.0f} s of CPU)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--only", nargs="*", default=["eurosat_rgb", "mining_rgb"])
    parser.add_argument("--ratios", type=float, nargs="*", default=[0.5, 0.75])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.only:
            (Path(folder) / name).mkdir()
            rows += measure(name, options.data, options.ratios, Path(folder) / name)
            content = {"machine": machine_facts(), "rows": [asdict(row) for row in rows]}
            RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
