"""Measure what `prune` and `calibrate` with their defaults leave, on images that nothing has used.

    python benchmarks/held_out.py --data DATA [--only NAME ...] [--ratios 0.5 0.75]
    python benchmarks/held_out.py --recorded

DATA is the folder of data sets that examples/specialists/tasks.py describes. Images of the training
split are written as GeoTIFFs, without labels: of chips 2,000, of regions all that there are. Then

    eosfm-edge prune SPECIALIST --data IMAGES --tile T --ratio R -o OUT
    eosfm-edge calibrate SPECIALIST --data IMAGES --tile T -o OUT

are called by their API with no other option; T is the largest multiple of 32 that the chips hold,
and 64 for regions, the size of the crops that the probe is fitted on. Accuracies of the own head
and of a probe that was fitted on the original features are of the test split, which neither the
specialist's training nor the calibration saw. Some of the regions are smaller than the unknowns
need, which the commands warn of: ``tiles_needed`` says how many tiles that would take. int8 is
simulated, as the export checks engines against.

Writes benchmarks/results/held-out.json; rows of the same specialist and command are replaced there.
--recorded prints what is there as the table of docs/pruning.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from probe import CROP, TASKS, Probe
from specialist import load, score
from tasks import IGNORE, Chips, Pixels, Region, Task
from torch import nn

import eosfm_edge as ee
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.network.calibration import deploy, read_calibration
from eosfm_edge.network.cells import tiles_needed
from eosfm_edge.runtime.bench import machine_facts

HERE = Path(__file__).parent
SPECIALISTS = HERE.parent / "examples" / "specialists"
RESULTS = HERE / "results" / "held-out.json"
CHIPS = 2000  # to calibrate on, of which the command takes what it needs


@dataclass
class Row:
    """One compressed specialist; accuracies in percent of the test split."""

    specialist: str
    command: str  # with the options that are not defaults, but for the imagery
    macs: float  # share that is left
    tiles: int
    tiles_needed: int  # for four cells a channel at every stage
    tile: int
    distillation_steps: int
    sqnr_db: list[float | None]  # by level, on the tiles that the command holds out
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


@dataclass(frozen=True)
class Form:
    """A specialist as a verb made it."""

    command: str
    encoder: nn.Module
    macs: float
    tiles: int
    distillation_steps: int
    sqnr_db: list[float | None]
    promised_db: float | None


def pruned(source: Path, images: Path, tile: int, ratio: float) -> Form:
    """Return a specialist as `prune` leaves it."""
    output = source.with_name(f"{source.name}-{ratio:g}")
    try:
        report = ee.prune(source, output, ee.PruneOptions(data=images, ratio=ratio, tile=tile))
    except ee.PromiseBrokenError as error:
        print(error)
        report = error.report
    ensemble = load_ensemble(output)
    return Form(
        f"prune --ratio {ratio:g}",
        ensemble.encoders[0],
        report.plan.macs_after / report.plan.macs_before,
        len(report.tiles.calibration),
        ensemble.spec.specialists[0].pruning[-1].distillation_steps,
        [level.sqnr_db for level in report.fidelity or ()],
        report.promised_db,
    )


def calibrated(source: Path, images: Path, tile: int) -> Form:
    """Return a specialist as `calibrate` rounds it."""
    output = source.with_name(f"{source.name}-int8")
    report = ee.calibrate(source, output, ee.CalibrateOptions(data=images, tile=tile))
    calibration, tensors = read_calibration(output)
    (scales,) = calibration.specialists
    encoder = deploy(load_ensemble(source).encoders[0], scales, tensors, calibration.grn)
    return Form(
        "calibrate",
        encoder.requires_grad_(False),
        1.0,
        report.data.tiles,
        0,  # not by default
        [level.sqnr_db for level in scales.native],
        None,
    )


def measure(name: str, data: Path, ratios: list[float], folder: Path) -> Iterator[Row]:
    """Compress one specialist by the verbs, and measure what each form of it has kept."""
    task = TASKS[name](data)
    model = load(task, SPECIALISTS / name)
    test = next(iter(task.tests.values()))
    probe = Probe(model.encoder.requires_grad_(False), task)
    before = score(model, test)["accuracy"], probe.accuracy(model.encoder, task)
    images, source = folder / "images", folder / name
    tile = write_images(task, images)
    scale, offset = 1.0, 0.0
    if isinstance(task.train, Chips):
        scale, offset = task.train.scale, task.train.offset
    said = ee.ImportOptions(
        bands=",".join(task.bands), scale=scale, offset=offset, norm="none", fusion="none"
    )
    ee.import_ensemble(SPECIALISTS / name / "model.safetensors", source, said)
    needed = tiles_needed(load_ensemble(source), tile)
    verbs: list[Callable[[Path, Path, int], Form]] = [
        *(partial(pruned, ratio=ratio) for ratio in ratios),
        calibrated,
    ]
    for verb in verbs:
        wall, cpu = time.monotonic(), time.process_time()
        form = verb(source, images, tile)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        model.encoder = form.encoder
        yield Row(
            name, form.command, form.macs, form.tiles, needed, tile, form.distillation_steps,
            form.sqnr_db, form.promised_db, score(model, test)["accuracy"], before[0],
            probe.accuracy(form.encoder, task), before[1], labels_of(test), wall, cpu,
        )  # fmt: skip


def labels_of(test: Chips | list[Region]) -> int:
    """Return how many labels the accuracies are of."""
    if isinstance(test, Chips):
        return len(test.labels)
    return sum(int((region.labels != IGNORE).sum()) for region in test)


def line_of(row: Row) -> str:
    """Return a row for people."""
    levels = " / ".join("-" if value is None else f"{value:.1f}" for value in row.sqnr_db)
    own, probe = row.accuracy - row.accuracy_before, row.probe - row.probe_before
    return (
        f"{row.specialist}, {row.command}: {row.tiles} tiles of {row.tile} ({row.tiles_needed} "
        f"needed), {levels} dB (promised {row.promised_db}), own task {own:+.2f}, probe "
        f"{probe:+.2f} points of {row.test_labels} labels, {row.seconds:.0f} s "
        f"({row.cpu_seconds:.0f} s of CPU)"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as Markdown."""
    lines = [
        "| specialist | command | tiles, of needed | SQNR dB, level 1 … 4 | own task | probe | of |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        levels = " / ".join("-" if value is None else f"{value:.1f}" for value in row["sqnr_db"])
        own, probe = (row[key] - row[f"{key}_before"] for key in ("accuracy", "probe"))
        tiles = f"{row['tiles']:,} of {row['tiles_needed']:,}"
        lines.append(
            f"| {row['specialist']} | `{row['command']}` | {tiles} | {levels} | {own:+.2f} | "
            f"{probe:+.2f} | {row['test_labels']:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of data sets")
    parser.add_argument("--recorded", action="store_true", help="print what was measured before")
    parser.add_argument("--only", nargs="*", default=list(TASKS))
    parser.add_argument("--ratios", type=float, nargs="*", default=[0.5, 0.75])
    options = parser.parse_args()
    if options.recorded:
        print(table(json.loads(RESULTS.read_text())["rows"]))
        return
    if options.data is None:
        parser.error("--data is missing")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.only:
            (Path(folder) / name).mkdir()
            for row in measure(name, options.data, options.ratios, Path(folder) / name):
                print(line_of(row), flush=True)
                record(row)


def record(row: Row) -> None:
    """Replace the row of the same specialist and command."""
    new = asdict(row) | {"machine": machine_facts().model_dump(mode="json")}
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = [
        one for one in rows if (one["specialist"], one["command"]) != (row.specialist, row.command)
    ]
    RESULTS.write_text(json.dumps({"rows": [*rows, new]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
