"""Measure what pruning leaves of the six specialists, with no label seen.

    python benchmarks/fidelity.py --data DATA [--steps 120] [--only NAME ...]
    python benchmarks/fidelity.py --recorded

DATA is the folder of data sets that examples/specialists/tasks.py describes. Methods:
Torch-Pruning, ours without repair, with GRN's mean compensated, with fc2 solved in closed form,
with self-distillation after that; ratios are shares of the multiply-accumulates. At ratio 0.9
hidden channels are not enough: there the residual width is pruned too, and the levels are brought
back to their channels by a 1x1 convolution, solved in closed form and counted.

Calibration images are of the training split, without labels; accuracies, cosines and signal to
noise ratios are of the test split, which they do not overlap. The probe is fitted on the original
features and applied unchanged. Latency is of the native engine, fp32, one specialist, 224 x 224
pixels, all cores, in turn, in one process, after all else.

Writes benchmarks/results/fidelity.json, and plots it to docs/pruning.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from probe import TASKS, Probe, chips_of, crops_of, test_batches
from specialist import load, score
from tasks import Chips, Task
from torch import Tensor, nn
from torch_pruning_peer import prune_by_macs

from eosfm_edge.ensemble.model import Ensemble, build_from_state
from eosfm_edge.ensemble.specialist import view_of
from eosfm_edge.ensemble.view import Cost
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import (
    EnsembleSpec,
    InputBand,
    Provenance,
    SelectionSpec,
    SpecialistSpec,
)
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network.batches import in_batches
from eosfm_edge.network.fidelity import compare
from eosfm_edge.network.latency import footprints
from eosfm_edge.network.regression import ridge_regression
from eosfm_edge.network.steps import as_rows
from eosfm_edge.pruning.encoder import Study, carry_out, kept_widths, study
from eosfm_edge.runtime.bench import machine_facts

HERE = Path(__file__).parent
SPECIALISTS = HERE.parent / "examples" / "specialists"
RESULTS = HERE / "results" / "fidelity.json"
PLOT = HERE.parent / "docs" / "pruning.png"
RATIOS = (0.25, 0.5, 0.75)
NARROW = 0.9
METHODS = ("Torch-Pruning", "ours, no repair", "+ GRN", "+ closed form", "+ distillation")
CHIPS = 1024  # for calibration
CROPS, CROP = 256, 128  # the same of regions, whose tests are large images
COMPARED = 512  # images that features are compared on, at most
TILE = 224  # of the timed image


@dataclass
class Row:
    """One pruned specialist."""

    specialist: str
    ratio: float
    method: str
    macs: float  # for one pixel
    params: int
    megabytes: float
    ms: float
    ms_spread: tuple[float, float]
    faster: float  # than the original, in the same run
    cosine: list[float]
    sqnr_db: list[float | None]
    accuracy: float
    probe: float
    seconds: float  # of pruning


class Widened(nn.Module):
    """A narrowed encoder, and 1x1 convolutions back to the channels of the levels."""

    def __init__(self, encoder: nn.Module, original: nn.Module, tiles: Sequence[Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        widths = view_of(encoder).shape.widths
        self.back = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(widths, view_of(original).shape.widths, strict=True)
        )
        batches = in_batches(tiles)
        with torch.inference_mode():
            for level, layer in enumerate(self.back):
                pairs = self._pairs(level, original, batches)
                weight, bias = ridge_regression(pairs, torch.zeros(layer.weight.shape[:2]))
                layer.weight.copy_(weight[:, :, None, None])
                layer.bias.copy_(bias)

    def _pairs(
        self, level: int, original: nn.Module, batches: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for x in batches:
            mine, target = self.encoder(x)[level], original(x)[level]
            yield as_rows(mine, last=False), as_rows(target, last=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(f) for layer, f in zip(self.back, self.encoder(x), strict=True)]

    @property
    def extra(self) -> Cost:
        """Return the cost of the repair."""
        macs = sum(p.weight.numel() / 4 ** (2 + i) for i, p in enumerate(self.back))
        return Cost(macs, sum(p.numel() for p in self.back.parameters()))


def calibration(task: Task, seed: int) -> list[Tensor]:
    """Return images of the training split, without labels."""
    if isinstance(task.train, Chips):
        order = np.random.default_rng(seed).permutation(len(task.train.images))[:CHIPS]
        return list(chips_of(task.train, order))
    return list(crops_of(task.train, CROPS, seed, CROP)[0])


def pruned(
    encoder: nn.Module, tiles: list[Tensor], studies: dict[str, Study], steps: int
) -> Iterator[tuple[float, str, Callable[[], nn.Module]]]:
    """Give every method at every ratio, to be made when it is asked for."""
    for ratio in RATIOS:
        yield ratio, METHODS[0], lambda ratio=ratio: prune_by_macs(encoder, ratio)
        for method, (grn, fc2, count) in zip(
            METHODS[1:],
            [(False, False, 0), (True, False, 0), (True, True, 0), (True, True, steps)],
            strict=True,
        ):
            recipe = Recipe(repair_grn=grn, repair_fc2=fc2, distill=count)
            groups = studies["hidden"].plan(ratio, recipe)
            yield (
                ratio,
                method,
                lambda g=groups, r=recipe: carry_out(encoder, g, tiles, r),
            )
    for method, count in ((METHODS[3], 0), (METHODS[4], steps)):
        recipe = Recipe(scope="width", distill=count)
        groups = studies["width"].plan(NARROW, recipe)
        assert any(kept is not None for kept in kept_widths(view_of(encoder).shape, groups))
        yield (
            NARROW,
            method,
            lambda g=groups, r=recipe: Widened(carry_out(encoder, g, tiles, r), encoder, tiles),
        )


def alone(encoder: nn.Module, backbone: str) -> Ensemble:
    """Return an encoder as an ensemble of one, for the native engine."""
    view = view_of(encoder)
    one = SpecialistSpec(
        name="one",
        backbone=backbone,
        bands=(Band(),) * view.bands,
        weights="one.safetensors",
        weights_sha256="0" * 64,
        provenance=Provenance(source="benchmark"),
        shape=view.shape,
    )
    spec = EnsembleSpec(
        name="one",
        input=(InputBand(),) * view.bands,
        specialists=(one,),
        adaptation="count",
        normalisation="none",
        projection=False,
        selection=SelectionSpec(),
        fusion="none",
        shared_sha256="0" * 64,
    )
    return build_from_state(spec, {f"encoders.0.{k}": v for k, v in encoder.state_dict().items()})


def measure(name: str, data: Path, steps: int) -> tuple[list[Row], list[nn.Module]]:
    """Prune one specialist in every way; nothing is timed yet."""
    task = TASKS[name](data)
    model = load(task, SPECIALISTS / name)
    encoder = model.encoder.requires_grad_(False)
    tiles = calibration(task, seed=0)
    test = next(iter(task.tests.values()))
    images = [batch for batch, _ in test_batches(task)]
    images = images[:: max(1, sum(map(len, images)) // COMPARED)]
    probe = Probe(encoder, task)
    studies = {s: study(encoder, tiles, Recipe(scope=s)) for s in ("hidden", "width")}

    def row(ratio: float, method: str, network: nn.Module, seconds: float) -> Row:
        inner = network.encoder if isinstance(network, Widened) else network
        cost = view_of(inner).cost
        cost += network.extra if isinstance(network, Widened) else Cost(0.0, 0)
        levels = compare(encoder, network, images)
        model.encoder = network
        accuracy = score(model, test)["accuracy"]
        model.encoder = encoder
        sqnr = [level.sqnr_db if np.isfinite(level.sqnr_db) else None for level in levels]
        return Row(
            name, ratio, method, cost.macs, cost.params, 0.0, 0.0, (0.0, 0.0), 1.0,
            [level.cosine for level in levels], sqnr, accuracy, probe.accuracy(network, task),
            seconds,
        )  # fmt: skip

    rows, networks = [row(0.0, "original", encoder, 0.0)], [encoder]
    for ratio, method, make in pruned(encoder, tiles, studies, steps):
        started = time.monotonic()
        network = make()
        rows.append(row(ratio, method, network, time.monotonic() - started))
        networks.append(network.encoder if isinstance(network, Widened) else network)
        one = rows[-1]
        print(
            f"{name} {ratio} {method}: own {one.accuracy:.1f} probe {one.probe:.1f} "
            f"SQNR {' '.join(f'{v:.1f}' for v in one.sqnr_db)} ({one.seconds:.0f} s)",
            flush=True,
        )
    return rows, networks


def time_rows(rows: Sequence[Row], networks: Sequence[nn.Module]) -> None:
    """Time one specialist's networks in turn, on an image of noise: time does not depend on it."""
    bands = networks[0].get_parameter("stem_0.weight").shape[1]
    image = torch.rand(bands, TILE, TILE, generator=torch.Generator().manual_seed(0))
    found = footprints([alone(n, "convnextv2_atto") for n in networks], image, "fp32")
    for one, footprint in zip(rows, found, strict=True):
        one.ms, one.megabytes = footprint.ms, footprint.megabytes
        one.ms_spread = footprint.low_ms, footprint.high_ms
        one.faster = found[0].ms / footprint.ms


@dataclass(frozen=True)
class Summary:
    """One ratio and method over all specialists: means, and the worst."""

    ratio: float
    method: str
    macs: float
    params: float
    megabytes: float
    faster: float
    cosine: NDArray[np.float64]
    sqnr: NDArray[np.float64]
    least_sqnr: float
    own: NDArray[np.float64]  # changes in points, by specialist
    probe: NDArray[np.float64]


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """Summarise rows in the order of the first specialist's."""
    whole = {row.specialist: row for row in rows if row.ratio == 0}
    found = []
    for ratio, method in dict.fromkeys((row.ratio, row.method) for row in rows if row.ratio):
        group = [row for row in rows if (row.ratio, row.method) == (ratio, method)]
        base = [whole[row.specialist] for row in group]
        sqnr = np.array([row.sqnr_db for row in group], float)

        found.append(
            Summary(
                ratio,
                method,
                _share(group, base, "macs"),
                _share(group, base, "params"),
                float(np.mean([row.megabytes for row in group])),
                float(np.median([row.faster for row in group])),
                np.mean([row.cosine for row in group], axis=0),
                sqnr.mean(0),
                float(sqnr.min()),
                _change(group, base, "accuracy"),
                _change(group, base, "probe"),
            )
        )
    return found


def _change(group: list[Row], base: list[Row], what: str) -> NDArray[np.float64]:
    return np.array([getattr(a, what) - getattr(b, what) for a, b in zip(group, base, strict=True)])


def _share(group: list[Row], base: list[Row], what: str) -> float:
    pairs = zip(group, base, strict=True)
    return float(np.mean([getattr(a, what) / getattr(b, what) for a, b in pairs]))


def table_of(rows: Sequence[Row]) -> str:
    """Return the summaries as a Markdown table."""
    lines = [
        "| ratio | method | MACs | parameters | MB | times as fast | cosine, level 1 … 4 | "
        "SQNR dB, level 1 … 4 | least | own task: mean / worst | probe: mean / worst |",
        "|" + "---|" * 11,
    ]
    for s in summaries(rows):
        lines.append(
            f"| {s.ratio:g} | {s.method} | {s.macs:.2f} | {s.params:.2f} | {s.megabytes:.1f} | "
            f"{s.faster:.2f} | {' / '.join(f'{v:.4f}' for v in s.cosine)} | "
            f"{' / '.join(f'{v:.1f}' for v in s.sqnr)} | {s.least_sqnr:.1f} | "
            f"{s.own.mean():+.2f} / {s.own.min():+.2f} | "
            f"{s.probe.mean():+.2f} / {s.probe.min():+.2f} |"
        )
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plot the mean loss of accuracy, and the mean signal to noise of the worst level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    titles = ("own task, points", "frozen probe, points", "SQNR of the worst level, dB")
    for method in METHODS:
        mine = [s for s in summaries(rows) if s.method == method and s.ratio != NARROW]
        curves = (
            [s.own.mean() for s in mine],
            [s.probe.mean() for s in mine],
            [s.sqnr.min() for s in mine],
        )
        for axis, curve in zip(axes, curves, strict=True):
            axis.plot([s.macs for s in mine], curve, marker="o", label=method)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("multiply-accumulates left")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("Six specialists, mean change; no labels")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def recorded() -> list[Row]:
    """Read the rows of the last run."""
    return [Row(**row) for row in json.loads(RESULTS.read_text())["rows"]]


def run(data: Path, steps: int, names: Sequence[str]) -> None:
    """Measure, and write what was measured."""
    done = [measure(name, data, steps) for name in names]
    for mine, networks in done:
        time_rows(mine, networks)
    content = {
        "machine": machine_facts().model_dump(mode="json"),
        "distillation_steps": steps,
        "calibration": f"{CHIPS} chips, or {CROPS} crops of {CROP} x {CROP}",
        "rows": [asdict(row) for mine, _ in done for row in mine],
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of data sets")
    parser.add_argument("--steps", type=int, default=120, help="of distillation")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--recorded", action="store_true", help="show the last run's figures")
    options = parser.parse_args()
    if not options.recorded:
        if options.data is None:
            parser.error("--data is needed, unless --recorded is given")
        run(options.data, options.steps, options.only)
    rows = recorded()
    print(table_of(rows))
    plot(rows, PLOT)
    print(f"all of it is in {RESULTS}, a plot in {PLOT}")


if __name__ == "__main__":
    main()
