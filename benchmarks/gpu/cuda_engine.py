"""The CUDA engine on a machine with a GPU: right first, then timed, beside PyTorch.

    python benchmarks/gpu/cuda_engine.py prepare FOLDER BUNDLE
    PYTHONPATH=FOLDER python FOLDER/cuda_engine.py measure FOLDER/bundle --json gpu.json

`prepare` copies what `measure` needs into one folder: libeosfm with its CUDA engine, their
binding, these scripts and a bundle. It takes them from the installed package, or EOSFM_LIBRARY, so
they must be built with EOSFM_NVRTC (docs/cuda.md). The GPU's machine needs a driver, Python and
numpy, and no network; PyTorch is used if it is there.

`measure`, in this order, so that what is most wanted is there if time runs out:

1. checks the known answer in half precision (int8 where the bundle has it) and in float32, at
   batches of 1, 4 and 16, and how far each level is from the CPU engine's;
2. runs `compute-sanitizer` over one image, if it is there;
3. replays CUDA graphs of 30 and 523 empty kernels: the launches alone, of this engine and of
   TensorRT-RTX's for the demo's bundle;
4. lets contenders take turns: one image from the host's memory to the host's memory, and a row of
   tiles as a stream; PyTorch eager and as CUDA graph are among them;
5. times single kernels by CUPTI, through PyTorch's profiler;
6. lets `torch.compile` (max-autotune) take turns with this engine, after minutes of compiling.

Times are medians and quartiles of rounds, in ms an image, with the GPU's roofline beside them and
what that says of an Orin Nano. All is printed, and written after each step.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from driver import Driver
from numpy.typing import NDArray
from roofline import BOARDS, ORIN_NANO, Work, board_of, estimate_ms, floor_ms

import eosfm_edge
from eosfm_edge.native import header
from eosfm_edge.native.binding import Context, Model
from eosfm_edge.native.stream import Stream, StreamBand

MOST_BYTES = 60 << 20
BATCHES = (1, 4, 16)
ENGINES = ("cuda", "cuda-fp32")
SCRIPTS = ("cuda_engine.py", "driver.py", "roofline.py", "torch_peers.py")
EMPTY_NODES = (30, 523)
QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"

Array = NDArray[np.float32]


def prepare(folder: Path, bundle: Path) -> None:
    """Copy what `measure` needs into a new folder."""
    library = Path(header.library_path())
    engine = library.with_name("libeosfm_cuda.so")
    if not engine.is_file():
        raise SystemExit(
            f"{engine} is not there; expected the CUDA engine beside {library.name}\n"
            "fix: build it with EOSFM_NVRTC, as docs/cuda.md says"
        )
    package, native = Path(eosfm_edge.__file__).parent, Path(header.__file__).parent
    target = folder / "eosfm_edge" / "native"
    folder.mkdir(parents=True)
    shutil.copytree(native, target, ignore=shutil.ignore_patterns("__pycache__", "lib"))
    for name in ("__init__.py", "errors.py", "text.py"):
        shutil.copy2(package / name, folder / "eosfm_edge")
    (target / "lib").mkdir()
    shutil.copy2(library, target / "lib" / "libeosfm.so")
    shutil.copy2(engine, target / "lib")
    for script in SCRIPTS:
        shutil.copy2(Path(__file__).with_name(script), folder)
    (folder / "bundle" / "specialists").mkdir(parents=True)
    shutil.copy2(bundle / "chain.gguf", folder / "bundle")
    for file in (bundle / "specialists").glob("*.gguf"):
        shutil.copy2(file, folder / "bundle" / "specialists")
    (folder / "bundle" / "networks.json").write_text(json.dumps(described(bundle)))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        raise SystemExit(f"{folder} has {size >> 20} MB, expected at most {MOST_BYTES >> 20}")
    print(f"{folder}: {size / 1e6:.1f} MB")


def described(bundle: Path) -> dict[str, Any]:
    """Return the shapes of a bundle's specialists, the bands of their runs, and the precision."""
    from eosfm_edge.native.gguf import read_gguf

    chain = read_gguf(bundle / "chain.gguf").values
    networks, precision = [], "fp16"
    for file in chain["eosfm.specialists.files"]:
        content = read_gguf(bundle / file)
        if any(tensor.dtype == np.int8 for tensor in content.tensors.values()):
            precision = "int8"
        shape = {name: content.values[f"eosfm.{name}"] for name in ("depths", "widths", "hidden")}
        networks.append({"runs": [], **shape})
    bands = iter(chain["eosfm.runs.bands"])
    for owner, length in zip(
        chain["eosfm.runs.specialists"], chain["eosfm.runs.lengths"], strict=True
    ):
        networks[owner]["runs"].append([next(bands) for _ in range(length)])
    return {"precision": precision, "networks": networks}


def work_of(networks: list[dict[str, Any]], info: Any, precision: str) -> Work:
    """Return what an image takes: the specialists' convolutions and matmuls, without fusion."""
    macs = weights = 0
    for network in networks:
        hidden, before = iter(network["hidden"]), 0
        for stage, (depth, width) in enumerate(
            zip(network["depths"], network["widths"], strict=True)
        ):
            cells = (info.tile // (4 << stage)) ** 2
            first = 4 * before * width if stage else 16 * len(network["runs"][0]) * width
            own = first + sum((49 + 2 * next(hidden)) * width for _ in range(depth))
            macs += own * cells * len(network["runs"])
            weights, before = weights + own, width
    levels = sum(info.channels[level] * (info.tile // (4 << level)) ** 2 for level in range(4))
    size = 1 if precision == "int8" else 2
    return Work(macs, weights * size, 4 * (info.bands * info.tile**2 + levels))


def image_of(model: Model, height: int, width: int) -> list[Array]:
    """Return stored values whose physical ones are of normal distribution."""
    rng = np.random.default_rng(0)
    bands = []
    for b in range(model.describe().bands):
        band = model.band(b)
        values = (rng.standard_normal((height, width)) - band.offset) / band.scale
        bands.append(values.astype(np.float32))
    return bands


def decibels(expected: Array, got: Array) -> float:
    """Return the signal-to-noise ratio in dB."""
    noise = float(np.square(got.astype(np.float64) - expected).sum())
    signal = float(np.square(expected.astype(np.float64)).sum())
    return 10 * float(np.log10(signal / noise)) if noise > 0 else 999.0


def check(context: Context, image: list[Array], expected: list[Array]) -> dict[str, Any]:
    """Return the known answer's errors and each level's distance from the CPU engine's."""
    holds, worst = context.verify()
    got = context.run(image)
    fidelity = [decibels(one, other) for one, other in zip(expected, got, strict=True)]
    return {"known_answer": holds, "worst": worst, "db": fidelity}


def stream_of(context: Context, scene: list[Array]) -> Callable[[], int]:
    """Return a run of the scene as a stream, which returns its tiles."""

    def run() -> int:
        bands = [StreamBand(np.dtype(np.float32))] * len(scene)
        stream = Stream(context, scene[0].shape[1], bands, overlap=0)
        rows = [0]

        def feed() -> bool:
            if rows[0] == len(scene[0]):
                return False
            taken = [stream.push_rows(b, band[rows[0] :]) for b, band in enumerate(scene)]
            rows[0] += min(taken)
            return True

        tiles = 0
        for patch in stream.patches(feed):
            tiles = patch.tiles
        stream.close()
        return tiles

    return run


def timed(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, dict[str, float]]:
    """Let contenders, which return how many images they ran, take turns; returns ms an image."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, run in contenders.items():
            began = time.perf_counter()
            images = run()
            if turn >= 2:  # the first two warm up
                times[name].append((time.perf_counter() - began) / images * 1e3)
    found = {}
    for name, all_times in times.items():
        low, middle, high = statistics.quantiles(all_times, n=4, method="inclusive")
        found[name] = {"median": middle, "lower": low, "upper": high}
    return found


def gpu_facts() -> dict[str, str]:
    """Return the GPU, its driver and its clocks, as nvidia-smi says; nothing without it."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(QUERY.split(","), done.stdout.splitlines()[0].split(", "), strict=True))


def sanitised(bundle: Path) -> str:
    """Return what compute-sanitizer says of one image, or that it is not there."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(program).exists():
        return "not there"
    code = (
        "from pathlib import Path; from cuda_engine import *; model = Model(Path(sys.argv[1]));"
        "tile = model.describe().tile;"
        "model.context(backends='cuda', batch=1).run(image_of(model, tile, tile))"
    )
    done = subprocess.run(
        [program, "--error-exitcode", "9", sys.executable, "-c", code, str(bundle)],
        env={**os.environ, "PYTHONPATH": f"{bundle.parent}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    last = (done.stdout + done.stderr).strip().splitlines()[-1:]
    return f"exit {done.returncode}: {' '.join(last)}"


def launches_alone() -> dict[str, float | str]:
    """Return the milliseconds in which graphs of empty kernels replay."""
    driver = Driver()
    with driver.context():
        return {f"{nodes} empty kernels": driver.replay_ms(nodes, 50) for nodes in EMPTY_NODES}


def torch_there() -> str:
    """Return PyTorch's version, or why there are no peers and no times of single kernels."""
    if importlib.util.find_spec("torch") is None:
        return "none: it is not installed"
    import torch

    return torch.__version__ if torch.cuda.is_available() else "none: it sees no GPU"


class Measurement:
    """All steps on one bundle; what is found is written after each."""

    def __init__(self, bundle: Path, rounds: int, tiles: int, written: Path | None) -> None:
        self.bundle, self.rounds, self.written = bundle, rounds, written
        self.model = Model(bundle)
        self.info = self.model.describe()
        shapes = json.loads((bundle / "networks.json").read_text())
        self.networks, self.precision = shapes["networks"], shapes["precision"]
        side = self.info.tile
        self.image = image_of(self.model, side, side)
        self.scene = image_of(self.model, side, tiles * side)
        self.contexts = {
            f"{engine} batch {batch}": self.model.context(backends=engine, batch=batch)
            for engine in ENGINES
            for batch in BATCHES
        }
        self.native = self.model.context(backends="native")
        self.found: dict[str, Any] = {
            "gpu": gpu_facts(), "processor": platform.processor(),
            "isa": self.info.isa.decode(), "bundle": self.info.name.decode(), "tile": side,
        }  # fmt: skip

    def keep(self, what: str, value: Any) -> None:
        """Print a step's result, and write all so far."""
        self.found[what] = value
        print(f"{what}: {json.dumps(value, indent=1)}", flush=True)
        if self.written:
            self.written.write_text(json.dumps(self.found, indent=1) + "\n")

    def single(self, context: Context) -> Callable[[], int]:
        """Return a run of one image."""

        def run() -> int:
            context.run(self.image)
            return 1

        return run

    def all(self) -> None:
        """Take the steps in order; the first fails the rest, the others say why they failed."""
        expected = self.native.run(self.image)
        checks = {n: check(c, self.image, expected) for n, c in self.contexts.items()}
        self.keep("checks", checks)
        self.attempt("compute_sanitizer", lambda: sanitised(self.bundle))
        self.attempt("launches_ms", launches_alone)
        self.keep("torch", torch_there())
        has_torch = not self.found["torch"].startswith("none")
        self.attempt("ms_image", lambda: self.images(("eager", "CUDA graph") if has_torch else ()))
        streams = {
            name: stream_of(context, self.scene)
            for name, context in self.contexts.items()
            if name.startswith("cuda batch")
        }
        self.attempt("ms_tile_streamed", lambda: timed(streams, self.rounds))
        self.attempt("roofline", self.roofline)
        if has_torch:
            self.attempt("kernels", self.kernels)
            self.attempt("ms_image_compiled", lambda: self.images(("torch.compile",)))

    def attempt(self, what: str, step: Callable[[], Any]) -> None:
        """Take a step whose failure is no reason to leave out those after it."""
        try:
            self.keep(what, step())
        except Exception as error:
            self.keep(what, f"failed: {type(error).__name__}: {error}")

    def images(self, modes: tuple[str, ...]) -> dict[str, Any]:
        """Time one image from host to host, beside PyTorch's ways."""
        contenders = {"native": self.single(self.native)}
        contenders["cuda"] = self.single(self.contexts["cuda batch 1"])
        return timed(contenders | (self.peers(modes) if modes else {}), self.rounds)

    def peers(self, modes: tuple[str, ...]) -> dict[str, Callable[[], int]]:
        """Return PyTorch's ways, at every batch."""
        from torch_peers import Network, peers

        networks = [Network(**one) for one in self.networks]
        found: dict[str, Callable[[], int]] = {}
        for batch in BATCHES:
            channels = list(self.info.channels)
            for peer in peers(networks, channels, self.info.bands, self.info.tile, batch, modes):

                def run(peer: Any = peer, batch: int = batch) -> int:
                    peer.run()
                    return batch

                found[peer.name] = run
        return found

    def kernels(self) -> dict[str, Any]:
        """Time single kernels of one image."""
        from torch_peers import kernel_ms

        return kernel_ms(self.single(self.contexts["cuda batch 1"]))

    def roofline(self) -> dict[str, Any]:
        """Return the least times, and an estimate for the Orin Nano where this GPU is known."""
        work, batch = work_of(self.networks, self.info, self.precision), BATCHES[-1]
        floors = {n: floor_ms(board, work, self.precision, batch) for n, board in BOARDS.items()}
        found = {"precision": self.precision, "macs": work.macs, "batch": batch, "floor_ms": floors}
        here = board_of(self.found["gpu"].get("name", ""))
        if here and isinstance(self.found["ms_tile_streamed"], dict):
            measured = self.found["ms_tile_streamed"][f"cuda batch {batch}"]["median"]
            found[f"estimate for {ORIN_NANO}, ms"] = estimate_ms(
                measured, here, BOARDS[ORIN_NANO], work, self.precision, batch
            )
        return found


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("prepare")
    one.add_argument("folder", type=Path)
    one.add_argument("bundle", type=Path)
    one = verbs.add_parser("measure")
    one.add_argument("bundle", type=Path)
    one.add_argument("--rounds", type=int, default=50)
    one.add_argument("--tiles", type=int, default=64, help="of the scene that streams")
    one.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.verb == "prepare":
        prepare(given.folder, given.bundle)
        return
    Measurement(given.bundle, given.rounds, given.tiles, given.json).all()


if __name__ == "__main__":
    main()
