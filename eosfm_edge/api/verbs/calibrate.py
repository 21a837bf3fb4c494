"""Calibrate an ensemble for int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosfm_edge.api.checks import require_ensemble, require_output
from eosfm_edge.api.imagery import (
    kept_imagery,
    no_imagery,
    radiometry_of,
    require_imagery,
    with_kept,
)
from eosfm_edge.api.options import CalibrateOptions, PathLike, as_path
from eosfm_edge.formats.calibration import CONTENTS as CALIBRATION_CONTENTS
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.formats.calibration import Calibration


def calibrate(
    input: PathLike,  # noqa: A002
    output: PathLike,
    options: CalibrateOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Calibration:
    """Find how each layer of an ensemble is rounded to int8. No labels are needed.

    Args:
        input: the ensemble directory.
        output: the calibration directory to write, for :func:`export`.
        options: on which imagery, and how.
        overwrite: replace a calibration that is there.
        progress: told of each specialist.

    Returns:
        Ranges, precision and fidelity of every layer.

    Raises:
        CheckFailedError: the budget cannot be kept; nothing is written.
        UserError: the ensemble or the imagery cannot be used; nothing is written.
    """
    options = options or CalibrateOptions()
    ensemble, target = as_path(input), as_path(output)
    kept = None if options.data else kept_imagery(ensemble)
    options = with_kept(options, kept)
    require_output(target, [ensemble, *options.data], CALIBRATION_CONTENTS, overwrite)
    if not options.data:
        raise no_imagery("calibrate", ensemble, options)
    require_ensemble(ensemble)
    require_imagery(options.data, ensemble, kept)
    from eosfm_edge.calibration import calibrate as stage
    from eosfm_edge.calibration.encoder import Recipe
    from eosfm_edge.calibration.mixed import Budget

    return stage.calibrate_ensemble(
        ensemble,
        options.data,
        target,
        stage.CalibrateOptions(
            recipe=Recipe(
                method=None if options.method == "auto" else options.method,
                grn=options.grn,
                budget=Budget(options.min_cosine, options.max_drop),
                distill=options.distill,
                seed=options.seed or 0,
            ),
            tiles=options.tiles,
            tile=options.tile,
            names=options.bands,
            radiometry=radiometry_of(options),
            overwrite=overwrite,
        ),
        progress,
    )
