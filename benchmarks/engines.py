"""The native engine against ONNX Runtime and OpenVINO, in one run, in alternation.

    python benchmarks/engines.py --scene SCENE [--rounds 30]

Two cases: one ConvNeXtV2-Atto of 12 bands (landcover_l2a), 224 x 224 pixels, one thread; and the
demo's ensemble of 13 bands on two threads, where peers may take one graph or one for each run of a
specialist. Every contender has a process of its own. Prints tables, and writes all of it to
benchmarks/results/engines-PROCESSOR-PATH.json.

INT8 of the peers: ONNX Runtime's quantize_static on 12 tiles of the scene, u8 activations and s8
weights per channel, the fastest form there is for its CPU provider; OpenVINO runs the same file.
SNR is of a tile that no scale was made from, against PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from engine_worker import load_all
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

import eosfm_edge as ee
from eosfm_edge.bundle.known_answer import sqnr_db
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.model import physical_units
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.exporting.onnx import INPUT_NAME, write_onnx
from eosfm_edge.formats.bench import Timing
from eosfm_edge.native.binding import Model
from eosfm_edge.runtime.bench import Contender, alternate, machine_facts
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import open_scene

HERE = Path(__file__).parent
SPECIALISTS = HERE.parent / "examples" / "specialists"
DEMO = ("eurosat_rgb", "mining_rgb", "landuse_s2", "landcover_l2a", "landcover_sar", "clouds_6band")
TILE = 224
S2_L2A_INPUT = ee.ImportOptions(bands="S2L2A", scale=1e-4)
PRECISIONS = ("fp32", "bf16", "int8")
CALIBRATION_TILES = 12

FloatArray = NDArray[np.float32]


class Tiles(CalibrationDataReader):
    """Tiles for ONNX Runtime's quantisation."""

    def __init__(self, tiles: Sequence[FloatArray]) -> None:
        self._tiles = iter(tiles)

    def get_next(self) -> dict[str, FloatArray] | None:
        tile = next(self._tiles, None)
        return None if tile is None else {INPUT_NAME: tile[np.newaxis]}


class OneRun(nn.Module):
    """One run of one specialist of a chain: what a peer computes on its own."""

    def __init__(self, chain: Chain, run: int) -> None:
        super().__init__()
        self.chain, self.run = chain, run

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        owner, bands = self.chain.runs[self.run]
        physical = image * self.chain.scale + self.chain.offset
        return tuple(self.chain.ensemble.set_features(physical, owner, bands))


class Case:
    """An ensemble in every form that a contender takes."""

    def __init__(
        self, folder: Path, sources: Sequence[Path], scene: Path, options: ee.ImportOptions
    ) -> None:
        folder.mkdir()
        self.folder = folder
        ensemble_directory = folder / "ensemble"
        ee.import_ensemble(sources, ensemble_directory, options)
        self.ensemble = load_ensemble(ensemble_directory)
        self.chain = Chain(self.ensemble)
        with open_scene(scene, self.ensemble.spec.input) as opened:
            tiles = sample_tiles(opened, TILE, 4 + CALIBRATION_TILES)
        self.tile, self.others = tiles[0], tiles[4:]
        np.save(folder / "image.npy", self.tile[np.newaxis])
        scales = folder / "calibration"
        wanted = ee.CalibrateOptions(data=scene, tiles=CALIBRATION_TILES, tile=TILE)
        ee.calibrate(ensemble_directory, scales, wanted)
        for precision in PRECISIONS:
            form = ee.ExportOptions(
                data=scene, precision=precision, calibration=scales, tile=TILE, for_="all"
            )
            ee.export(ensemble_directory, folder / f"{precision}.eosfm", form)
        with torch.inference_mode():
            image = torch.from_numpy(self.tile[np.newaxis])
            levels = self.ensemble(physical_units(self.ensemble.spec, image))
            self.expected = [level.numpy() for level in levels]

    @property
    def onnx(self) -> Path:
        return self.folder / "fp32.eosfm" / "model.onnx"

    def quantised(self) -> Path:
        """Return the ONNX model as ONNX Runtime quantises it."""
        prepared, path = self.folder / "prepared.onnx", self.folder / "int8.onnx"
        quant_pre_process(self.onnx, prepared)
        quantize_static(
            prepared,
            path,
            Tiles(self.others),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return path

    def split(self) -> list[Path]:
        """Return an ONNX model for each run of a specialist."""
        paths = []
        example = torch.from_numpy(self.tile[np.newaxis])
        for run in range(len(self.chain.runs)):
            paths.append(self.folder / f"run{run}.onnx")
            write_onnx(OneRun(self.chain, run).eval(), example, paths[-1], dynamic_batch=False)
        return paths

    def contender(
        self, name: str, engine: str, threads: int, models: Sequence[Path], isa: str = ""
    ) -> Contender:
        """Return an engine on some of the files."""
        image = str(self.folder / "image.npy")
        command = [sys.executable, str(HERE / "engine_worker.py"), engine, str(threads), image]
        return Contender(name, [*command, *map(str, models)], {"EOSFM_ISA": isa} if isa else {})

    def snr(self, contender: Contender) -> list[float] | None:
        """Return decibels of each level, or nothing where levels are not made."""
        _, _, engine, threads, _, *models = contender.command
        if len(models) > 1:
            return None
        with mock.patch.dict(os.environ, contender.environment):  # libeosfm reads its path there
            got = load_all(engine, models, int(threads), self.tile[np.newaxis])()
        return [
            sqnr_db(np.asarray(mine).reshape(reference.shape), reference)
            for mine, reference in zip(got, self.expected, strict=True)
        ]


def single(case: Case) -> Iterator[Contender]:
    """One specialist on one thread."""
    quantised = case.quantised()
    yield case.contender("ONNX Runtime fp32", "onnxruntime", 1, [case.onnx])
    yield case.contender("ONNX Runtime INT8", "onnxruntime", 1, [quantised])
    yield case.contender("OpenVINO fp32", "openvino-f32", 1, [case.onnx])
    yield case.contender("OpenVINO bf16", "openvino-bf16", 1, [case.onnx])
    yield case.contender("OpenVINO INT8", "openvino-f32", 1, [quantised])
    for precision in PRECISIONS:
        yield case.contender(f"native {precision}", "native", 1, [_bundle(case, precision)])
    for precision in ("fp32", "int8"):
        name = f"native {precision}, AVX2"
        yield case.contender(name, "native", 1, [_bundle(case, precision)], isa="avx2")


def ensemble(case: Case) -> Iterator[Contender]:
    """Several specialists on two threads."""
    split = case.split()
    yield case.contender("ONNX Runtime fp32, one graph", "onnxruntime", 2, [case.onnx])
    yield case.contender("ONNX Runtime fp32, a graph a run", "onnxruntime", 2, split)
    yield case.contender("OpenVINO fp32, one graph", "openvino-f32", 2, [case.onnx])
    yield case.contender("OpenVINO bf16, one graph", "openvino-bf16", 2, [case.onnx])
    yield case.contender("OpenVINO bf16, a graph a run", "openvino-bf16", 2, split)
    for precision in PRECISIONS:
        yield case.contender(f"native {precision}", "native", 2, [_bundle(case, precision)])


def _bundle(case: Case, precision: str) -> Path:
    return case.folder / f"{precision}.eosfm"


def show(title: str, timings: Sequence[Timing], snr: dict[str, list[float] | None]) -> None:
    """Print a table: milliseconds, and each native contender's ratio to every peer's."""
    native = [timing for timing in timings if timing.name.startswith("native")]
    table = Table(title=title, box=None, title_justify="left")
    for column in ("engine", "ms", "load ms", "memory MB", "SNR dB, level 1 ... 4"):
        table.add_column(column)
    for timing in native:
        table.add_column(f"{timing.name} is faster by")
    for timing in timings:
        levels = snr[timing.name]
        table.add_row(
            timing.name,
            str(timing.ms),
            f"{timing.load_ms:.0f}",
            f"{timing.memory_mb:.0f}",
            " / ".join(f"{value:.0f}" for value in levels) if levels else "",
            *(f"{mine.ratio_to(timing).median:.2f}" for mine in native),
        )
    Console(width=220).print(table)


def main() -> None:
    """Run both cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", type=Path, required=True, help="a Sentinel-2 L1C scene")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    facts = machine_facts().model_dump(mode="json")
    results: dict[str, object] = {"machine": facts, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as scratch:
        scene = options.scene
        one = Case(Path(scratch) / "one", _sources("landcover_l2a"), scene, S2_L2A_INPUT)
        shared = SPECIALISTS / "ensemble.safetensors"
        many = Case(Path(scratch) / "many", [*_sources(*DEMO), shared], scene, ee.ImportOptions())
        runs = len(many.chain.runs)
        for title, case, contenders in (
            ("one specialist, one thread", one, list(single(one))),
            (f"{runs} runs of specialists, two threads", many, list(ensemble(many))),
        ):
            timings = _timed(title, contenders, options.rounds)
            snr = {contender.name: case.snr(contender) for contender in contenders}
            show(title, timings, snr)
            results[title] = [{**t.model_dump(), "snr_db": snr[t.name]} for t in timings]
    path = HERE / "results" / f"engines-{machine_name(facts, one)}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"all of it is in {path}")


def machine_name(facts: dict[str, object], case: Case) -> str:
    """Name the machine: its processor, and the path that the native engine takes on it."""
    model = str(facts["processor"]["model"]).lower()  # type: ignore[index]
    with Model(_bundle(case, "fp32")) as native:
        isa = native.describe().isa.decode()
    return re.sub(r"[^a-z0-9]+", "-", f"{model}-{isa}").strip("-")


def _timed(title: str, contenders: Sequence[Contender], rounds: int) -> list[Timing]:
    with Progress(transient=True) as bar:
        task = bar.add_task(title, total=rounds)
        return alternate(contenders, rounds, lambda _, done, __: bar.update(task, completed=done))


def _sources(*names: str) -> list[Path]:
    return [SPECIALISTS / name / "model.safetensors" for name in names]


if __name__ == "__main__":
    main()
