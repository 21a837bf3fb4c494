"""Fit heads, and put them into a bundle or take them out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from eosfm_edge.api.checks import require_there
from eosfm_edge.api.imagery import radiometry_of
from eosfm_edge.api.options import HeadOptions, PathLike, as_path
from eosfm_edge.errors import SceneWarning, UserError
from eosfm_edge.files import require_outside
from eosfm_edge.formats.base import plain_name
from eosfm_edge.packets.words import parse_levels
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.heads.fit import FitReport


def fit_head(
    bundle: PathLike,
    options: HeadOptions,
    name: str | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> FitReport:
    """Fit a head to labels over scenes, and put it into the bundle.

    The bundle's features of labelled cells are fitted by ridge regression in closed form. How good
    the head is was measured in places that it did not learn from: blocks of the scenes, held out
    in turn.

    Args:
        bundle: the bundle directory, which is replaced by one with the head.
        options: labels, scenes, and how.
        name: of the head, and of the maps that ``run`` writes; None: that of the labels' file.
        overwrite: replace a head of the name.
        progress: told of tiles and of parts that are held out.

    Returns:
        Accuracy, F1 of each class, and the confusion matrix.

    Raises:
        CheckFailedError: the bundle is damaged.
        UserError: labels and scenes do not fit, or too little is labelled; the bundle is as it was.
    """
    place = as_path(bundle)
    if not options.data or not options.labels:
        what = "labels were" if options.data else "scene was"
        raise UserError(
            f"no {what} given to fit a head of {place} to",
            expected="a scene, and a raster, polygons or points that label places in it",
            remedy=f"eosfm-edge head fit {place} --labels LABELS --data SCENE",
        )
    inputs = [one for one in (*options.data, *options.labels) if isinstance(one, Path)]
    require_there(inputs, "a file or a folder")
    require_outside(place, inputs)
    if name is None:
        name = plain_name(options.labels[0].stem)
    from eosfm_edge.heads import fit as stage

    return stage.fit_head(
        place,
        options.data,
        options.labels,
        name,
        stage.FitOptions(
            levels=parse_levels(options.levels),
            classes=options.classes,
            column=options.column,
            cells=options.cells,
            seed=options.seed,
            backend=options.backend,
            threads=options.threads,
            overwrite=overwrite,
            names=options.bands,
            radiometry=radiometry_of(options),
        ),
        progress=progress,
        tell=lambda sentence: warnings.warn(sentence, SceneWarning, stacklevel=2),
    )


def remove_head(bundle: PathLike, name: str) -> None:
    """Take a head out of a bundle.

    Args:
        bundle: the bundle directory, which is replaced by one without the head.
        name: the head's.

    Raises:
        CheckFailedError: the bundle is damaged.
        UserError: it has no head of the name.
    """
    from eosfm_edge.heads.place import remove_head as stage

    stage(as_path(bundle), name)
