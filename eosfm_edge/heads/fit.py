"""``eosfm-edge head fit``: from labels and scenes to a head in the bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.heads import HeadFile, head_names, write_head
from eosfm_edge.bundle.intact import require_intact
from eosfm_edge.bundle.known_answer import read_known_answer
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import Manifest, read_manifest
from eosfm_edge.formats.heads import (
    NO_CLASS,
    HeadClass,
    HeadSpec,
    head_file,
    require_head_name,
)
from eosfm_edge.heads.labels import Labels, read_labels
from eosfm_edge.heads.place import changed_bundle
from eosfm_edge.heads.places import places_of
from eosfm_edge.heads.ridge import FOLDS, Solution, fit
from eosfm_edge.native.binding import Context
from eosfm_edge.progress import Progress, silent
from eosfm_edge.runtime.backends import open_context
from eosfm_edge.runtime.cells import CellArray
from eosfm_edge.runtime.run import tiling_of
from eosfm_edge.runtime.scene_pass import ScenePass
from eosfm_edge.scene.radiometry import require_plausible_scene
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.scene import Scene, open_scene

FloatArray = NDArray[np.float32]
Indices = NDArray[np.int64]

MOST_CHANNELS = 4096  # the time of a fit grows with their third power

# Kelly's colours of maximum contrast, without white and black, in his order.
_COLOURS = (
    (243, 195, 0),
    (135, 86, 146),
    (243, 132, 0),
    (161, 202, 241),
    (190, 0, 50),
    (194, 178, 128),
    (132, 132, 130),
    (0, 136, 86),
    (230, 143, 172),
    (0, 103, 165),
    (249, 147, 121),
    (96, 78, 151),
    (246, 166, 0),
    (179, 68, 108),
    (220, 211, 0),
    (136, 45, 23),
    (141, 182, 0),
    (101, 69, 34),
    (226, 88, 34),
    (43, 61, 38),
)


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit.

    Attributes:
        levels: that it reads, from 1.
        classes: names by code; other codes are no labels. None: every code that the labels have.
        column: the attribute with the labels, of vectors.
        cells: that are used, at most, drawn at random.
        seed: of the draw, and of which places are held out together.
        backend: who computes the features.
        threads: of the backend; 0 for all cores.
        overwrite: replace a head of the name.
        names: what the bands of the scenes are, if their files do not say so.
        radiometry: scale, offset and nodata of the scenes, if their files do not say so.
    """

    levels: tuple[int, ...] = (1, 2, 3, 4)
    classes: dict[int, str] | None = None
    column: str | None = None
    cells: int = 20_000
    seed: int = 0
    backend: str = "native"
    threads: int = 0
    overwrite: bool = False
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None


@dataclass(frozen=True)
class ClassScore:
    """A class in places that were held out.

    Attributes:
        name: the class.
        code: in maps.
        cells: that judged it.
        precision: of the cells that were classified so, the share that is labelled so.
        recall: of the cells that are labelled so, the share that was classified so.
        f1: their harmonic mean; 0 where no cell was found rightly.
    """

    name: str
    code: int
    cells: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class FitReport:
    """A head that was fitted, and how it does in places that it has not seen.

    Attributes:
        head: its name.
        bytes: of its file.
        levels: that it reads.
        channels: of them together.
        cells: that it was fitted on.
        places: blocks of the scenes that have labels.
        folds: in how many parts they were held out, one after another.
        accuracy: the share of cells that judged and were classified as they are labelled.
        most_frequent: the accuracy of always answering the most frequent class.
        macro_f1: the mean F1 of the classes.
        classes: each of them.
        confusion: cells that judged, labelled as the row's class and classified as the column's.
        strength: of the ridge.
    """

    head: str
    bytes: int
    levels: tuple[int, ...]
    channels: int
    cells: int
    places: int
    folds: int
    accuracy: float
    most_frequent: float
    macro_f1: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    strength: float


@dataclass(frozen=True)
class _Cells:
    """Labelled cells with their features.

    Attributes:
        features: (n, D).
        codes: (n,).
        block: (n,), of all scenes counted on.
        judges: (n,), whether a cell may judge when its block is held out.
    """

    features: FloatArray
    codes: NDArray[np.uint8]
    block: Indices
    judges: NDArray[np.bool_]


def fit_head(
    bundle: Path,
    scenes: Sequence[Path | str],
    labels: Sequence[Path],
    name: str,
    options: FitOptions | None = None,
    *,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda sentence: None,
) -> FitReport:
    """Fit a head to labels over scenes, and put it into the bundle.

    Args:
        bundle: the bundle's directory, which is replaced by one with the head.
        scenes: anything that ``run`` takes.
        labels: one file for all scenes, or one for each.
        name: of the head.
        options: how.
        progress: told of tiles and folds.
        tell: called with a sentence for every scene that has no label.

    Raises:
        CheckFailedError: a file of the bundle is missing, altered or surplus.
        UserError: labels and scenes do not fit, or too little is labelled; the bundle is what it
            was then.
    """
    options = options or FitOptions()
    require_head_name(name)
    manifest = read_manifest(bundle)
    require_intact(bundle, manifest, options.backend)
    if name in head_names(bundle, manifest) and not options.overwrite:
        raise UserError(
            f"{bundle} has a head {name}", remedy="choose another name (-o), or add --overwrite"
        )
    channels = sum(manifest.levels[number - 1].channels for number in options.levels)
    if channels > MOST_CHANNELS:
        raise UserError(
            f"levels {', '.join(map(str, options.levels))} have {channels} channels together",
            expected=f"at most {MOST_CHANNELS}",
            remedy="read fewer: --levels 1,2",
        )
    if len(labels) not in (1, len(scenes)):
        raise UserError(
            f"{len(labels)} files of labels are given for {len(scenes)} scenes",
            expected="one for all scenes, or one for each, in their order",
        )
    read = [read_labels(path, options.column) for path in labels]
    known = _known_classes(read, options)
    answer = read_known_answer(bundle, manifest)

    with changed_bundle(bundle) as folder:
        with open_context(bundle, manifest, [options.backend], options.threads) as context:
            parts: list[_Cells] = []
            for index, scene in enumerate(scenes):
                source = read[index if len(read) > 1 else 0]
                part = _cells_of(
                    scene, source, context, manifest, folder, known, len(scenes), options, progress
                )
                if part is None:
                    tell(f"{scene} has no cell that {source.path} labels")
                else:
                    parts.append(part)
        if not parts:
            raise UserError(
                f"no cell of {', '.join(map(str, scenes))} is labelled by "
                f"{', '.join(map(str, labels))}",
                expected="labels that cover at least half of some cells of "
                f"{4 << (options.levels[0] - 1)} pixels",
                remedy="compare their extents with gdalinfo, and --classes with their codes",
            )
        classes = _classes(parts, read, known)
        solution, folds, places = _solve(parts, classes, options.seed, progress)
        accuracy = float(np.trace(solution.confusion) / max(1, solution.confusion.sum()))
        total = sum(len(part.codes) for part in parts)
        head = HeadFile(
            HeadSpec(
                name=name,
                levels=options.levels,
                classes=classes,
                labels=", ".join(path.name for path in labels),
                cells=total,
                score=accuracy,
            ),
            _by_level(solution.weights, manifest, options.levels),
            solution.bias,
        )
        path = folder / head_file(name)
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # a link to the old one's content, which must stay
        write_head(path, head, answer)
        size = path.stat().st_size
    scores = _scores(solution.confusion, classes)
    support = solution.confusion.sum(axis=1)
    return FitReport(
        head=name,
        bytes=size,
        levels=options.levels,
        channels=channels,
        cells=total,
        places=places,
        folds=folds,
        accuracy=accuracy,
        most_frequent=float(support.max() / max(1, support.sum())),
        macro_f1=float(np.mean([one.f1 for one in scores])),
        classes=scores,
        confusion=tuple(tuple(int(n) for n in row) for row in solution.confusion),
        strength=solution.strength,
    )


def _known_classes(read: Sequence[Labels], options: FitOptions) -> dict[int, str] | None:
    """Return the classes' names by code, if the options or the labels say them."""
    named = [labels for labels in read if labels.names]
    if any(labels.names != read[0].names for labels in read):
        raise UserError(
            f"{read[0].path} and another file name different classes",
            expected="the same labels in all, or codes",
        )
    if not named:
        return options.classes
    if options.classes is not None:
        raise UserError(
            f"{read[0].path} has the labels {', '.join(named[0].names.values())}, and names of "
            "codes are given",
            remedy="leave --classes out",
        )
    return dict(named[0].names)


def _cells_of(
    name: Path | str,
    labels: Labels,
    context: Context,
    manifest: Manifest,
    folder: Path,
    known: dict[int, str] | None,
    scenes: int,
    options: FitOptions,
    progress: Progress,
) -> _Cells | None:
    """Return labelled cells of a scene, as many as are its share; None if there is none."""
    finest = options.levels[0] - 1
    stride = 4 << finest
    with open_scene(
        name, manifest.input, names=options.names, radiometry=options.radiometry
    ) as scene:
        require_plausible_scene(scene)
        codes = labels.over(scene, stride)
        if known is not None:
            codes[~np.isin(codes, list(known))] = NO_CLASS
        rows, columns = np.nonzero(codes != NO_CLASS)
        if not len(rows):
            return None
        most = -(-options.cells // scenes)
        if len(rows) > most:
            rng = np.random.default_rng(options.seed)
            chosen = np.sort(rng.choice(len(rows), most, replace=False))
            rows, columns = rows[chosen], columns[chosen]
        places = places_of(scene.height, scene.width, stride)
        features = _features(
            scene, context, manifest, folder, options.levels, rows, columns, progress
        )
        valid = np.isfinite(features).all(axis=1)
        rows, columns = rows[valid], columns[valid]
        if not len(rows):
            return None
        return _Cells(
            features[valid],
            codes[rows, columns],
            places.block[rows, columns].astype(np.int64),
            places.judges[rows, columns],
        )


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


def _classes(
    parts: Sequence[_Cells], read: Sequence[Labels], known: dict[int, str] | None
) -> tuple[HeadClass, ...]:
    """Return the classes of all cells.

    Raises:
        UserError: there is one alone, or one that is named has no cell.
    """
    found = sorted({int(code) for part in parts for code in np.unique(part.codes)})
    names = known or {code: f"class {code}" for code in found}
    for code, name in names.items():
        # Labels of their own may well have classes that are elsewhere; --classes may not.
        if code not in found and not read[0].names:
            raise UserError(
                f"the class {name} ({code}) has no cell in the scenes",
                expected="some for each class that is named",
                remedy="leave it out of --classes, or add a scene that has it",
            )
    if len(found) < 2:
        raise UserError(
            f"all labelled cells are of one class: {names[found[0]]}",
            expected="two classes or more",
            remedy="add labels of another class, or scenes that have it",
        )
    colours = read[0].colours
    return tuple(
        HeadClass(
            name=names[code],
            code=code,
            colour=colours.get(code) or _COLOURS[index % len(_COLOURS)],
        )
        for index, code in enumerate(found)
    )


def _solve(
    parts: Sequence[_Cells], classes: Sequence[HeadClass], seed: int, progress: Progress
) -> tuple[Solution, int, int]:
    """Fit; returns what was found, how many folds there were, and how many places."""
    blocks: list[Indices] = []
    count = 0
    for part in parts:
        blocks.append(part.block + count)
        count += int(part.block.max()) + 1
    block = np.concatenate(blocks)
    labelled, block = np.unique(block, return_inverse=True)
    places = len(labelled)
    judges = np.concatenate([part.judges for part in parts])
    judging = np.unique(block[judges])
    if len(judging) < 2:
        raise UserError(
            f"the labels lie in {len(judging)} place{'s' if len(judging) != 1 else ''} of the "
            "scenes that can be held out to judge the fit",
            expected="two or more, blocks of 128 pixels or scenes of their own",
            remedy="add labels elsewhere, or another scene with labels",
        )
    folds = min(FOLDS, len(judging))
    # Places that can judge are dealt to the folds first, so that each fold has some.
    rng = np.random.default_rng(seed)
    rest = np.setdiff1d(np.arange(places), judging)
    fold_of = np.empty(places, np.int64)
    fold_of[np.concatenate([rng.permutation(judging), rest])] = np.arange(places) % folds
    code_index = {one.code: index for index, one in enumerate(classes)}
    codes = np.concatenate([part.codes for part in parts])
    labels = np.array([code_index[int(code)] for code in codes], np.int64)
    solution = fit(
        np.concatenate([part.features for part in parts]),
        labels,
        fold_of[block],
        judges,
        len(classes),
        lambda done, total: progress("folds", done, total),
    )
    return solution, folds, places


def _by_level(
    weights: FloatArray, manifest: Manifest, levels: tuple[int, ...]
) -> dict[int, FloatArray]:
    channels = [manifest.levels[number - 1].channels for number in levels]
    parts = np.split(weights, np.cumsum(channels)[:-1])
    return dict(zip(levels, parts, strict=True))


def _scores(confusion: Indices, classes: Sequence[HeadClass]) -> tuple[ClassScore, ...]:
    scores = []
    for index, one in enumerate(classes):
        right = int(confusion[index, index])
        labelled, found = int(confusion[index].sum()), int(confusion[:, index].sum())
        scores.append(
            ClassScore(
                name=one.name,
                code=one.code,
                cells=labelled,
                precision=right / found if found else 0.0,
                recall=right / labelled if labelled else 0.0,
                f1=2 * right / (labelled + found) if right else 0.0,
            )
        )
    return tuple(scores)
