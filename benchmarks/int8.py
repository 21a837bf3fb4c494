"""Measure what int8 leaves of the six specialists and how fast it is, with no label seen.

    python benchmarks/int8.py --data DATA [--distill 120] [--only NAME ...]
    python benchmarks/int8.py --recorded

DATA is the folder of data sets that examples/specialists/tasks.py describes. Ours with every method
of clipping and with the best for each tensor (auto), the same in TensorRT's form, with static GRN,
with self-distillation if asked; ONNX Runtime's and NNCF's own (int8_peers.py) of the same images;
and INT8 of specialists that were pruned before, by fidelity.py's closed form. All is compared with
the original encoder.

Calibration images are of the training split, without labels: 256 chips, or 128 crops of 128 x 128,
of which the last eighth is held out; pruning gets four and two times as many. Accuracies, cosines
and signal to noise ratios are of the test split. The probe is fitted on the original features and
applied unchanged. Ours is simulated in PyTorch, peers run their own engine.

Times are of 224 x 224 pixels on all cores: every model in a process of its own, in turn, after all
else. The ensemble is all specialists of a run, one after the other or one per core.

Writes benchmarks/results/int8.json, and plots it to docs/int8.png. What an interrupted run has
measured stays; --only adds to what is there.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from fidelity import SPECIALISTS, TILE, alone, calibration
from int8_peers import Quantised, export, nncf_default, onnxruntime_default
from numpy.typing import NDArray
from probe import TASKS, Chips, Probe, test_batches
from specialist import BACKBONE, load, score
from torch import Tensor, nn

from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.calibration.encoder import Recipe, calibrate_encoder
from eosfm_edge.calibration.mixed import Budget
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.exporting.onnx import write_onnx
from eosfm_edge.formats.bench import Spread, Timing
from eosfm_edge.formats.bundle import SPECIALISTS_FOLDER
from eosfm_edge.formats.calibration import METHODS
from eosfm_edge.formats.precision import LayerPrecision
from eosfm_edge.formats.recipe import Recipe as Pruning
from eosfm_edge.network.calibration import with_encoders
from eosfm_edge.network.deployed import CPU, NATIVE, TENSORRT, DeployedEncoder, Form
from eosfm_edge.network.fidelity import compare
from eosfm_edge.network.native_files import write_chain, write_specialists
from eosfm_edge.pruning.encoder import carry_out, study
from eosfm_edge.runtime.bench import Contender, alternate, machine_facts

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "int8.json"
PLOT = HERE.parent / "docs" / "int8.png"
IMAGES, CROPS = 256, 128  # for calibration
HELD_OUT = 8  # every so many of them
COMPARED = 256  # images that features are compared on, at most
RATIOS = (0.5, 0.75)
ROUNDS = 15
FP16 = Form(products="fp16", convolutions="fp16", rounded_products=True)
WHOLE, AUTO, IN_TENSORRT = "fp32", "int8, auto", "int8, TensorRT"
PEERS = ("int8, ONNX Runtime", "int8, NNCF")
BUT_STEM = tuple(f"{peer}, stem fp32" for peer in PEERS)
FORMS = {"native": "native", "onnxruntime": "ONNX Runtime", "openvino-f32": "OpenVINO"}
FORMS["onnxruntime-wide"] = "ONNX Runtime"
BASE = (WHOLE, "onnxruntime")  # what times are compared with

Files = dict[tuple[str, str], Path]  # by method and engine


@dataclass
class Row:
    """One form of one specialist."""

    specialist: str
    method: str
    cosine: list[float]
    sqnr_db: list[float | None]
    accuracy: float
    probe: float
    megabytes: float
    seconds: float  # of calibration, and of pruning before
    int8: float | None  # share of matrices that are
    round_ms: dict[str, list[float]] = field(default_factory=dict)  # by engine


@dataclass
class Candidate:
    """A form that is to be measured.

    Attributes:
        method: its name.
        network: what gives its levels.
        megabytes: of its weights.
        seconds: of making it.
        files: to be timed, by engine.
    """

    method: str
    network: nn.Module
    megabytes: float
    seconds: float
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def int8(self) -> float | None:
        """The share of matrices that are int8."""
        if not isinstance(self.network, DeployedEncoder):
            return None
        layers = self.network.layers().items()
        kinds = [layer.precision for name, layer in layers if not name.endswith("conv_dw")]
        return kinds.count("int8") / len(kinds)


class Maker:
    """Makes every form of one specialist, and their files in a folder."""

    def __init__(self, encoder: nn.Module, tiles: list[Tensor], count: int, folder: Path) -> None:
        self.encoder, self.tiles, self.folder = encoder, tiles, folder
        held_out = max(1, count // HELD_OUT)
        self.images, self.held_out = tiles[: count - held_out], tiles[count - held_out : count]
        bands = len(tiles[0])
        self.tile = torch.rand(1, bands, TILE, TILE, generator=torch.Generator().manual_seed(0))
        np.save(folder / "image.npy", self.tile.numpy())

    def all(self, distill: int) -> Iterator[Candidate]:
        """Give one after the other."""
        model = self.folder / "fp32.onnx"
        fixed = export(self.encoder, model, TILE)
        whole = self.ours(WHOLE, self.encoder, _all(self.encoder, "fp32"), NATIVE, 0.0)
        whole.files |= {"onnxruntime": fixed, "openvino-f32": fixed}
        yield whole
        yield self.ours("bf16", self.encoder, _all(self.encoder, "half"), NATIVE, 0.0)
        half = self.ours("fp16", self.encoder, _all(self.encoder, "half"), FP16, 0.0)
        yield replace(half, files={})  # TensorRT's
        for method in METHODS:
            yield self.int8(f"int8, {method}", self.encoder, Recipe(method=method))
        auto = self.int8(AUTO, self.encoder, Recipe())
        assert isinstance(auto.network, DeployedEncoder)
        auto.files["onnxruntime-wide"] = self.onnx(auto.network)
        yield auto
        in_tensorrt = copy.deepcopy(auto.network)
        in_tensorrt.form = TENSORRT
        yield replace(auto, method=IN_TENSORRT, network=in_tensorrt, files={})
        static = Recipe(grn="static", budget=Budget(min_cosine=-1.0))
        yield self.int8("int8, static GRN", self.encoder, static)
        if distill:
            yield self.int8("int8, distilled", self.encoder, Recipe(distill=distill))
        images = self.images
        yield _peer(PEERS[0], "onnxruntime", onnxruntime_default(model, images, TILE))
        yield _peer(PEERS[1], "openvino-f32", nncf_default(model, images, TILE))
        found = onnxruntime_default(model, images, TILE, stem=False)
        yield _peer(BUT_STEM[0], "onnxruntime", found)
        found = nncf_default(model, images, TILE, stem=False)
        yield _peer(BUT_STEM[1], "openvino-f32", found)
        started = time.monotonic()
        known = study(self.encoder, self.tiles, Pruning())
        studied = time.monotonic() - started
        for ratio in RATIOS:
            started = time.monotonic()
            groups = known.plan(ratio, Pruning())
            pruned = carry_out(self.encoder, groups, self.tiles, Pruning())
            seconds = studied + time.monotonic() - started
            name = f"pruned by {ratio:g}"
            yield self.ours(f"{name}, fp32", pruned, _all(pruned, "fp32"), NATIVE, seconds)
            int8 = self.int8(_pruned_int8(ratio), pruned, Recipe())
            yield replace(int8, seconds=int8.seconds + seconds)

    def int8(self, method: str, encoder: nn.Module, recipe: Recipe) -> Candidate:
        started = time.monotonic()
        found = calibrate_encoder(encoder, self.images, self.held_out, recipe)
        seconds = time.monotonic() - started
        return self.ours(method, encoder, found.encoder, NATIVE, seconds)

    def ours(
        self, method: str, encoder: nn.Module, deployed: DeployedEncoder, form: Form, seconds: float
    ) -> Candidate:
        """Write a deployed encoder for libeosfm; its known answer is never asked for."""
        place = self.folder / re.sub(r"\W+", "-", method)
        place.mkdir()
        chain = Chain(alone(encoder, BACKBONE))
        write_specialists(place, chain, {0: deployed})
        with torch.inference_mode():
            levels = tuple(level.numpy() for level in chain(self.tile))
        answer = KnownAnswer(self.tile.numpy(), levels)
        write_chain(place, chain, "int8", TILE, "fp32", answer, 1.0)
        size = sum(f.stat().st_size for f in (place / SPECIALISTS_FOLDER).iterdir())
        deployed.form = form
        return Candidate(method, deployed, size / 1e6, seconds, {"native": place})

    def onnx(self, deployed: DeployedEncoder) -> Path:
        """Write what ONNX Runtime gets of us."""
        path = self.folder / "ours.onnx"
        form, deployed.form = deployed.form, replace(CPU, emulated=False)
        chain = Chain(with_encoders(alone(self.encoder, BACKBONE), {0: deployed}))
        write_onnx(chain, self.tile, path, dynamic_batch=False, integer_biases=True)
        deployed.form = form
        return path


def _all(encoder: nn.Module, precision: LayerPrecision) -> DeployedEncoder:
    deployed = DeployedEncoder(encoder)
    for layer in deployed.layers().values():
        layer.precision = precision
    return deployed


def _peer(method: str, engine: str, found: Quantised) -> Candidate:
    return Candidate(method, found.network, found.megabytes, found.seconds, {engine: found.timed})


def _pruned_int8(ratio: float) -> str:
    return f"pruned by {ratio:g}, int8"


def measure(name: str, data: Path, distill: int, folder: Path) -> tuple[list[Row], Files]:
    """Calibrate one specialist in every way; nothing is timed yet."""
    task = TASKS[name](data)
    model = load(task, SPECIALISTS / name)
    encoder = model.encoder.requires_grad_(False)
    count = IMAGES if isinstance(task.train, Chips) else CROPS
    test = next(iter(task.tests.values()))
    images = [batch for batch, _ in test_batches(task)]
    images = images[:: max(1, sum(map(len, images)) // COMPARED)]
    probe = Probe(encoder, task)
    rows: list[Row] = []
    files: Files = {}
    for one in Maker(encoder, calibration(task, seed=0), count, folder).all(distill):
        files |= {(one.method, engine): path for engine, path in one.files.items()}
        started = time.monotonic()
        levels = compare(encoder, one.network, images)
        model.encoder = one.network
        accuracy = score(model, test)["accuracy"]
        model.encoder = encoder
        exact = one.method == WHOLE  # but for folding
        sqnr = [None if exact or not np.isfinite(v.sqnr_db) else v.sqnr_db for v in levels]
        rows.append(
            Row(
                name, one.method, [level.cosine for level in levels], sqnr, accuracy,
                probe.accuracy(one.network, task), one.megabytes, one.seconds, one.int8,
            )
        )  # fmt: skip
        print(
            f"{name} {one.method}: own {accuracy:.2f} probe {rows[-1].probe:.2f} SQNR "
            f"{' '.join('-' if v is None else f'{v:.1f}' for v in sqnr)} "
            f"({one.seconds:.0f} s, {time.monotonic() - started:.0f} s to measure)",
            flush=True,
        )
    return rows, files


def contender(
    name: str, engine: str, how: str, models: Sequence[Path], images: Sequence[Path]
) -> Contender:
    """Return an engine on some models, each with its image."""
    threads = len(os.sched_getaffinity(0))
    pairs = [str(p) for pair in zip(models, images, strict=True) for p in pair]
    command = [sys.executable, str(HERE / "int8_worker.py"), engine, how, str(threads), *pairs]
    return Contender(name, command)


def time_rows(rows: Sequence[Row], files: Files, folder: Path) -> None:
    """Time one specialist's models in turn, on an image of noise: time does not depend on it."""
    contenders = [
        contender(method, engine, "turn", [path], [folder / "image.npy"])
        for (method, engine), path in files.items()
    ]
    by_method = {row.method: row for row in rows}
    for (method, engine), timing in zip(files, alternate(contenders, ROUNDS), strict=True):
        by_method[method].round_ms[engine] = list(timing.round_ms)


def time_ensemble(files: dict[str, Files], folder: Path) -> dict[str, list[float]]:
    """Time all specialists together, in both arrangements of each engine."""
    images = [folder / name / "image.npy" for name in files]
    subjects = [BASE, *((m, "native") for m in (WHOLE, AUTO, *map(_pruned_int8, RATIOS)))]
    contenders = [
        contender(f"{method}, {FORMS[engine]}, {how}", engine, how, paths, images)
        for method, engine in subjects
        for how in ("turn", "split")
        for paths in [[mine[method, engine] for mine in files.values()]]
    ]
    return {t.name: list(t.round_ms) for t in alternate(contenders, ROUNDS)}


@dataclass(frozen=True)
class Summary:
    """One method over all specialists: means, and by specialist."""

    method: str
    megabytes: float
    seconds: float
    int8: float | None
    cosine: NDArray[np.float64]
    sqnr: NDArray[np.float64]  # (specialists, levels), NaN where there is no noise
    own: NDArray[np.float64]  # changes in points, by specialist
    probe: NDArray[np.float64]


def summaries(rows: Sequence[Row]) -> dict[str, Summary]:
    """Summarise rows by method, in the order of the first specialist's."""
    whole = {row.specialist: row for row in rows if row.method == WHOLE}
    found = {}
    for method in dict.fromkeys(row.method for row in rows):
        group = [row for row in rows if row.method == method]
        shares = [row.int8 for row in group if row.int8 is not None]
        found[method] = Summary(
            method,
            float(np.mean([row.megabytes for row in group])),
            float(np.mean([row.seconds for row in group])),
            float(np.mean(shares)) if shares else None,
            np.mean([row.cosine for row in group], axis=0),
            np.array([row.sqnr_db for row in group], float),
            np.array([row.accuracy - whole[row.specialist].accuracy for row in group]),
            np.array([row.probe - whole[row.specialist].probe for row in group]),
        )
    return found


def table_of(rows: Sequence[Row]) -> str:
    """Return the summaries as a Markdown table."""
    lines = [
        "| form | cosine, level 1 … 4 | SQNR dB, level 1 … 4 | least | own task: mean / worst | "
        "probe: mean / worst | MB | matrices in int8 | calibration, s |",
        "|" + "---|" * 9,
    ]
    for s in summaries(rows).values():
        exact = bool(np.isnan(s.sqnr).any())
        lines.append(
            f"| {s.method} | {' / '.join(f'{v:.4f}' for v in s.cosine)} | "
            f"{'' if exact else ' / '.join(f'{v:.1f}' for v in s.sqnr.mean(0))} | "
            f"{'' if exact else f'{s.sqnr.min():.1f}'} | "
            f"{s.own.mean():+.2f} / {s.own.min():+.2f} | "
            f"{s.probe.mean():+.2f} / {s.probe.min():+.2f} | {s.megabytes:.2f} | "
            f"{'' if s.int8 is None else f'{s.int8:.0%}'} | {s.seconds:.0f} |"
        )
    return "\n".join(lines)


def times_of(rows: Sequence[Row]) -> str:
    """Return a table of times, and of their ratios within rounds."""
    base = {row.specialist: row.round_ms.get(BASE[1]) for row in rows if row.method == BASE[0]}
    ratios: dict[tuple[str, str], list[float]] = {}
    times: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for engine, mine in row.round_ms.items():
            theirs = base[row.specialist]
            assert theirs is not None
            key = row.method, engine
            times.setdefault(key, []).append(float(np.median(mine)))
            ratios.setdefault(key, []).extend(b / a for a, b in zip(mine, theirs, strict=True))
    lines = ["| form | engine | ms | times as fast as ONNX Runtime fp32 |", "|---|---|---|---|"]
    for (method, engine), found in ratios.items():
        ms = np.mean(times[method, engine])
        lines.append(f"| {method} | {FORMS[engine]} | {ms:.2f} | {Spread.of(found)} |")
    return "\n".join(lines)


def timing_of(name: str, round_ms: Sequence[float]) -> Timing:
    """Return a timing of which only the milliseconds count."""
    return Timing(name=name, load_ms=0.0, round_ms=tuple(round_ms), memory_mb=0.0)


def _fastest(times: dict[str, list[float]], method: str, engine: str) -> Timing:
    """Return the faster arrangement of all specialists in an engine."""
    names = [f"{method}, {FORMS[engine]}, {how}" for how in ("turn", "split")]
    return min((timing_of(n, times[n]) for n in names), key=lambda t: t.ms.median)


def ensemble_of(times: dict[str, list[float]]) -> str:
    """Return a table of the ensemble's times in either arrangement."""
    base = _fastest(times, *BASE)
    lines = ["| all specialists | ms | times as fast as ONNX Runtime fp32 |", "|---|---|---|"]
    for name, mine in times.items():
        timing = timing_of(name, mine)
        lines.append(f"| {name} | {timing.ms} | {timing.ratio_to(base)} |")
    return "\n".join(lines)


def goals_of(rows: Sequence[Row], times: dict[str, list[float]]) -> str:
    """Return what was aimed at, what was measured, and whether the two agree."""
    s = summaries(rows)
    auto, half, quarter = s[AUTO], *(s[_pruned_int8(ratio)] for ratio in RATIOS)
    count = len({row.specialist for row in rows})
    lines = [f"| goal | mean of {count} specialists | worst |", "|---|---|---|"]

    def goal(what: str, values: NDArray[np.float64], limit: float, *, least: bool) -> None:
        """Add a line; the values are of specialists, or (specialists, levels)."""
        means = values.mean(0, keepdims=True)
        cells = []
        for some in (means, values):
            value = some.min() if least else some.max()
            kept = value >= limit if least else value <= limit
            cells.append(f"{value:.2f}: {'yes' if kept else 'no'}")
        lines.append(f"| {what} | {cells[0]} | {cells[1]} |")

    goal("own task loses at most 0.3 points", -auto.own, 0.3, least=False)
    goal("the probe loses at most 0.5 points", -auto.probe, 0.5, least=False)
    for peer in (*PEERS, *BUT_STEM):
        what = f"SQNR at least 5 dB above {peer.removeprefix('int8, ')}'s, at every level"
        goal(what, auto.sqnr - s[peer].sqnr, 5.0, least=True)
    apart = np.abs(s[IN_TENSORRT].own - auto.own), np.abs(s[IN_TENSORRT].probe - auto.probe)
    goal("TensorRT's form within 0.5 points of the native, own task", apart[0], 0.5, least=False)
    goal("the same, the probe", apart[1], 0.5, least=False)
    goal("pruned by 0.5 and int8, own task loses at most 0.75", -half.own, 0.75, least=False)
    smaller = _megabytes(rows, WHOLE) / _megabytes(rows, half.method)
    goal("its weights are at least 7 times smaller", smaller, 7.0, least=True)
    goal("pruned by 0.75 and int8, own task loses at most 1.5", -quarter.own, 1.5, least=False)
    if times:
        faster = _fastest(times, half.method, "native").ratio_to(_fastest(times, *BASE))
        kept = "yes" if faster.median >= 10 else "no"
        what = "the ensemble pruned by 0.5 and int8 at least 10 times as fast as ONNX Runtime fp32"
        lines.append(f"| {what} | {faster}: {kept} | |")
    return "\n".join(lines)


def _megabytes(rows: Sequence[Row], method: str) -> NDArray[np.float64]:
    return np.array([row.megabytes for row in rows if row.method == method])


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot every form's changes of accuracy and its worst level, a dot for each specialist."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    found = [s for s in summaries(rows).values() if s.method != WHOLE]
    figure, axes = plt.subplots(1, 3, figsize=(13, 5), sharey=True)
    titles = ("own task, points", "frozen probe, points", "SQNR of the worst level, dB")
    for y, s in enumerate(found):
        for axis, values in zip(axes, (s.own, s.probe, s.sqnr.min(1)), strict=True):
            axis.scatter(values, [y] * len(values), s=14, color="tab:grey")
            axis.scatter(values.mean(), y, marker="D", color="tab:blue")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0].set_yticks(range(len(found)), [s.method for s in found])
    axes[0].invert_yaxis()
    figure.suptitle("INT8 of the specialists: each, and their mean (diamond); no labels")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@dataclass
class Record:
    """The content of benchmarks/results/int8.json.

    Attributes:
        machine, settings: of the last run.
        rows: of all specialists, in the order of TASKS.
        ensemble: milliseconds of rounds, by contender; of ``together``.
        together: the specialists that were timed together.
    """

    machine: dict[str, object]
    settings: dict[str, object]
    rows: list[Row]
    ensemble: dict[str, list[float]]
    together: list[str]

    @classmethod
    def read(cls) -> Record:
        """Read the last one; nothing is in it if there is none."""
        if not RESULTS.exists():
            return cls({}, {}, [], {}, [])
        content = json.loads(RESULTS.read_text())
        return cls(**{**content, "rows": [Row(**row) for row in content["rows"]]})

    def put(self, rows: Sequence[Row]) -> None:
        """Put a specialist's rows instead of those that are there, and write all."""
        mine = {row.specialist for row in rows}
        order = list(TASKS)
        kept = [row for row in self.rows if row.specialist not in mine] + list(rows)
        self.rows = sorted(kept, key=lambda row: order.index(row.specialist))
        self.write()

    def write(self) -> None:
        RESULTS.write_text(json.dumps(asdict(self), indent=1) + "\n")


def run(data: Path, distill: int, names: Sequence[str]) -> None:
    """Measure, and write what was measured after each specialist."""
    record = Record.read()
    record.machine = machine_facts().model_dump(mode="json")
    record.settings = {
        "calibration": f"{IMAGES} chips, or {CROPS} crops, one in {HELD_OUT} held out",
        "distillation_steps": distill,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        done: dict[str, tuple[list[Row], Files]] = {}
        for name in names:
            (folder / name).mkdir()
            done[name] = measure(name, data, distill, folder / name)
            record.put(done[name][0])
        for name, (rows, files) in done.items():
            time_rows(rows, files, folder / name)
            record.put(rows)
        if len(names) >= len(record.together):  # or a part would take the place of the whole
            record.together = list(names)
            record.ensemble = time_ensemble({n: files for n, (_, files) in done.items()}, folder)
            record.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of data sets")
    parser.add_argument("--distill", type=int, default=0, help="steps; 0 leaves that form out")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--recorded", action="store_true", help="show the last run's figures")
    options = parser.parse_args()
    if not options.recorded:
        if options.data is None:
            parser.error("--data is needed, unless --recorded is given")
        run(options.data, options.distill, options.only)
    record = Record.read()
    print(table_of(record.rows), times_of(record.rows), sep="\n\n")
    if record.ensemble:
        print(f"\n{', '.join(record.together)}:\n\n{ensemble_of(record.ensemble)}")
    print(f"\n{goals_of(record.rows, record.ensemble)}\n")
    plot(record.rows, PLOT)
    print(f"all of it is in {RESULTS}, a plot in {PLOT}")


if __name__ == "__main__":
    main()
