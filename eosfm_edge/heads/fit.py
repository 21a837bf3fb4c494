"""``eosfm-edge head fit``: from labels and scenes to a head in the bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from eosfm_edge.bundle.heads import HeadFile, head_names, write_head
from eosfm_edge.bundle.intact import require_intact
from eosfm_edge.bundle.known_answer import read_known_answer
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.base import explain
from eosfm_edge.formats.bundle import Manifest, read_manifest
from eosfm_edge.formats.heads import (
    MOST_CLASSES,
    HeadClass,
    HeadSpec,
    head_file,
    require_head_name,
)
from eosfm_edge.heads.cells import deal, gather
from eosfm_edge.heads.labels import Labels, read_labels
from eosfm_edge.heads.place import changed_bundle
from eosfm_edge.heads.ridge import fit
from eosfm_edge.progress import Progress, silent
from eosfm_edge.runtime.backends import open_context
from eosfm_edge.scene.reading import Radiometry

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
            cells = gather(
                context,
                manifest,
                folder,
                scenes,
                read,
                levels=options.levels,
                known=known,
                most=options.cells,
                seed=options.seed,
                names=options.names,
                radiometry=options.radiometry,
                progress=progress,
                tell=tell,
            )
        classes = _classes(cells.codes, read, known)
        fold = deal(cells, options.seed)
        index = {one.code: place for place, one in enumerate(classes)}
        solution = fit(
            cells.features,
            np.array([index[int(code)] for code in cells.codes], np.int64),
            fold,
            cells.judges,
            len(classes),
            lambda done, total: progress("folds", done, total),
        )
        accuracy = float(np.trace(solution.confusion) / max(1, solution.confusion.sum()))
        head = HeadFile(
            HeadSpec(
                name=name,
                levels=options.levels,
                classes=classes,
                labels=", ".join(path.name for path in labels),
                cells=len(cells.codes),
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
        cells=len(cells.codes),
        places=int(cells.place.max()) + 1,
        folds=int(fold.max()) + 1,
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


def _classes(
    codes: NDArray[np.uint8], read: Sequence[Labels], known: dict[int, str] | None
) -> tuple[HeadClass, ...]:
    """Return the classes of all cells.

    Raises:
        UserError: there is one alone, or one that is named has no cell.
    """
    found = [int(code) for code in np.unique(codes)]
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
    if len(found) > MOST_CLASSES:
        raise UserError(f"the labels have {len(found)} classes", expected=f"at most {MOST_CLASSES}")
    classes = []
    for index, code in enumerate(found):
        colour = read[0].colours.get(code) or _COLOURS[index % len(_COLOURS)]
        try:
            classes.append(HeadClass(name=names[code], code=code, colour=colour))
        except ValidationError as error:
            raise UserError(
                f"the class {code} is called {names[code][:40]!r}: {explain(error)}",
                remedy="rename it in the labels, or with --classes",
            ) from error
    return tuple(classes)


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
