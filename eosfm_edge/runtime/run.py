"""``eosfm-edge run``: a bundle over a scene, tile by tile."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.manifest import Manifest, read_manifest
from eosfm_edge.ensemble.bands import Band
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import atomic_directory, cannot_write, require_outside
from eosfm_edge.runtime.backends import Backend, Native, require_intact
from eosfm_edge.runtime.binding import GRN_GATHER, GRN_SCENE
from eosfm_edge.runtime.features import LevelRaster, written_bytes
from eosfm_edge.runtime.ladder import open_first
from eosfm_edge.runtime.quicklook import write_quicklook
from eosfm_edge.runtime.tiles import COARSEST, TileAxis
from eosfm_edge.scene.bands import SceneName
from eosfm_edge.scene.scene import FloatImage, Mask, Radiometry, Scene, open_scene

# A cell with fewer of its pixels valid than this becomes nodata.
LEAST_VALID_SHARE = 0.5

QUICKLOOK_NAME = "quicklook.png"

Progress = Callable[[str, int, int], None]

Grn = Literal["tile", "scene"]


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    Attributes:
        backend: who computes; what needs a GPU and cannot have it is replaced, see
            :mod:`eosfm_edge.runtime.ladder`.
        threads: of the backend; 0 for all cores.
        grn: over what global response normalisation takes its norms. ``scene`` runs all tiles
            twice, and only the native backend can.
        overlap: pixels that neighbouring tiles share, a multiple of 32; None: a quarter of a
            tile, rounded up to that.
        quicklook: write ``quicklook.png`` too.
        overwrite: replace an output that is there.
        names: what the bands of the scene are, if its files do not say so.
        radiometry: scale, offset and nodata of the scene, if its files do not say so.
    """

    backend: str = "native"
    threads: int = 0
    grn: Grn = "tile"
    overlap: int | None = None
    quicklook: bool = False
    overwrite: bool = False
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None


@dataclass(frozen=True)
class RunReport:
    """What a run did.

    ``seconds`` is the whole run's wall time, ``compute_seconds`` the backend's share of it.
    """

    backend: str
    grn: Grn
    megapixels: float
    tiles: int
    skipped_tiles: int
    seconds: float
    compute_seconds: float
    bytes: dict[str, int]

    @property
    def seconds_per_megapixel(self) -> float:
        """Wall seconds for a million scene pixels."""
        return self.seconds / self.megapixels


def run_scene(
    bundle: Path,
    scene_path: SceneName,
    output: Path,
    options: RunOptions | None = None,
    *,
    progress: Progress = lambda stage, done, total: None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> RunReport:
    """Run a bundle over a scene and write its levels as cloud-optimised GeoTIFFs.

    Args:
        bundle: the bundle directory.
        scene_path: anything rasterio opens, or a folder of single-band files.
        output: a directory: ``level1.tif`` ... ``level4.tif`` (float32, NaN where there is no
            data), each on the pixel grid of its stride.
        options: how to run.
        progress: called with the stage, and how many of its steps are done.
        tell: called with a sentence for every backend that cannot be used, before the next.

    Raises:
        CheckFailedError: a file of the bundle is missing, altered or surplus, or the model gives
            values that are not finite.
        UserError: the scene does not fit the bundle, has no valid pixel, or the output cannot
            be written. Nothing is left under the output's name then.
    """
    options = options or RunOptions()
    if options.grn == "scene" and options.backend != Native.name:
        raise UserError(
            f"the {options.backend} backend normalises every tile by itself",
            expected="the native backend, for GRN over the scene",
            remedy="run without --grn scene, or with --backend native",
        )
    started = time.monotonic()
    inputs = (bundle, scene_path)
    require_outside(output, [path for path in inputs if isinstance(path, Path)])
    manifest = read_manifest(bundle)
    overlap = _overlap(options.overlap, manifest.tile.size)
    contents = (*(f"{level.name}.tif" for level in manifest.levels), QUICKLOOK_NAME)
    with ExitStack() as stack:
        scene = stack.enter_context(
            open_scene(
                scene_path, manifest.input, names=options.names, radiometry=options.radiometry
            )
        )
        columns, rows = _cover(scene, manifest.tile.size, overlap)
        folder = stack.enter_context(
            atomic_directory(output, contents=contents, overwrite=options.overwrite)
        )
        _require_space(manifest, columns, rows, folder, output)
        require_intact(bundle, manifest)
        backend = open_first(options.backend, bundle, manifest, options.threads, tell)
        rasters = [
            stack.enter_context(
                LevelRaster(
                    level,
                    folder,
                    (columns.cells(level.stride), rows.cells(level.stride)),
                    scene.transform,
                    scene.crs,
                )
            )
            for level in manifest.levels
        ]

        def tiles(stage: str) -> Iterator[_Tile]:
            strides = [level.stride for level in manifest.levels]
            return _read_tiles(scene, columns, rows, strides, partial(progress, stage))

        gathering = 0.0
        if options.grn == "scene":
            assert isinstance(backend, Native)
            gathering = _gather(backend, tiles("gathering"))
        skipped, compute = _run_tiles(backend, tiles("tiles"), columns, rows, rasters)
        total = len(columns.starts) * len(rows.starts)
        if skipped == total:
            raise UserError(
                f"{scene.path} has no valid pixel: every one is nodata or not a number",
                remedy="check the file, or its nodata value (--nodata)",
            )
        sizes = {}
        for done, raster in enumerate(rasters):
            progress("writing", done, len(rasters))
            sizes[raster.path.name] = raster.finish()
        progress("writing", len(rasters), len(rasters))
        if options.quicklook:
            path = folder / QUICKLOOK_NAME
            write_quicklook(path, scene, manifest.input, rasters[0].path)
            sizes[path.name] = path.stat().st_size
        return RunReport(
            backend=backend.name,
            grn=options.grn,
            megapixels=scene.width * scene.height / 1e6,
            tiles=total,
            skipped_tiles=skipped,
            seconds=time.monotonic() - started,
            compute_seconds=gathering + compute,
            bytes=sizes,
        )


def _overlap(asked: int | None, tile: int) -> int:
    if asked is None:
        return -(-tile // 4 // COARSEST) * COARSEST if tile > COARSEST else 0
    if asked % COARSEST or not 0 <= asked < tile:
        raise UserError(
            f"overlap is {asked} pixels",
            expected=f"a multiple of {COARSEST} from 0 to {tile - COARSEST}, tiles being {tile}",
        )
    return asked


def _cover(scene: Scene, tile: int, overlap: int) -> tuple[TileAxis, TileAxis]:
    scene.require_room_for(tile)
    return TileAxis.cover(scene.width, tile, overlap), TileAxis.cover(scene.height, tile, overlap)


def _require_space(
    manifest: Manifest, columns: TileAxis, rows: TileAxis, folder: Path, output: Path
) -> None:
    """Refuse at once what cannot end well.

    Beside the scratch files of levels to come and the GeoTIFFs of those done stand two files of
    the level that is being written: a plain one and the cloud-optimised.
    """
    sizes = [
        written_bytes(columns.cells(level.stride), rows.cells(level.stride), level.channels)
        for level in manifest.levels
    ]
    needed = sum(sizes) + max(sizes)
    if shutil.disk_usage(folder).free < needed:
        raise cannot_write(output, "the disk is too full", needed)


@dataclass(frozen=True)
class _Tile:
    """A tile of the scene: its place, its pixels, and each level's cells that are valid."""

    column: int
    row: int
    left: int
    top: int
    image: FloatImage
    masks: Sequence[Mask]

    @property
    def valid(self) -> bool:
        """Whether any cell is."""
        return any(mask.any() for mask in self.masks)

    def features(self, backend: Backend) -> list[FloatImage]:
        """Compute the levels, each (C, h, w)."""
        levels = [level[0] for level in backend.run(self.image[np.newaxis])]
        _require_finite(levels, self.left, self.top)
        return levels


def _read_tiles(
    scene: Scene,
    columns: TileAxis,
    rows: TileAxis,
    strides: Sequence[int],
    progress: Callable[[int, int], None],
) -> Iterator[_Tile]:
    total = len(columns.starts) * len(rows.starts)
    for row, top in enumerate(rows.starts):
        for column, left in enumerate(columns.starts):
            progress(row * len(columns.starts) + column, total)
            image, valid, inside = _read_tile(scene, left, top, columns.size)
            masks = [_valid_cells(valid, inside, stride) for stride in strides]
            yield _Tile(column, row, left, top, image, masks)
    progress(total, total)


def _gather(backend: Native, tiles: Iterator[_Tile]) -> float:
    """Have GRN normalise over all tiles with something valid in them; returns compute seconds.

    Pixels that tiles share count as often as they are shared.
    """
    compute, gathered = 0.0, False
    backend.context.set_grn(GRN_GATHER)
    for tile in tiles:
        if tile.valid:
            before = time.monotonic()
            tile.features(backend)
            compute += time.monotonic() - before
            gathered = True
    if gathered:
        backend.context.set_grn(GRN_SCENE)
    return compute


def _run_tiles(
    backend: Backend,
    tiles: Iterator[_Tile],
    columns: TileAxis,
    rows: TileAxis,
    rasters: Sequence[LevelRaster],
) -> tuple[int, float]:
    """Run every tile with something valid in it; returns tiles skipped and compute seconds."""
    skipped, compute = 0, 0.0
    for tile in tiles:
        if tile.valid:
            before = time.monotonic()
            levels = tile.features(backend)
            compute += time.monotonic() - before
        else:
            skipped += 1
            levels = [np.zeros((r.level.channels, *m.shape), np.float32)
                      for r, m in zip(rasters, tile.masks, strict=True)]  # fmt: skip
        for raster, features, mask in zip(rasters, levels, tile.masks, strict=True):
            stride = raster.level.stride
            weights = np.outer(rows.weights(tile.row, stride), columns.weights(tile.column, stride))
            height, width = weights.shape
            raster.add(
                features[:, :height, :width],
                weights,
                mask[:height, :width],
                tile.left // stride,
                tile.top // stride,
            )
    return skipped, compute


def _require_finite(levels: Sequence[FloatImage], left: int, top: int) -> None:
    """NaN stands for nodata in the output: a NaN that was computed must not pass for it."""
    if not all(np.isfinite(level).all() for level in levels):
        raise CheckFailedError(
            f"the model gives values that are not finite for the tile at column {left}, row {top}",
            remedy="look at the scene's values there, and at its scale and offset",
        )


def _read_tile(scene: Scene, left: int, top: int, size: int) -> tuple[FloatImage, Mask, Mask]:
    """Read a tile; what reaches over the scene's end is mirrored in, and not valid.

    Returns:
        The image (bands, size, size), and masks (size, size) of valid pixels and of pixels that
        are inside the scene.
    """
    width, height = min(size, scene.width - left), min(size, scene.height - top)
    image, valid = scene.read(left, top, width, height)
    beyond = ((0, size - height), (0, size - width))
    inside = np.pad(np.ones((height, width), np.bool_), beyond)
    image = np.pad(image, ((0, 0), *beyond), mode="symmetric")
    return image, np.pad(valid, beyond), inside


def _valid_cells(valid: Mask, inside: Mask, stride: int) -> NDArray[np.bool_]:
    """Return which cells of a level have enough valid pixels among those inside the scene."""
    cells = valid.shape[0] // stride

    def count(mask: Mask) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = mask.reshape(cells, stride, cells, stride).sum(axis=(1, 3))
        return counts

    enough: Mask = count(valid) >= np.maximum(LEAST_VALID_SHARE * count(inside), 1)
    return enough
