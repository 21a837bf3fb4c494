"""The CUDA engine on a machine with a GPU: right first, then timed.

    python benchmarks/cuda_engine.py prepare FOLDER BUNDLE
    PYTHONPATH=FOLDER python FOLDER/cuda_engine.py measure FOLDER/bundle --json gpu.json

`prepare` copies what `measure` needs into one folder: libeosfm with its CUDA engine, their
binding, this script and a bundle. It takes them from the installed package, or EOSFM_LIBRARY, so
they must be built with EOSFM_NVRTC (docs/cuda.md). The GPU's machine needs a driver, Python and
numpy, and no network.

`measure` checks the known answer in half precision (int8 where the bundle has it) and in float32,
at batches of 1, 4 and 16, and how far each level is from the CPU engine's. Then contenders take
turns, a round each: one image from the host's memory to the host's memory, and a row of tiles as a
stream. Times are medians and quartiles of rounds, in ms an image. Prints them, and writes them
with GPU, driver and clocks.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import eosfm_edge
from eosfm_edge.native import header
from eosfm_edge.native.binding import Context, Model
from eosfm_edge.native.stream import Stream, StreamBand

MOST_BYTES = 60 << 20
BATCHES = (1, 4, 16)
ENGINES = ("cuda", "cuda-fp32")
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
    shutil.copy2(__file__, folder)
    (folder / "bundle" / "specialists").mkdir(parents=True)
    shutil.copy2(bundle / "chain.gguf", folder / "bundle")
    for file in (bundle / "specialists").glob("*.gguf"):
        shutil.copy2(file, folder / "bundle" / "specialists")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > MOST_BYTES:
        raise SystemExit(f"{folder} has {size >> 20} MB, expected at most {MOST_BYTES >> 20}")
    print(f"{folder}: {size / 1e6:.1f} MB")


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
        for block in stream.blocks(feed):
            tiles = block.tiles
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


def measure(bundle: Path, rounds: int, tiles: int) -> dict[str, Any]:
    """Check and time all engines and batches."""
    model = Model(bundle)
    info = model.describe()
    image = image_of(model, info.tile, info.tile)
    scene = image_of(model, info.tile, tiles * info.tile)
    native = model.context(backends="native")
    expected = native.run(image)

    def single(context: Context) -> Callable[[], int]:
        def run() -> int:
            context.run(image)
            return 1

        return run

    checks: dict[str, Any] = {}
    images = {"native": single(native)}
    streams: dict[str, Callable[[], int]] = {}
    for engine in ENGINES:
        for batch in BATCHES:
            name = f"{engine} batch {batch}"
            context = model.context(backends=engine, batch=batch)
            checks[name] = check(context, image, expected)
            print(f"{name}: known answer {checks[name]['known_answer']}, dB {checks[name]['db']}")
            if engine == "cuda":
                streams[name] = stream_of(context, scene)
                if batch == 1:
                    images["cuda"] = single(context)
    facts = {"gpu": gpu_facts(), "processor": platform.processor(), "isa": info.isa.decode()}
    return {
        **facts, "bundle": info.name.decode(), "tile": info.tile, "checks": checks,
        "ms_image": timed(images, rounds), "ms_tile_streamed": timed(streams, rounds),
    }  # fmt: skip


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
    found = measure(given.bundle, given.rounds, given.tiles)
    for what in ("ms_image", "ms_tile_streamed"):
        for name, spread in found[what].items():
            quartiles = f"({spread['lower']:.3f} to {spread['upper']:.3f})"
            print(f"{what} {name}: {spread['median']:.3f} {quartiles}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
