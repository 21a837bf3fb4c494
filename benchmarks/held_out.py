"""Measure what `eosfm-edge prune` with its defaults leaves, on images that nothing else has used.

    python benchmarks/held_out.py --data DATA [--only NAME ...] [--ratios 0.5 0.75]

DATA is the folder of data sets that examples/specialists/tasks.py describes. Images of the training
split are written as GeoTIFFs, without labels: of chips 2,000, of regions all that there are. Then

    eosfm-edge prune SPECIALIST --data IMAGES --tile T --ratio R -o OUT

is called by its API with no other option; T is the largest multiple of 32 that the chips hold, and
64 for regions, the size of the crops that the probe is fitted on. Accuracies of the own head and of
a probe that was fitted on the original features are of the test split, which neither the
specialist's training nor the calibration saw. Some of the regions are smaller than the unknowns
need, which prune warns of: ``tiles_needed`` says how many tiles that would take.

Writes benchmarks/results/held-out.json; rows of the same specialist and ratio are replaced there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from probe import CROP, TASKS, Probe
from specialist import load, score
from tasks import IGNORE, Chips, Pixels, Region, Task

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.network.cells import tiles_needed
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
    tiles_needed: int  # for four cells a channel at every stage
    tile: int
    distillation_steps: int
    sqnr_db: list[float]  # by level, on the tiles that the command holds out
    promised_db: float | None
    accuracy: float
    accuracy_before: float
    probe: float
    probe_before: float
    test_labels: int  # images, or pixels of regions
    seconds: float  # of the command
    cpu_seconds: float


def write_images(task: Task, folder: Path) -> int:
    """Write unlabelled images of the training split; returns the side of the tiles to take."""
    folder.mkdir()
    if isinstance(task.train, Chips):
        images = task.train.images
        for index in np.random.default_rng(0).permutation(len(images))[:CHIPS]:
            _write(folder / f"{index}.tif", images[index], task.bands)
        return int(min(images.shape[2:])) // 32 * 32
    for index, region in enumerate(task.train):
        _write(folder / f"{index}.tif", region.image, task.bands)
    return CROP


def _write(path: Path, image: Pixels, bands: Sequence[str]) -> None:
    count, height, width = image.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=str(image.dtype)) as file:
        file.write(image)
        file.descriptions = bands


def measure(name: str, data: Path, ratios: list[float], folder: Path) -> list[Row]:
    """Prune one specialist by the command's API, and measure what is left."""
    task = TASKS[name](data)
    model = load(task, SPECIALISTS / name)
    encoder, test = model.encoder.requires_grad_(False), next(iter(task.tests.values()))
    probe = Probe(encoder, task)
    before = score(model, test)["accuracy"], probe.accuracy(encoder, task)
    tile = write_images(task, folder / "images")
    scale, offset = 1.0, 0.0
    if isinstance(task.train, Chips):
        scale, offset = task.train.scale, task.train.offset
    bands = tuple(InputBand(name=band, scale=scale, offset=offset) for band in task.bands)
    options = ImportOptions(input=bands, normalisation="none", fusion="none")
    source = folder / name
    import_ensemble([SPECIALISTS / name / "model.safetensors"], source, options)
    needed = tiles_needed(load_ensemble(source), tile)
    rows = []
    for ratio in ratios:
        output, wall, cpu = folder / f"{name}-{ratio:g}", time.monotonic(), time.process_time()
        asked = PruneOptions(ratio=ratio, tile=tile)
        report = prune_ensemble(source, [folder / "images"], output, asked, footprints)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        assert report.fidelity is not None
        pruned = load_ensemble(output)
        model.encoder = pruned.encoders[0]
        rows.append(
            Row(
                name, ratio, report.plan.macs_after / report.plan.macs_before,
                len(report.tiles.calibration), needed, tile,
                pruned.spec.specialists[0].pruning[-1].distillation_steps,
                [level.sqnr_db for level in report.fidelity], report.promised_db,
                score(model, test)["accuracy"], before[0],
                probe.accuracy(model.encoder, task), before[1],
                labels_of(test), wall, cpu,
            )
        )  # fmt: skip
        print(line_of(rows[-1]), flush=True)
    return rows


def labels_of(test: Chips | list[Region]) -> int:
    """Return how many labels the accuracies are of."""
    if isinstance(test, Chips):
        return len(test.labels)
    return sum(int((region.labels != IGNORE).sum()) for region in test)


def line_of(row: Row) -> str:
    """Return a row for people."""
    levels = " / ".join(f"{value:.1f}" for value in row.sqnr_db)
    own, probe = row.accuracy - row.accuracy_before, row.probe - row.probe_before
    return (
        f"{row.specialist} {row.ratio:g}: {row.tiles} tiles of {row.tile} ({row.tiles_needed} "
        f"needed), {levels} dB (promised {row.promised_db}), own task {own:+.2f}, probe "
        f"{probe:+.2f} points of {row.test_labels} labels, {row.seconds:.0f} s "
        f"({row.cpu_seconds:.0f} s of CPU)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--ratios", type=float, nargs="*", default=[0.5, 0.75])
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.only:
            (Path(folder) / name).mkdir()
            record(measure(name, options.data, options.ratios, Path(folder) / name))


def record(rows: Sequence[Row]) -> None:
    """Replace the rows of the same specialist and ratio."""
    new = {(row.specialist, row.ratio): asdict(row) | {"machine": machine_facts()} for row in rows}
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    kept = [row for row in old if (row["specialist"], row["ratio"]) not in new]
    RESULTS.write_text(json.dumps({"rows": [*kept, *new.values()]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
