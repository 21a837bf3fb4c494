"""Deploy an ensemble: prune, calibrate, export and verify until budgets are met."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import eosfm_edge
from eosfm_edge.api.checks import require_bundle_output, require_ensemble
from eosfm_edge.api.imagery import (
    IMAGERY,
    kept_imagery,
    no_imagery,
    radiometry_of,
    require_imagery,
    used_imagery,
    with_kept,
)
from eosfm_edge.api.options import DeployOptions, ImageryOptions, PathLike, as_path
from eosfm_edge.api.verbs.build import build
from eosfm_edge.api.verbs.verify import verify
from eosfm_edge.deploying.device import Device, require_known_costs
from eosfm_edge.deploying.pace import Pace
from eosfm_edge.deploying.search import Limits, best, nearest, to_try
from eosfm_edge.device.cross import require_tools
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import atomic_directory
from eosfm_edge.formats.budget import parse_budgets
from eosfm_edge.formats.bundle import CONTENTS, Manifest, require_bundle_name
from eosfm_edge.formats.deploy import (
    DeployCandidate,
    DeployedFrom,
    DeployRecord,
    read_deploy_record,
    record_text,
)
from eosfm_edge.formats.engines import EngineEntry, read_index
from eosfm_edge.formats.imagery import KeptImagery
from eosfm_edge.formats.recipe import DEFAULT, LEAST_TILES, load_recipe
from eosfm_edge.progress import Progress, silent
from eosfm_edge.resume import resumable, work_directory
from eosfm_edge.targets.feasibility import default_purpose, tile_of
from eosfm_edge.targets.registry import find_target

if TYPE_CHECKING:
    from eosfm_edge.deploying.road import Road
    from eosfm_edge.formats.ensemble import EnsembleSpec
    from eosfm_edge.runtime.verify import Verification


class BudgetsNotMetError(CheckFailedError):
    """No candidate meets the budgets; nothing is written.

    What was made of candidates is kept beside the output, for other budgets.

    Attributes:
        candidates: what there was to choose from.
    """

    def __init__(self, candidates: Sequence[DeployCandidate], limits: Limits, work: Path) -> None:
        asked = [str(budget) for budget in limits.budgets]
        if limits.max_drop is not None:
            asked.append(f"a drop of at most {limits.max_drop:g} %")
        failed = [f"{one.name}: {one.failed}" for one in candidates if one.failed]
        super().__init__(
            "\n    ".join((f"no candidate is within {', '.join(asked)}", *failed)),
            expected="\n            ".join(("one; the nearest are", *nearest(candidates, limits))),
            remedy="allow more: the same command with other budgets resumes from what is finished, "
            f"in {work}; or first take away what channels cannot give: eosfm-edge prune with "
            "--specialists K or --scope width",
        )
        self.candidates = tuple(candidates)


@dataclass(frozen=True)
class DeployReport:
    """The report of a deployment.

    Attributes:
        record: the content of ``deploy.yaml``, which has the candidates and the verdict.
        manifest: the bundle's.
        verification: of the bundle, by the native engine here.
        engines: that were built, where the device is at hand.
        next_step: what to do now, and where.
    """

    record: DeployRecord
    manifest: Manifest
    verification: Verification
    engines: tuple[EngineEntry, ...]
    next_step: str


def deploy(
    input: PathLike,  # noqa: A002
    output: PathLike,
    options: DeployOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> DeployReport:
    """Find the ratio and precision that meet budgets, and write the bundle. No labels are needed.

    An interrupted deployment resumes from what it finished, which is kept beside the output, also
    for other budgets.

    Args:
        input: the ensemble directory.
        output: the bundle to write; its name must end in ``.eosfm``.
        options: the target, the budgets, and on which imagery; or what is to be replayed.
        overwrite: replace a bundle that is there.
        progress: told of the steps, and of about how long they still take.

    Returns:
        What was chosen from what, the verdict, and the bundle's manifest.

    Raises:
        BudgetsNotMetError: no candidate meets the budgets; nothing is written.
        CheckFailedError: the bundle does not give its known answer; nothing is written.
        UserError: the ensemble, the target, the budgets or the imagery cannot be used; nothing is
            written.
    """
    options = options or DeployOptions()
    ensemble, target = as_path(input), as_path(output)
    replayed = _replayed(options)
    kept = None if options.data else kept_imagery(ensemble)
    if replayed:
        options = _read_as_recorded(options, replayed.imagery, kept, ensemble)
    else:
        options = with_kept(options, kept)
    own_profile = options.target if isinstance(options.target, Path) else None
    inputs = [ensemble, *options.data, own_profile, options.replay]
    require_bundle_output(target, inputs, overwrite)
    limits = Limits(parse_budgets(options.budget), options.max_drop)
    if replayed is None and not limits.budgets and limits.max_drop is None:
        raise _nothing_asked(ensemble, options)
    if not options.data:
        raise no_imagery("deploy", ensemble, options)
    require_bundle_name(target)
    profile = replayed.target if replayed else find_target(str(options.target))
    tile = replayed.tile if replayed else tile_of(profile, options.tile, None)
    device = Device.of(profile)
    require_known_costs(device, limits.budgets)
    if profile.architecture == "aarch64":
        require_tools()
    spec = require_ensemble(ensemble)
    if replayed:
        _require_the_same(replayed, spec, ensemble)
    require_imagery(options.data, ensemble, kept)
    from eosfm_edge.deploying.road import Road, Wanted
    from eosfm_edge.ensemble.store import load_ensemble
    from eosfm_edge.network.tiles import draw_tiles

    progress("deploy: draw tiles", 0, 100)
    model = load_ensemble(ensemble)
    seed = replayed.imagery.seed if replayed else options.seed or 0
    asked = replayed.tiles if replayed else options.tiles
    tiles = draw_tiles(
        model,
        options.data,
        tile.size,
        asked=asked,
        least=LEAST_TILES,
        seed=seed,
        names=options.bands,
        radiometry=radiometry_of(options),
    )
    wanted = Wanted(
        ensemble,
        model,
        tiles,
        device,
        tile,
        default_purpose(profile),
        load_recipe(DEFAULT).model_copy(update={"seed": seed, "tiles": asked}),
        replayed.max_drop if replayed else options.max_drop,
        promised=not limits.of_fidelity,
    )
    with resumable(target, wanted.request, keep_after=CheckFailedError) as work:
        road = Road(wanted, work, Pace(progress))
        made = work_directory(target) / target.name
        if replayed:
            _require_the_same_tiles(replayed, tiles.sha256, options.replay)
            text = _text(options.replay)
            record = replayed
            manifest = road.export(record.ratio, record.precision, made, text)
        else:
            describe = partial(
                DeployRecord,
                created_with=f"eosfm-edge {eosfm_edge.__version__}",
                ensemble=DeployedFrom.of(spec),
                imagery=used_imagery(options, kept, seed).without_places(),
                tiles=asked,
                tiles_sha256=tiles.sha256,
                target=profile,
                tile=tile,
                budgets=tuple(map(str, limits.budgets)),
                max_drop=limits.max_drop,
                timing=device.timing,
            )
            record, manifest = _search(road, made, limits, describe)
        verification = verify(made)
        engines = _build(made, device, progress)
        with atomic_directory(target, contents=CONTENTS, overwrite=overwrite) as scratch:
            for path in made.iterdir():
                path.rename(scratch / path.name)
    return DeployReport(
        record, manifest, verification, engines, _next_step(target, device, engines)
    )


def _search(
    road: Road, bundle: Path, limits: Limits, describe: Callable[..., DeployRecord]
) -> tuple[DeployRecord, Manifest]:
    """Try candidates until the best that meets the limits is known, and export it.

    Args:
        road: makes them.
        bundle: to write.
        limits: to be met.
        describe: makes the record of a ratio, a precision and the candidates.

    Raises:
        BudgetsNotMetError: none meets them.
    """
    candidates = road.candidates()
    while True:
        while left := to_try(candidates, limits):
            candidates = _with(candidates, road.judged(left[0], left[1:]))
        taken = best(candidates, limits)
        if taken is None:
            raise BudgetsNotMetError(candidates, limits, bundle.parent)
        ratio, precision = taken.ratio, taken.precision
        record = describe(ratio=ratio, precision=precision, candidates=candidates)
        try:
            manifest = road.export(ratio, precision, bundle, record_text(record))
            _require_size(manifest, limits)
        except CheckFailedError as error:
            candidates = _with(candidates, taken.as_failed(error))
        else:
            return record, manifest


def _require_size(manifest: Manifest, limits: Limits) -> None:
    """Check the files that the native engine reads, as they were written, against the budget.

    Raises:
        CheckFailedError: they are larger.
    """
    size = sum(manifest.files[name].size for name in manifest.of_role("common", "native")) / 1e6
    for budget in limits.budgets:
        if budget.kind == "MB" and not budget.met_by(size):
            raise CheckFailedError(f"its files are of {size:.6f} MB", expected=f"at most {budget}")


def _with(
    candidates: Sequence[DeployCandidate], found: DeployCandidate
) -> tuple[DeployCandidate, ...]:
    """Return candidates with one of them replaced by what is known of it now."""
    mine = (found.ratio, found.precision)
    return tuple(found if (one.ratio, one.precision) == mine else one for one in candidates)


def _build(bundle: Path, device: Device, progress: Progress) -> tuple[EngineEntry, ...]:
    """Build a bundle's engines if its target has TensorRT and is this machine.

    TensorRT-RTX needs no GPU to build, so export has built its engines.
    """
    if device.profile.engine == "tensorrt-rtx":
        return read_index(bundle).engines
    if device.profile.engine == "tensorrt" and device.is_here:
        return build(bundle, progress=progress).engines
    return ()


def _next_step(bundle: Path, device: Device, engines: Sequence[EngineEntry]) -> str:
    """Return what to do with a bundle now."""
    name = device.profile.name
    if device.is_here:
        return f"run it: eosfm-edge run {bundle} SCENE -o features"
    if device.profile.engine == "onnxruntime" or engines:
        return f"on {name}: eosfm-edge verify {bundle.name}"
    return f"on {name}: eosfm-edge build {bundle.name}, then eosfm-edge verify {bundle.name}"


def _replayed(options: DeployOptions) -> DeployRecord | None:
    """Return the record that is to be replayed, if one is given.

    Raises:
        UserError: it is none, or options are given that it holds too.
    """
    if options.replay is None:
        return None
    usable = {"replay", "data", *ImageryOptions.model_fields}
    given = sorted(options.model_fields_set - usable)
    if given:
        raise UserError(
            f"--replay and --{given[0].replace('_', '-')} are given",
            expected="a deploy.yaml and no more than imagery: it holds the other options",
            remedy="leave one of them out",
        )
    return read_deploy_record(options.replay)


def _read_as_recorded(
    options: DeployOptions, recorded: KeptImagery, kept: KeptImagery | None, ensemble: Path
) -> DeployOptions:
    """Return options with imagery that is read as that of a record was.

    A record has no places: the imagery is what is given, or what is kept with the ensemble.

    Raises:
        UserError: none is given, and what is kept is another.
    """
    if kept and kept.without_places().files != recorded.files:
        kept = None
    if not options.data and kept is None:
        names = [shlex.quote(file.path) for file in recorded.files]
        given = " ".join(f"--data {name}" for name in names)
        raise UserError(
            f"the imagery of {options.replay} is not kept with {ensemble}: {', '.join(names)}",
            expected="the same imagery, wherever it is",
            remedy=f"add {given}, with the path of each",
        )
    read = with_kept(options, recorded)
    return read.model_copy(update={"data": options.data or with_kept(options, kept).data})


def _text(path: Path | None) -> str:
    assert path is not None, "a record was read from it"
    return path.read_text(encoding="utf-8")


def _require_the_same(record: DeployRecord, spec: EnsembleSpec, ensemble: Path) -> None:
    """Check that an ensemble is that of a record.

    Raises:
        UserError: it has other weights.
    """
    found = DeployedFrom.of(spec)
    if found.specialists == record.ensemble.specialists and found.shared == record.ensemble.shared:
        return
    raise UserError(
        f"{ensemble} is not the ensemble that was deployed",
        expected=f"{record.ensemble.name}, with the SHA-256 of weights that the deploy.yaml lists",
        remedy="give that ensemble, or deploy this one with --budget",
    )


def _require_the_same_tiles(record: DeployRecord, sha256: str, replay: Path | None) -> None:
    """Check that the tiles that were drawn are those of a record.

    Raises:
        UserError: they are others.
    """
    if sha256 != record.tiles_sha256:
        raise UserError(
            f"other tiles were drawn than {replay} was made with: SHA-256 {sha256}",
            expected=f"SHA-256 {record.tiles_sha256}",
            remedy="give the same imagery, and the same options of how it is read; or deploy anew "
            "with --budget",
        )


def _nothing_asked(ensemble: Path, options: DeployOptions) -> UserError:
    """Return the error of a deployment without a budget, and with no imagery perhaps."""
    words = ["eosfm-edge", "deploy", str(ensemble), *options.as_arguments(), "--budget", "40ms"]
    words += [] if options.data else ["--data", "SCENE"]
    expected = "one or more of --budget 40ms, 5MB, 300mJ, fidelity=0.98 and --max-drop 1"
    return UserError(
        "no budget was given" + ("" if options.data else ", and no imagery"),
        expected=expected if options.data else f"{expected}; and {IMAGERY}",
        remedy=shlex.join(words),
    )
