"""The verbs: each reads what the one before wrote, and writes all of its output or nothing.

Their modules are imported when they are called: :mod:`eosfm_edge` stays light.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from eosfm_edge.api.checks import require_ensemble, require_output, require_there
from eosfm_edge.api.imagery import (
    IMAGERY,
    describe_imagery,
    keep_imagery,
    kept_imagery,
    require_imagery,
    require_readable,
    with_kept,
)
from eosfm_edge.api.inputs import input_bands, notes_on_scale, selection
from eosfm_edge.api.options import (
    BenchOptions,
    BuildOptions,
    CalibrateOptions,
    ExportOptions,
    ImageryOptions,
    ImportOptions,
    Options,
    PruneOptions,
    RunOptions,
    VerifyOptions,
    as_path,
    as_scene,
)
from eosfm_edge.ensemble.kinds import require_weights
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import require_outside
from eosfm_edge.formats.bundle import CONTENTS as BUNDLE_CONTENTS
from eosfm_edge.formats.bundle import read_manifest, require_bundle_name
from eosfm_edge.formats.calibration import CONTENTS as CALIBRATION_CONTENTS
from eosfm_edge.formats.calibration import read_scales
from eosfm_edge.formats.ensemble import CONTENTS as ENSEMBLE_CONTENTS
from eosfm_edge.formats.imagery import KeptImagery
from eosfm_edge.formats.plan import read_plan, require_plan_fits
from eosfm_edge.formats.recipe import DEFAULT, Recipe, load_recipe
from eosfm_edge.packets.words import PacketOptions, parse_levels, parse_size
from eosfm_edge.progress import Progress, silent
from eosfm_edge.pruning.budget import parse_budget
from eosfm_edge.pruning.wishes import WISHES, require_one_wish
from eosfm_edge.targets.feasibility import default_precision, require_exportable, tile_of
from eosfm_edge.targets.registry import find_target

if TYPE_CHECKING:
    from eosfm_edge.engines.build import Parsed
    from eosfm_edge.ensemble.importer import Imported
    from eosfm_edge.formats.bench import BenchReport
    from eosfm_edge.formats.bundle import Manifest
    from eosfm_edge.formats.calibration import Calibration
    from eosfm_edge.formats.engines import EngineEntry
    from eosfm_edge.packets.summary import Summary
    from eosfm_edge.pruning.planner import WholeSpecialists
    from eosfm_edge.pruning.report import PruneReport
    from eosfm_edge.runtime.run import RunReport
    from eosfm_edge.runtime.verify import Verification
    from eosfm_edge.scene.reading import Radiometry

PathLike: TypeAlias = "str | os.PathLike[str]"


class BackendWarning(UserWarning):
    """A backend cannot be used, and another computes instead."""


class PromiseBrokenError(CheckFailedError):
    """A pruned ensemble keeps less than promised; it is written all the same.

    Attributes:
        report: of the pruning.
    """

    def __init__(self, error: CheckFailedError, report: PruneReport) -> None:
        Exception.__init__(self, *error.args)
        self.report = report


class PacketsLostError(CheckFailedError):
    """Bytes of a file belong to no intact packet.

    Attributes:
        summary: of the packets that are intact.
    """

    def __init__(self, file: Path, summary: Summary) -> None:
        super().__init__(
            f"{summary.lost} bytes of {file} belong to no intact packet",
            remedy="send again what is missing; the other packets can be used",
        )
        self.summary = summary


@dataclass(frozen=True)
class BuildReport:
    """The engines of a bundle.

    Attributes:
        engines: that are there now; none of a dry run.
        parsed: what a dry run found.
    """

    engines: tuple[EngineEntry, ...] = ()
    parsed: Parsed | None = None


def import_ensemble(
    input: PathLike | Sequence[PathLike],  # noqa: A002
    output: PathLike,
    options: ImportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Imported:
    """Read trained weights and write an ensemble directory.

    Args:
        input: EoS-FM ensemble files (.pth), Lightning or TerraTorch checkpoints (.ckpt) and single
            specialists, in the order that the ensemble shall have. No code in them is run.
        output: the ensemble directory to write.
        options: what the files do not say.
        overwrite: replace an ensemble that is there.
        progress: told of each file.

    Returns:
        The ensemble's description, and notes on how the files were read.

    Raises:
        UserError: a file cannot be read safely, its tensors do not fit, an input is in the output,
            or the output may not be replaced. Nothing is written then.
    """
    options = options or ImportOptions()
    given = [input] if isinstance(input, str | os.PathLike) else input
    sources, target = [as_path(path) for path in given], as_path(output)
    require_there(sources, "weights: .pth, .ckpt, .safetensors, or a folder of a model hub")
    require_output(target, [*sources, *options.data], ENSEMBLE_CONTENTS, overwrite)
    require_there(options.data, IMAGERY)
    bands, chosen = input_bands(options), selection(options)
    for source in sources:
        require_weights(source)
    imagery = None
    if options.data:
        if bands is not None:
            require_readable(options.data, bands)
        imagery = describe_imagery(options.data, seed=options.seed)
    from eosfm_edge.ensemble import importer

    progress("import", 0, 1)
    imported = importer.import_ensemble(
        sources,
        target,
        importer.ImportOptions(
            name=options.name,
            input=bands,
            specialist_bands=options.specialist_bands,
            adaptation=options.adaptation,
            normalisation=options.norm,
            selection=chosen,
            fusion=options.fusion,
            prefix=options.prefix,
        ),
        overwrite=overwrite,
    )
    if imagery is not None:
        keep_imagery(target, imagery)
    progress("import", 1, 1)
    return replace(imported, notes=(*imported.notes, *notes_on_scale(options, imported.spec.input)))


def prune(
    input: PathLike,  # noqa: A002
    output: PathLike | None,
    options: PruneOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> PruneReport:
    """Prune an ensemble: write another that costs less. No labels are needed.

    Args:
        input: the ensemble directory.
        output: the ensemble directory to write; None: only ``options.save_plan`` is written.
        options: what to prune, how, and on which imagery.
        overwrite: replace an ensemble that is there.
        progress: told of each specialist.

    Returns:
        The plan, what both ensembles cost, and how close their features are.

    Raises:
        PromiseBrokenError: a level keeps less than promised; the ensemble is written.
        CheckFailedError: no pruning meets the budget; nothing is written.
        UserError: the wish, the ensemble or the imagery cannot be used; nothing is written.
    """
    options = options or PruneOptions()
    ensemble = as_path(input)
    target = None if output is None else as_path(output)
    if target is None and options.save_plan is None:
        raise UserError(
            "there is nothing to write", remedy="give an output (-o ENSEMBLE), or --save-plan FILE"
        )
    kept = None if options.data else kept_imagery(ensemble)
    options = with_kept(options, kept)
    files = [options.plan, options.labels, *options.measured]
    if target is not None:
        inputs = [ensemble, *options.data, *files, options.save_plan, _recipe_file(options.recipe)]
        require_output(target, inputs, ENSEMBLE_CONTENTS, overwrite)
    recipe = _recipe(options)
    _require_wish(options, ensemble)
    budget = None if options.budget is None else parse_budget(options.budget)
    require_there(files, "a file")
    spec = require_ensemble(ensemble)
    if options.plan is not None:
        plan = read_plan(options.plan)
        require_plan_fits(
            plan,
            [specialist.name for specialist in spec.specialists],
            [specialist.weights_sha256 for specialist in spec.specialists],
        )
    require_imagery(options.data, ensemble, kept)
    from eosfm_edge.pruning import prune as stage

    whole = _whole(ensemble, options)
    report = stage.prune_ensemble(
        ensemble,
        options.data,
        target,
        stage.PruneOptions(
            recipe=recipe,
            ratio=options.ratio,
            budget=budget,
            plan=options.plan,
            whole=whole,
            tile=options.tile,
            precision=options.precision,
            measured=options.measured,
            save_plan=options.save_plan,
            names=options.bands,
            radiometry=_radiometry(options),
            overwrite=overwrite,
        ),
        progress,
    )
    if target is not None:
        keep_imagery(target, kept or _described(options, report.plan.recipe.seed))
    try:
        report.require_promise(str(target))
    except CheckFailedError as error:
        raise PromiseBrokenError(error, report) from error
    return report


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
        raise _no_imagery("calibrate", ensemble, options)
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
            radiometry=_radiometry(options),
            overwrite=overwrite,
        ),
        progress,
    )


def export(
    input: PathLike,  # noqa: A002
    output: PathLike,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Manifest:
    """Export an ensemble as a bundle for a target, checked against PyTorch on real tiles.

    Args:
        input: the ensemble directory.
        output: the bundle to write; its name must end in ``.eosfm``.
        options: the target, the imagery, and how.
        overwrite: replace a bundle that is there.
        progress: told of engines that are built here.

    Returns:
        The bundle's manifest.

    Raises:
        CheckFailedError: what was written differs too much from PyTorch; no bundle is left.
        UserError: the ensemble, the target or the imagery cannot be used; nothing is written.
    """
    options = options or ExportOptions()
    ensemble, target = as_path(input), as_path(output)
    kept = None if options.data is not None else kept_imagery(ensemble)
    options = with_kept(options, kept)
    device = options.target if isinstance(options.target, Path) else None
    inputs = [ensemble, options.data, options.calibration, device]
    require_output(target, inputs, BUNDLE_CONTENTS, overwrite)
    if options.split and options.stack:
        raise UserError("both split and stack are given", expected="one of them")
    profile = find_target(str(options.target))
    calibrated = options.calibration is not None
    precision = options.precision or default_precision(profile, calibrated=calibrated)
    if options.data is None:
        raise _no_imagery("export", ensemble, options)
    require_bundle_name(target)
    tile_of(profile, options.tile, options.batch)
    require_exportable(profile, precision, options.sm, calibrated=calibrated)
    require_ensemble(ensemble)
    if options.calibration is not None:
        read_scales(options.calibration)
    require_imagery([options.data], ensemble, kept)
    from eosfm_edge.exporting import exporter as stage

    return stage.export_bundle(
        ensemble,
        options.data,
        target,
        stage.ExportOptions(
            target=profile,
            precision=precision,
            calibration=options.calibration,
            tile=options.tile,
            batch=options.batch,
            layout="split" if options.split else "stacked" if options.stack else "whole",
            compute_capabilities=options.sm,
            names=options.bands,
            radiometry=_radiometry(options),
            overwrite=overwrite,
        ),
        progress,
    )


def build(
    bundle: PathLike, options: BuildOptions | None = None, *, progress: Progress = silent
) -> BuildReport:
    """Build the TensorRT engines of a bundle, on the device that is to run them.

    Args:
        bundle: the bundle directory, in which they are kept.
        options: for which GPUs.
        progress: told what TensorRT does.

    Raises:
        CheckFailedError: an engine does not compute in the exported precision; it is not kept.
        UserError: the bundle is not for TensorRT, or it cannot build here.
    """
    options = options or BuildOptions()
    place = as_path(bundle)
    from eosfm_edge.bundle.intact import require_intact
    from eosfm_edge.engines.build import build_engines, parse_graphs

    manifest = read_manifest(place)
    require_intact(place, manifest, "tensorrt")
    if options.dry_run:
        return BuildReport(parsed=parse_graphs(place, manifest, options.sm))
    return BuildReport(tuple(build_engines(place, manifest, options.sm, progress)))


def run(
    bundle: PathLike,
    scene: PathLike,
    output: PathLike,
    options: RunOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> RunReport:
    """Run a bundle over a scene and write its feature levels as cloud-optimised GeoTIFFs.

    Args:
        bundle: the bundle directory.
        scene: anything rasterio opens, a folder of single-band files, or a product of Sentinel-2,
            Landsat or Sentinel-1.
        output: the folder for ``level1.tif`` ... ``level4.tif``: float32, NaN where less than half
            of a cell is valid.
        options: how.
        overwrite: replace an output that is there.
        progress: told of tiles and of rasters written.

    Raises:
        CheckFailedError: the bundle is damaged, or gives values that are not finite.
        UserError: the scene does not fit, or the output cannot be written; nothing is left of it.
    """
    options = options or RunOptions()
    place, target, image = as_path(bundle), as_path(output), as_scene(scene)
    require_outside(target, [path for path in (place, image) if isinstance(path, Path)])
    levels = parse_levels(options.packet_levels)
    packets = None
    if options.packets is not None:
        packets = PacketOptions(parse_size(options.packets), levels, options.packet_encoding)
    from eosfm_edge.runtime import run as stage

    return stage.run_scene(
        place,
        image,
        target,
        stage.RunOptions(
            backend=options.backend,
            threads=options.threads,
            grn=options.grn,
            overlap=options.overlap,
            halo=options.halo,
            quicklook=options.quicklook,
            packets=packets,
            overwrite=overwrite,
            names=options.bands,
            radiometry=_radiometry(options),
        ),
        progress=progress,
        tell=lambda sentence: warnings.warn(sentence, BackendWarning, stacklevel=2),
    )


def verify(
    bundle: PathLike, options: VerifyOptions | None = None, *, progress: Progress = silent
) -> Verification:
    """Check a bundle's files, and that it computes its known answer here.

    Args:
        bundle: the bundle directory.
        options: with which backend.
        progress: told when it starts and ends.

    Raises:
        CheckFailedError: a file is missing, altered or surplus, or a level is too far off.
        UserError: the bundle cannot be read, or the backend cannot run it.
    """
    options = options or VerifyOptions()
    place = as_path(bundle)
    from eosfm_edge.runtime.verify import verify_bundle

    progress("verify", 0, 1)
    found = verify_bundle(place, options.backend)
    progress("verify", 1, 1)
    return found


def bench(
    bundle: PathLike, options: BenchOptions | None = None, *, progress: Progress = silent
) -> BenchReport:
    """Time a bundle's backends in turn on its known answer, each in a process of its own.

    Args:
        bundle: the bundle directory.
        options: who, and how often.
        progress: told of rounds.

    Raises:
        UserError: the bundle cannot be read, or a backend cannot run it.
    """
    options = options or BenchOptions()
    place = as_path(bundle)
    from eosfm_edge.runtime.bench import bench_bundle

    return bench_bundle(place, options.backend, options.threads, options.rounds, progress)


def check_packets(file: PathLike) -> Summary:
    """Check and count the feature packets in a file.

    Args:
        file: what a run wrote, or what arrived of it.

    Raises:
        PacketsLostError: bytes of it belong to no intact packet.
        UserError: it cannot be read.
    """
    from eosfm_edge.packets.summary import summarise

    place = as_path(file)
    summary = summarise(place)
    if summary.lost:
        raise PacketsLostError(place, summary)
    return summary


def _radiometry(options: ImageryOptions) -> Radiometry:
    from eosfm_edge.scene.reading import Radiometry

    return Radiometry(options.scale, options.offset, options.nodata, options.trust_values)


_OF_RECIPES = ("scope", "criterion", "ranking", "align", "by", "distill", "tiles", "seed")


def _recipe(options: PruneOptions) -> Recipe:
    given = {name: getattr(options, name) for name in _OF_RECIPES}
    given = {name: value for name, value in given.items() if value is not None}
    if options.plan is not None and (given or options.recipe != DEFAULT):
        raise UserError(
            "a plan and options of a recipe are given",
            remedy="--plan has its recipe in it: edit it there",
        )
    if "align" in given:
        given["align"] = int(given["align"])
    return Recipe(**{**load_recipe(options.recipe).model_dump(), **given})


def _recipe_file(recipe: str) -> Path | None:
    return Path(recipe) if Path(recipe).suffix in (".yaml", ".yml") else None


def _require_wish(options: PruneOptions, ensemble: Path) -> None:
    """Check what to prune and on which imagery; what lacks of both is asked for at once."""
    wishes = (options.ratio, options.budget, options.plan, options.specialists)
    nothing = all(wish is None for wish in wishes)
    if nothing and not options.data:
        raise UserError(
            "nothing to prune was given, and no imagery",
            expected=f"{WISHES}, and {IMAGERY}",
            remedy=f"eosfm-edge prune {ensemble} --ratio 0.5 --data SCENE",
        )
    require_one_wish(*wishes)
    wanted = options.specialists
    if (options.rank_by == "probe") != (options.labels is not None):
        raise UserError(
            "of --rank-by probe and --labels one is given", expected="both, or none of them"
        )
    if wanted is None and options.labels is not None:
        raise UserError(
            "--labels rank whole specialists, and how many stay is not given",
            remedy="add --specialists K",
        )
    if wanted not in (None, "useful") and not (str(wanted).isdecimal() and int(wanted) > 0):
        raise UserError(
            f"--specialists is {str(wanted)!r}", expected="a number of at least 1, or 'useful'"
        )
    if not options.data:
        raise _no_imagery("prune", ensemble, options)


def _described(options: PruneOptions, seed: int) -> KeptImagery:
    return describe_imagery(
        options.data,
        seed=seed,
        bands=options.bands,
        scale=options.scale,
        offset=options.offset,
        nodata=options.nodata,
    )


def _no_imagery(verb: str, ensemble: Path, options: Options) -> UserError:
    words = ["eosfm-edge", verb, str(ensemble), *options.as_arguments(), "--data", "SCENE"]
    return UserError(
        f"no imagery was given to {verb} {ensemble} on", expected=IMAGERY, remedy=shlex.join(words)
    )


def _whole(ensemble: Path, options: PruneOptions) -> WholeSpecialists | None:
    """Return which specialists stay; reads the labelled images, which takes torch."""
    from eosfm_edge.pruning.labels import read_chips
    from eosfm_edge.pruning.planner import WholeSpecialists

    wanted = options.specialists
    if wanted is None:
        return None
    chips = read_chips(options.labels, ensemble) if options.labels else ()
    return WholeSpecialists(None if wanted == "useful" else int(wanted), options.rank_by, chips)
