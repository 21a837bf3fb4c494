"""Labelled cells of scenes with their features, and the places in which they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import Manifest
from eosfm_edge.formats.heads import NO_CLASS
from eosfm_edge.heads.labels import Labels
from eosfm_edge.heads.places import places_of
from eosfm_edge.heads.ridge import FOLDS
from eosfm_edge.native.binding import Context
from eosfm_edge.progress import Progress, silent
from eosfm_edge.runtime.cells import CellArray
from eosfm_edge.runtime.run import tiling_of
from eosfm_edge.runtime.scene_pass import ScenePass
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.radiometry import require_plausible_scene
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.scene import Scene, open_scene

FloatArray = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledCells:
    """Labelled cells with their features.

    Attributes:
        features: (n, D), the levels one after another.
        codes: (n,), of their classes.
        place: (n,), which block of all scenes each is in, counted from 0.
        judges: (n,), whether a cell may judge when its place is held out.
    """

    features: FloatArray
    codes: NDArray[np.uint8]
    place: Indices
    judges: NDArray[np.bool_]


def gather(
    context: Context,
    manifest: Manifest,
    folder: Path,
    scenes: Sequence[SceneName],
    labels: Sequence[Labels],
    *,
    levels: tuple[int, ...],
    known: dict[int, str] | None = None,
    most: int = 20_000,
    seed: int = 0,
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda sentence: None,
) -> LabelledCells:
    """Compute the features of labelled cells, as a head of some levels reads them.

    Args:
        context: that computes.
        manifest: of its bundle.
        folder: for the levels of one scene at a time, which are on disk meanwhile.
        scenes: that are labelled.
        labels: one for all scenes, or one for each.
        levels: that are read, from 1; cells are those of the first.
        known: codes that are labels; None: all.
        most: cells that are drawn, at most.
        seed: of the draw.
        names: what the bands of the scenes are, if their files do not say so.
        radiometry: scale, offset and nodata of the scenes, if their files do not say so.
        progress: told of tiles.
        tell: called with a sentence for every scene that has no label.

    Raises:
        UserError: a scene cannot be read, or no cell is labelled.
    """
    parts: list[LabelledCells] = []
    for index, name in enumerate(scenes):
        source = labels[index if len(labels) > 1 else 0]
        with open_scene(name, manifest.input, names=names, radiometry=radiometry) as scene:
            require_plausible_scene(scene)
            stride = 4 << (levels[0] - 1)
            codes = source.over(scene, stride)
            if known is not None:
                codes[~np.isin(codes, list(known))] = NO_CLASS
            rows, columns = _drawn(codes, -(-most // len(scenes)), seed)
            if len(rows):
                features = _features(
                    scene, context, manifest, folder, levels, rows, columns, progress
                )
                valid = np.isfinite(features).all(axis=1)
                rows, columns, features = rows[valid], columns[valid], features[valid]
            if not len(rows):
                tell(f"{name} has no cell that {source.path} labels")
                continue
            places = places_of(scene.height, scene.width, stride)
            parts.append(
                LabelledCells(
                    features,
                    codes[rows, columns],
                    places.block[rows, columns].astype(np.int64),
                    places.judges[rows, columns],
                )
            )
    if not parts:
        raise UserError(
            f"no cell of {', '.join(map(str, scenes))} is labelled by "
            f"{', '.join(str(one.path) for one in labels)}",
            expected="labels that cover at least half of some cells of "
            f"{4 << (levels[0] - 1)} pixels",
            remedy="compare their extents with gdalinfo, and --classes with their codes",
        )
    blocks, count = [], 0
    for part in parts:
        blocks.append(part.place + count)
        count += int(part.place.max()) + 1
    return LabelledCells(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.codes for part in parts]),
        np.unique(np.concatenate(blocks), return_inverse=True)[1],
        np.concatenate([part.judges for part in parts]),
    )


def deal(cells: LabelledCells, seed: int) -> Indices:
    """Return the fold of each cell: places are dealt to the folds as cards are.

    Raises:
        UserError: the labels lie in one place.
    """
    places = int(cells.place.max()) + 1
    judging = np.unique(cells.place[cells.judges])
    if len(judging) < 2:
        raise UserError(
            f"the labels lie in {len(judging)} place{'s' if len(judging) != 1 else ''} of the "
            "scenes that can be held out to judge the fit",
            expected="two or more, blocks of 128 pixels or scenes of their own",
            remedy="add labels elsewhere, or another scene with labels",
        )
    # Places that can judge are dealt first, so that each fold has some.
    rest = np.setdiff1d(np.arange(places), judging)
    order = np.concatenate([np.random.default_rng(seed).permutation(judging), rest])
    fold = np.empty(places, np.int64)
    fold[order] = np.arange(places) % min(FOLDS, len(judging))
    return fold[cells.place]


def _drawn(codes: NDArray[np.uint8], most: int, seed: int) -> tuple[Indices, Indices]:
    """Return rows, which rise, and columns of labelled cells, drawn at random if they are many."""
    rows, columns = np.nonzero(codes != NO_CLASS)
    if len(rows) <= most:
        return rows, columns
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    return rows[chosen], columns[chosen]


def _features(
    scene: Scene,
    context: Context,
    manifest: Manifest,
    folder: Path,
    levels: tuple[int, ...],
    rows: Indices,
    columns: Indices,
    progress: Progress,
) -> FloatArray:
    """Return the features (n, D) of cells of the finest of some levels, as a head reads them.

    The levels of the whole scene are on disk meanwhile.
    """
    tiling = tiling_of(None, 0, manifest.tile.size)
    wanted = [number + 1 in levels for number in range(len(manifest.levels))]
    with ExitStack() as stack:
        arrays: dict[int, CellArray] = {}
        for number in levels:
            level = manifest.levels[number - 1]
            height, width = -(-scene.height // level.stride), -(-scene.width // level.stride)
            arrays[number] = CellArray(
                folder / f".{level.name}.cells", height, width, level.channels
            )
            stack.callback(arrays[number].close)
        one_pass = ScenePass(context, scene, tiling, levels=wanted)
        tiles = tiling.tiles(scene)
        for patch in one_pass.patches(lambda done: progress("tiles", done, tiles)):
            for number, array in arrays.items():
                part = patch.levels[number - 1]
                assert part is not None, "the level is wanted"
                array.write(part.features.transpose(1, 2, 0), part.column, part.row)
        return np.concatenate(
            [
                _resampled(arrays[number], 1 << (number - levels[0]), rows, columns)
                for number in levels
            ],
            axis=1,
        )


def _resampled(cells: CellArray, ratio: int, rows: Indices, columns: Indices) -> FloatArray:
    """Return the values (n, C) of a level at cells of one that is ``ratio`` times as fine.

    They are resampled bilinearly, as libeosfm does. ``rows`` rise.
    """
    result = np.empty((len(rows), cells.channels), np.float32)
    kept: dict[int, FloatArray] = {}

    def row(number: int) -> FloatArray:
        if number not in kept:
            kept[number] = cells.read(0, number, cells.width, 1)[0]
        return kept[number]

    x = np.maximum((columns + 0.5) / ratio - 0.5, 0)
    left = x.astype(np.int64)
    right = np.minimum(left + 1, cells.width - 1)
    across = (x - left).astype(np.float32)[:, None]
    for wanted in np.unique(rows):
        y = max((wanted + 0.5) / ratio - 0.5, 0.0)
        above = int(y)
        below = min(above + 1, cells.height - 1)
        share = np.float32(y - above)
        for old in [number for number in kept if number < above]:
            del kept[old]
        here = np.flatnonzero(rows == wanted)
        line = row(above) if share == 0 else row(above) * (1 - share) + row(below) * share
        found = line[left[here]]
        if ratio > 1:
            found = found * (1 - across[here]) + line[right[here]] * across[here]
        result[here] = found
    return result
