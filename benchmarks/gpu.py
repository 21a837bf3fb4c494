"""TensorRT's engines against PyTorch and ONNX Runtime on a GPU, in one run, in alternation.

    python benchmarks/gpu.py ENSEMBLE --scene SCENE [--calibration SCALES] [--target desktop-rtx]

The ensemble is exported and built here as one graph, as a graph for each specialist and as one
graph of stacked specialists, in fp16 and, with a calibration, in int8. Peers: PyTorch eager and
`torch.compile`, both in fp32 and under fp16 autocast, and ONNX Runtime's CUDA provider on the fp32
graph. A run is of one tile, from pinned host memory to pinned host memory (ONNX Runtime: to host
memory), between two CUDA events. Every contender has its turn in each round; ratios are within
rounds. Fidelity is of the tiles that export checked parity on, against PyTorch in fp32. Prints a
table, and writes all of it, with driver and clocks, to benchmarks/results/gpu-NAME.json.

It has never been run: there was no GPU at hand.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.bundle.known_answer import read_known_answer, sqnr_db
from eosfm_edge.engines.cuda import checked, cuda_runtime, find_gpu
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.bundle import MODEL_NAME, Layout, read_manifest
from eosfm_edge.formats.precision import Precision
from eosfm_edge.runtime.backends import open_context
from eosfm_edge.runtime.bench import Spread, machine_facts
from eosfm_edge.runtime.tensorrt import open_tensorrt

HERE = Path(__file__).parent
LAYOUTS: tuple[Layout, ...] = ("whole", "split", "stacked")
WARM_UP = 20
RUNS = 20  # in a round

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Contender:
    """A contender: a name, and a run of one image from host to host."""

    name: str
    run: Callable[[], Sequence[Any]]


def bundles(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """Export and build every form of the ensemble; gives names and bundles."""
    precisions: list[Precision] = ["fp32", "fp16"]
    if arguments.calibration:
        precisions.append("int8")
    for precision in precisions:
        for layout in LAYOUTS:
            bundle = folder / f"{precision}-{layout}.eosfm"
            options = ee.ExportOptions(
                target=arguments.target,
                data=arguments.scene,
                precision=precision,
                calibration=arguments.calibration,
                split=layout == "split",
                stack=layout == "stacked",
            )
            ee.export(arguments.ensemble, bundle, options)
            ee.build(bundle)  # what export has not built already
            yield f"TensorRT {precision}, {layout}", bundle


def torch_contenders(ensemble: Path, image: FloatArray) -> Iterator[Contender]:
    """Give PyTorch's contenders, each with a chain of its own."""
    pinned = torch.from_numpy(image).pin_memory()

    def contender(name: str, compiled: bool, half: bool) -> Contender:
        chain = Chain(load_ensemble(ensemble)).cuda()
        module: Any = torch.compile(chain, mode="max-autotune") if compiled else chain

        def run() -> list[torch.Tensor]:
            precision: AbstractContextManager[Any] = nullcontext()
            if half:
                precision = torch.autocast("cuda", torch.float16)
            with torch.inference_mode(), precision:
                levels = module(pinned.cuda(non_blocking=True))
                return [level.float().to("cpu", non_blocking=True) for level in levels]

        return Contender(name, run)

    yield contender("torch eager fp32", compiled=False, half=False)
    yield contender("torch eager fp16", compiled=False, half=True)
    yield contender("torch.compile fp32", compiled=True, half=False)
    yield contender("torch.compile fp16", compiled=True, half=True)


def time_all(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Return each contender's median milliseconds of every round."""
    cuda = cuda_runtime()
    start, stop = checked(cuda, cuda.cudaEventCreate()), checked(cuda, cuda.cudaEventCreate())

    def once(contender: Contender) -> float:
        # On the legacy stream, which waits for all others that are not told to ignore it, and
        # which they wait for.
        checked(cuda, cuda.cudaEventRecord(start, 0))
        contender.run()
        checked(cuda, cuda.cudaEventRecord(stop, 0))
        checked(cuda, cuda.cudaEventSynchronize(stop))
        return float(checked(cuda, cuda.cudaEventElapsedTime(start, stop)))

    for contender in contenders:
        for _ in range(WARM_UP):
            once(contender)
    found: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
        for contender in contenders:
            times = [once(contender) for _ in range(RUNS)]
            found[contender.name].append(statistics.median(times))
    return found


def fidelity(levels: Sequence[Any], expected: Sequence[FloatArray]) -> list[float]:
    """Return each level's signal to noise ratio in decibels."""
    torch.cuda.synchronize()
    return [
        sqnr_db(np.asarray(level), reference)
        for level, reference in zip(levels, expected, strict=True)
    ]


def gpu_facts() -> dict[str, Any]:
    """Return the GPU, its driver and its clocks."""
    fields = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,pstate"
    command = ("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader")
    try:
        values = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # a Jetson has no nvidia-smi
        return asdict(find_gpu())
    first = values.splitlines()[0].split(", ")
    return {**asdict(find_gpu()), **dict(zip(fields.split(","), first, strict=True))}


def show(times: Mapping[str, Sequence[float]], decibels: Mapping[str, Sequence[float]]) -> None:
    """Print the table; ratios are to the first contender."""
    first = next(iter(times))
    table = Table("", "ms", f"times as fast as {first}", "dB of levels 1 to 4", box=None)
    for name, mine in times.items():
        ratios = [b / a for a, b in zip(mine, times[first], strict=True)]
        signal = " / ".join(f"{level:.0f}" for level in decibels[name])
        table.add_row(name, str(Spread.of(mine)), str(Spread.of(ratios)), signal)
    Console().print(table)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ensemble", type=Path)
    parser.add_argument("--scene", type=Path, required=True)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--target", default="desktop-rtx")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    gpu = find_gpu()
    with tempfile.TemporaryDirectory() as folder:
        built = dict(bundles(arguments, Path(folder)))
        first = next(iter(built.values()))
        manifest = read_manifest(first)
        answer = read_known_answer(first, manifest)
        contenders = list(torch_contenders(arguments.ensemble, answer.image))
        peer, bands = open_context(first, manifest, ["onnxruntime-cuda"]), list(answer.image[0])
        name = f"ONNX Runtime CUDA fp32, {MODEL_NAME}"
        contenders.append(Contender(name, lambda: [level[None] for level in peer.run(bands)]))
        for name, bundle in built.items():
            engine = open_tensorrt(bundle, read_manifest(bundle))
            contenders.append(Contender(name, lambda engine=engine: engine.run(answer.image)))
        decibels = {one.name: fidelity(one.run(), answer.levels) for one in contenders}
        times = time_all(contenders, arguments.rounds)
    show(times, decibels)
    record = {
        "machine": machine_facts(),
        "gpu": gpu_facts(),
        "ensemble": str(arguments.ensemble),
        "target": arguments.target,
        "round_ms": times,
        "sqnr_db": decibels,
    }
    path = HERE / "results" / f"gpu-{re.sub(r'[^a-z0-9]+', '-', gpu.name.lower())}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
