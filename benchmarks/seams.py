"""Measure what cutting a scene into tiles does to its features, against the whole scene at once.

    python benchmarks/seams.py --scene SCENE

The demo's ensemble of 13 bands, in fp32 with exact GRN and in int8 with exact and static GRN, on
windows of 896 x 896 pixels of a Sentinel-2 L1C scene: tiles of 224 pixels that are blended, as
`eosfm-edge run` does it, against the window as one image. Two figures for each level:

- difference: root mean square of tiled less whole, over that of the whole (each channel less its
  mean), in percent. With exact GRN norms are each tile's, so all of a tile differs.
- seam: how much neighbouring cells differ on either side of the lines where tiles begin and end,
  over how much they do there in the whole. 1: a seam cannot be told from the scene.

Prints a table, and writes all of it to benchmarks/results/seams.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from engines import DEMO, HERE, SPECIALISTS, TILE
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import eosfm_edge as ee
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.native.binding import GRN_GATHER, GRN_SCENE, Context, Model
from eosfm_edge.native.stream import Stream, StreamBand
from eosfm_edge.runtime.bench import machine_facts
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import open_scene

FloatArray = NDArray[np.float32]

WINDOW = 896
WINDOWS = 3


@dataclass(frozen=True)
class Way:
    """A bundle, and how a window goes through it in tiles."""

    bundle: Literal["fp32", "int8", "static"]
    grn: Literal["tile", "scene"]
    overlap: int
    halo: int

    def __str__(self) -> str:
        precision = "fp32" if self.bundle == "fp32" else "int8"
        norms = {"tile": "exact", "scene": "exact, over the scene"}[self.grn]
        if self.bundle == "static":
            norms = "static"
        halo = f", halo {self.halo}" if self.halo else ""
        return f"{precision}, GRN {norms}; overlap {self.overlap}{halo}"


WAYS = (
    Way("fp32", "tile", 64, 0),
    Way("fp32", "tile", 128, 64),
    Way("fp32", "scene", 64, 0),
    Way("fp32", "scene", 128, 64),
    Way("int8", "tile", 64, 0),
    Way("static", "tile", 64, 0),
    Way("static", "tile", 128, 64),
)


def make_bundles(folder: Path, scene: Path) -> dict[str, Path]:
    """Export the demo's ensemble in all forms."""
    ensemble = folder / "ensemble"
    shared = SPECIALISTS / "ensemble.safetensors"
    sources = [*(SPECIALISTS / name / "model.safetensors" for name in DEMO), shared]
    ee.import_ensemble(sources, ensemble)
    bundles = {"fp32": folder / "fp32.eosfm"}
    ee.export(ensemble, bundles["fp32"], ee.ExportOptions(data=scene, tile=TILE))
    for name, grn in (("int8", "exact"), ("static", "static")):
        scales, bundles[name] = folder / f"{name}-scales", folder / f"{name}.eosfm"
        # int8 throughout
        wanted = ee.CalibrateOptions(data=scene, grn=grn, min_cosine=0.0, tile=TILE)
        ee.calibrate(ensemble, scales, wanted)
        options = ee.ExportOptions(data=scene, precision="int8", calibration=scales, tile=TILE)
        ee.export(ensemble, bundles[name], options)
    return bundles


def in_tiles(context: Context, window: FloatArray, way: Way) -> list[FloatArray]:
    """Stream a window (bands, rows, columns) and put its levels (C, h, w) together."""
    stream = Stream(
        context,
        WINDOW,
        [StreamBand(window.dtype)] * len(window),
        overlap=way.overlap,
        halo=way.halo,
    )
    levels = [
        np.empty((shape[0], WINDOW // (4 << index), WINDOW // (4 << index)), np.float32)
        for index, shape in enumerate(context.shapes)
    ]
    at = 0

    def feed() -> bool:
        nonlocal at
        for band in range(len(window)):
            stream.push_rows(band, window[band, at : at + 1])
        at += 1
        return at <= WINDOW

    for patch in stream.patches(feed):
        for level, part in zip(levels, patch.levels, strict=True):
            assert part is not None
            _, height, width = part.features.shape
            place = np.s_[:, part.row : part.row + height, part.column : part.column + width]
            level[place] = part.features
    stream.close()
    return levels


def tiled(model: Model, window: FloatArray, way: Way) -> list[FloatArray]:
    """Run a window in tiles; with GRN over the scene, twice."""
    with model.context(width=TILE, height=TILE) as context:
        if way.grn == "scene":
            context.set_grn(GRN_GATHER)
            in_tiles(context, window, way)
            context.set_grn(GRN_SCENE)
        return in_tiles(context, window, way)


def whole(model: Model, window: FloatArray) -> list[FloatArray]:
    """Run a window as one image."""
    with model.context(width=WINDOW, height=WINDOW) as context:
        return context.run(list(window))


def difference(found: FloatArray, wanted: FloatArray) -> float:
    """Root mean square of the difference over that of a level, in percent."""
    spread = wanted - wanted.mean(axis=(1, 2), keepdims=True)
    return float(100 * np.sqrt(np.square(found - wanted).mean() / np.square(spread).mean()))


def seam(found: FloatArray, wanted: FloatArray, way: Way) -> float:
    """Steps across the lines where tiles begin, end or change, over those of the whole."""
    stride = WINDOW // found.shape[1]
    step = TILE - way.overlap
    starts = range(step, WINDOW - TILE + 1, step)
    edges = {start + way.halo for start in starts}
    edges |= {start + way.overlap - way.halo for start in starts}
    lines = [edge // stride for edge in sorted(edges)]

    def steps(level: FloatArray) -> float:
        down = [np.abs(level[:, at] - level[:, at - 1]).mean() for at in lines]
        across = [np.abs(level[:, :, at] - level[:, :, at - 1]).mean() for at in lines]
        return float(np.mean([*down, *across]))

    return steps(found) / steps(wanted)


def measure(bundles: dict[str, Path], windows: Sequence[FloatArray]) -> list[dict[str, object]]:
    """Return what each way does to each level, as the mean over windows."""
    found = []
    for way in WAYS:
        with Model(bundles[way.bundle]) as model:
            pairs = [(tiled(model, window, way), whole(model, window)) for window in windows]
        differences = [[difference(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
        seams = [[seam(a, b, way) for a, b in zip(*pair, strict=True)] for pair in pairs]
        found.append(
            asdict(way)
            | {
                "way": str(way),
                "difference_percent": np.mean(differences, axis=0).tolist(),
                "seam": np.mean(seams, axis=0).tolist(),
            }
        )
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", type=Path, required=True, help="a Sentinel-2 L1C scene")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundles = make_bundles(Path(scratch), options.scene)
        wanted = load_ensemble(Path(scratch) / "ensemble").spec.input
        with open_scene(options.scene, wanted) as scene:
            windows = sample_tiles(scene, WINDOW, WINDOWS)
        rows = measure(bundles, windows)
    table = Table("", *(f"level {level}" for level in (1, 2, 3, 4)))
    for row in rows:
        pairs = zip(row["difference_percent"], row["seam"], strict=True)
        table.add_row(str(row["way"]), *(f"{d:.1f} %  {s:.2f}" for d, s in pairs))
    Console().print(table)
    result = {
        "machine": machine_facts().model_dump(mode="json"),
        "window": WINDOW,
        "windows": len(windows),
        "ways": rows,
    }
    (HERE / "results" / "seams.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
