"""``eosfm-edge calibrate``: from an ensemble and unlabelled imagery to the scales of int8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import eosfm_edge
from eosfm_edge.calibration.encoder import CalibratedEncoder, Recipe, calibrate_encoder
from eosfm_edge.calibration.fused import fit_fused
from eosfm_edge.calibration.judge import normaliser_of
from eosfm_edge.calibration.observers import BandObserver
from eosfm_edge.calibration.report import sensitivity_plot, sensitivity_table
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import CheckFailedError
from eosfm_edge.files import require_replaceable
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.calibration import (
    CONTENTS,
    BandRange,
    Calibration,
    CalibrationData,
    SpecialistScales,
)
from eosfm_edge.network.calibration import (
    save_calibration,
    tensors_of,
)
from eosfm_edge.network.tiles import Tiles, inputs_of, load_tiles
from eosfm_edge.progress import Progress, silent
from eosfm_edge.resume import Work, resumable
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.reading import Radiometry

_LEAST_TILES = 64
_SCALES = "scales"  # in the header of a finished specialist's file

Calibrated = tuple[SpecialistScales, dict[str, Tensor]]


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of calibration: the imagery, and how scales are chosen.

    Attributes:
        recipe: how.
        tiles: for calibration, at most; one for every eight of them is held out. None: as many as
            the channels need (:mod:`eosfm_edge.network.cells`), and at least 64.
        tile: pixels of a tile's side, a multiple of 32: that of the export, since the norms of GRN
            depend on it.
        names, radiometry: of the data, as in export.
        overwrite: replace a calibration that is there.
    """

    recipe: Recipe = field(default_factory=Recipe)
    tiles: int | None = None
    tile: int = 224
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None
    overwrite: bool = False


def calibrate_ensemble(
    directory: Path,
    data: Sequence[SceneName] | Tiles,
    output: Path,
    options: CalibrateOptions | None = None,
    progress: Progress = silent,
) -> Calibration:
    """Calibrate every specialist of an ensemble, one after the other.

    Args:
        directory: the ensemble.
        data: unlabelled imagery: scenes, folders of bands or chips, manifests; or tiles that were
            drawn of it.
        output: the calibration directory to write.
        options: how.
        progress: called with what is done, how much of it, and of how much.

    Raises:
        CheckFailedError: the budget cannot be kept; nothing is written then.
        UserError: the ensemble or the data cannot be used.
    """
    options = options or CalibrateOptions()
    # Before the work; save_calibration checks it again.
    require_replaceable(output.absolute(), CONTENTS, options.overwrite)
    ensemble = load_ensemble(directory)
    tiles = load_tiles(
        ensemble,
        data,
        options.tile,
        asked=options.tiles,
        least=_LEAST_TILES,
        seed=options.recipe.seed,
        names=options.names,
        radiometry=options.radiometry,
    )
    request = (ensemble.spec.model_dump_json(), tiles.sha256, tiles.held_out_sha256, options.recipe)
    with resumable(output, request) as work:
        specialists, tensors = _calibrate_all(ensemble, tiles, options.recipe, work, progress)
        specialists, fused = fit_fused(ensemble, specialists, tensors, tiles, options.recipe)
        calibration = Calibration(
            ensemble=ensemble.spec.name,
            created_with=f"eosfm-edge {eosfm_edge.__version__}",
            grn=options.recipe.grn,
            min_cosine=options.recipe.budget.min_cosine,
            max_drop=options.recipe.budget.max_drop,
            data=CalibrationData(
                tiles=len(tiles.calibration),
                held_out=len(tiles.held_out),
                size=options.tile,
                seed=options.recipe.seed,
                sha256=tiles.sha256,
                source=tiles.source,
            ),
            specialists=specialists,
            fused=fused,
            tensors_sha256="0" * 64,
        )
        _require_budget(calibration, options.recipe)
        return save_calibration(
            output,
            calibration,
            tensors,
            overwrite=options.overwrite,
            table=sensitivity_table(calibration),
            plot=sensitivity_plot(calibration),
        )


def _calibrate_all(
    ensemble: Ensemble, tiles: Tiles, recipe: Recipe, work: Work, progress: Progress
) -> tuple[tuple[SpecialistScales, ...], dict[str, Tensor]]:
    owners = [owner for owner, sets in enumerate(ensemble.sets) if sets]
    specialists: list[SpecialistScales] = []
    tensors: dict[str, Tensor] = {}
    for done, owner in enumerate(owners):
        name = ensemble.spec.specialists[owner].name

        def tick(what: str, name: str = name, done: int = done) -> None:
            progress(f"calibrate: {name}, {what}", done, len(owners))

        scales, mine = work.step(
            f"{owner}.safetensors",
            partial(_calibrate, ensemble, owner, tiles, recipe, work, tick),
            _save,
            _load,
        )
        specialists.append(scales)
        tensors |= mine
        progress(f"calibrate: {name}", done + 1, len(owners))
    return tuple(specialists), tensors


def _calibrate(
    ensemble: Ensemble,
    owner: int,
    tiles: Tiles,
    recipe: Recipe,
    work: Work,
    tick: Callable[[str], None],
) -> Calibrated:
    images = inputs_of(ensemble, owner, tiles.calibration)
    found = calibrate_encoder(
        ensemble.encoders[owner],
        images,
        inputs_of(ensemble, owner, tiles.held_out),
        recipe,
        normalise=normaliser_of(ensemble, owner),
        checkpoint=work.checkpoint(f"{owner}.distillation"),
        tick=tick,
    )
    scales = _scales(ensemble, owner, found, images)
    return scales, tensors_of(scales.name, found.encoder, weights=found.changed)


def _save(one: Calibrated, path: Path) -> None:
    scales, tensors = one
    save_file(tensors, path, {_SCALES: scales.model_dump_json()})


def _load(path: Path) -> Calibrated | None:
    try:
        with safe_open(path, framework="pt") as file:
            scales = SpecialistScales.model_validate_json(file.metadata()[_SCALES])
            return scales, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValidationError, KeyError, TypeError):
        return None


def _scales(
    ensemble: Ensemble, owner: int, found: CalibratedEncoder, images: Sequence[Tensor]
) -> SpecialistScales:
    specialist = ensemble.spec.specialists[owner]
    bands = BandObserver(len(specialist.bands))
    for image in images:
        bands.add(image[None])
    return SpecialistScales(
        name=specialist.name,
        weights_sha256=specialist.weights_sha256,
        bands=tuple(
            BandRange(low=band.low, high=band.high, percentiles=(clip.low, clip.high))
            for band, clip in zip(bands.bands, bands.clips("percentile"), strict=True)
        ),
        layers=found.layers,
        static_grn=found.static_grn,
        native=found.native,
        tensorrt=found.tensorrt,
    )


def _require_budget(calibration: Calibration, recipe: Recipe) -> None:
    """Check every level, of specialists and of the ensemble, against the budget."""
    budget = recipe.budget
    wrong = []
    every = [(one.name, one.native) for one in calibration.specialists]
    for name, levels in [*every, ("the fused levels", calibration.fused)]:
        for index in budget.failing(levels):
            level = levels[index]
            wrong.append(
                f"level{index + 1} of {name} has a cosine of {level.cosine:.5f} and a drop of "
                f"{level.drop:.2f} %"
            )
    if wrong:
        asked = f"a cosine of {budget.min_cosine:g}"
        if budget.max_drop is not None:
            asked += f" and a drop of at most {budget.max_drop:g} %"
        raise CheckFailedError(
            f"the calibration does not keep its budget: {'; '.join(wrong)}",
            expected=f"at every level {asked}",
            remedy="static GRN costs fidelity that no precision gives back: use --grn exact"
            if calibration.grn == "static"
            else "ask for less with --min-cosine or --max-drop",
        )
