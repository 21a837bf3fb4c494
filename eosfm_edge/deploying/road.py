"""The steps from an ensemble to a bundle: plan, prune, calibrate, judge, export.

Each step's result is kept in a work directory, so that none is done twice: not for another
candidate, and not after an interruption. Tiles are drawn once and are the same in all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from eosfm_edge.calibration.calibrate import CalibrateOptions, calibrate_ensemble
from eosfm_edge.calibration.encoder import Recipe as CalibrationRecipe
from eosfm_edge.calibration.judge import Judge
from eosfm_edge.calibration.mixed import Budget as CalibrationBudget
from eosfm_edge.deploying.device import Device
from eosfm_edge.deploying.pace import Pace
from eosfm_edge.ensemble.cost import ensemble_cost
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.exporting.deployment import deployment, load_scales
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bundle import DEPLOY_NAME, Manifest, Purpose, Tile
from eosfm_edge.formats.deploy import DeployCandidate
from eosfm_edge.formats.plan import Plan, plan_text, read_plan
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network.calibration import with_encoders
from eosfm_edge.network.deployed import NATIVE
from eosfm_edge.network.fidelity import least_cosine
from eosfm_edge.network.latency import Subject, native_bytes, nominal, time_encoders
from eosfm_edge.network.tiles import in_physical_units
from eosfm_edge.progress import Progress
from eosfm_edge.pruning.gauge import of_shapes
from eosfm_edge.pruning.measures import fidelity_of
from eosfm_edge.pruning.planner import Planner
from eosfm_edge.pruning.promise import promised_db, require_promise
from eosfm_edge.pruning.prune import PruneOptions, prune_ensemble
from eosfm_edge.resume import Work
from eosfm_edge.scene.tiles import Tiles
from eosfm_edge.targets.expectation import expected_time

Kept = TypeVar("Kept")

# The shares of multiply-accumulates that candidates lose. Beyond the last nothing is promised.
RATIOS: tuple[float, ...] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
_MILD = 0.6  # specialists that lose more are distilled
# The time that steps take of a specialist, in that of the study of its channels.
_STUDY, _COSTS, _PRUNE, _DISTILLED, _CALIBRATE, _JUDGE, _EXPORT = 1.0, 0.3, 1.2, 3.0, 2.0, 0.2, 0.5
_RATIOS: TypeAdapter[tuple[float, ...]] = TypeAdapter(tuple[float, ...])
_CANDIDATES: TypeAdapter[tuple[DeployCandidate, ...]] = TypeAdapter(tuple[DeployCandidate, ...])


@dataclass(frozen=True)
class Wanted:
    """The deployment that is wanted.

    Attributes:
        directory: of the ensemble.
        ensemble: as it was loaded from there.
        tiles: of its input.
        device: to export for.
        tile: of the export; its side is that of the tiles.
        purpose: whose files are exported.
        recipe: of pruning.
        max_drop: the percentage of cells that a probe may label otherwise, which int8 keeps too.
        promised: whether pruning is held to what docs/pruning.md promises.
    """

    directory: Path
    ensemble: Ensemble
    tiles: Tiles
    device: Device
    tile: Tile
    purpose: Purpose
    recipe: Recipe
    max_drop: float | None = None
    promised: bool = True

    @property
    def request(self) -> tuple[object, ...]:
        """All that the steps depend on.

        Budgets are not of it: they say which steps are done, and names of steps tell the rest.
        """
        return (
            self.ensemble.spec.model_dump_json(),
            self.tiles.sha256,
            *(hashlib.sha256(tile.tobytes()).hexdigest() for tile in self.tiles.held_out),
            self.device,
            self.tile,
            self.recipe,
        )

    @property
    def variant(self) -> str:
        """The part of names that says what int8 has to keep."""
        return "" if self.max_drop is None else f"-drop-{self.max_drop:g}"


class Road:
    """The steps of a deployment, each done when another first needs it."""

    def __init__(self, wanted: Wanted, work: Work, pace: Pace) -> None:
        """Prepare the steps.

        Args:
            wanted: what is deployed.
            work: keeps what is finished.
            pace: told of the steps.
        """
        self._wanted, self._work, self._pace = wanted, work, pace
        self._ensemble = wanted.ensemble
        self._tiles = in_physical_units(wanted.tiles, self._ensemble.spec)
        self._image = torch.from_numpy(wanted.tiles.held_out[0])
        self._ahead = 0.0

    def candidates(self) -> tuple[DeployCandidate, ...]:
        """Return every ratio that can be planned in every precision, with what it costs."""
        return self._kept("candidates.json", _CANDIDATES, self._costed)

    def judged(
        self, candidate: DeployCandidate, after: Sequence[DeployCandidate] = ()
    ) -> DeployCandidate:
        """Return a candidate with what it really costs, and what it leaves of the levels.

        Args:
            candidate: to be pruned and calibrated.
            after: others that may have to be tried, for the time that is left.
        """
        self._ahead = _EXPORT + sum(map(self._effort, after))
        held_to = "-promised" if self._wanted.promised else ""
        variant = self._wanted.variant if candidate.precision == "int8" else ""
        (found,) = self._kept(
            f"judged-{candidate.precision}-{candidate.ratio:g}{variant}{held_to}.json",
            _CANDIDATES,
            lambda: (self._judge(candidate),),
        )
        return found

    def export(self, ratio: float, precision: Precision, bundle: Path, record: str) -> Manifest:
        """Export a candidate, with the record of the deployment in the bundle.

        Raises:
            CheckFailedError: pruning or calibration leaves too little, or what was written differs
                too much from PyTorch; no bundle is left.
        """
        self._ahead = _EXPORT
        source = self._pruned(ratio)
        scales = self._scales(ratio) if precision == "int8" else None
        self._ahead = 0.0
        with self._step("export", _EXPORT) as tell:
            manifest = export_bundle(
                source,
                self._wanted.tiles.held_out,
                bundle,
                ExportOptions(
                    target=self._wanted.device.profile,
                    precision=precision,
                    calibration=scales,
                    tile=self._wanted.tile.size,
                    batch=self._wanted.tile.batch,
                    purpose=self._wanted.purpose,
                    beside={DEPLOY_NAME: record},
                    overwrite=True,
                ),
                tell,
            )
            tell("export", 1, 1)
        return manifest

    @contextmanager
    def _step(self, name: str, effort: float) -> Iterator[Progress]:
        """Give what a step of so much effort for each specialist tells its progress to."""
        each = sum(map(bool, self._ensemble.sets))
        with self._pace.step(name, effort * each, self._ahead * each) as tell:
            yield tell

    def _kept(self, name: str, form: TypeAdapter[Kept], make: Callable[[], Kept]) -> Kept:
        """Return the result of a step that is kept as JSON; a damaged file is made again."""

        def load(path: Path) -> Kept | None:
            try:
                return form.validate_json(path.read_bytes())
            except ValidationError:
                return None

        return self._work.step(
            name, make, lambda made, path: path.write_bytes(form.dump_json(made)), load
        )

    def _effort(self, candidate: DeployCandidate) -> float:
        """Return about how long a candidate takes to be made and judged."""
        effort = _JUDGE
        if candidate.ratio and not self._place(f"pruned-{candidate.ratio:g}").exists():
            effort += _DISTILLED if candidate.ratio > _MILD else _PRUNE
        return effort + (_CALIBRATE if candidate.precision == "int8" else 0.0)

    def _place(self, name: str) -> Path:
        place = self._work.checkpoint(name)
        assert place is not None, "a deployment has an output"
        return place

    @cached_property
    def _planner(self) -> Planner:
        with self._step("study", _STUDY) as tell:
            return Planner(self._ensemble, self._tiles, self._wanted.recipe, None, tell)

    def _plan(self, ratio: float) -> Plan:
        return self._work.step(
            f"plan-{ratio:g}.yaml",
            lambda: self._planner.plan(ratio, f"ratio {ratio:g} by {self._wanted.recipe.by}"),
            lambda made, path: path.write_text(plan_text(made), encoding="utf-8"),
            read_plan,
        )

    def _pruned(self, ratio: float) -> Path:
        """Return the ensemble pruned by a ratio."""
        if ratio == 0:
            return self._wanted.directory
        place = self._place(f"pruned-{ratio:g}")
        if not place.exists():
            self._plan(ratio)
            options = PruneOptions(
                plan=self._place(f"plan-{ratio:g}.yaml"), tile=self._wanted.tile.size
            )
            effort = _DISTILLED if ratio > _MILD else _PRUNE
            with self._step(f"prune by {ratio:g}", effort) as tell:
                prune_ensemble(self._wanted.directory, self._tiles, place, options, tell)
        return place

    def _scales(self, ratio: float) -> Path:
        """Return the calibration of the ensemble pruned by a ratio."""
        place = self._place(f"int8-{ratio:g}{self._wanted.variant}")
        if not place.exists():
            recipe = CalibrationRecipe(
                budget=CalibrationBudget(max_drop=self._wanted.max_drop),
                seed=self._wanted.recipe.seed,
            )
            options = CalibrateOptions(recipe=recipe, tile=self._wanted.tile.size)
            source = self._pruned(ratio)
            with self._step(f"calibrate {ratio:g}", _CALIBRATE) as tell:
                calibrate_ensemble(source, self._tiles, place, options, tell)
        return place

    def _plannable(self) -> tuple[float, ...]:
        """Write the plan of every ratio, and return those for which there is one."""
        self._ahead = _COSTS + _PRUNE
        for place, ratio in enumerate(RATIOS):
            try:
                self._plan(ratio)
            except UserError:
                return RATIOS[:place]  # so much cannot be removed, nor more
        return RATIOS

    def _costed(self) -> tuple[DeployCandidate, ...]:
        ratios = self._kept("ratios.json", _RATIOS, self._plannable)
        found: list[DeployCandidate] = []
        self._ahead = _PRUNE
        with self._step("costs", _COSTS) as tell:
            for done, ratio in enumerate(ratios):
                tell("costs", done, len(ratios))
                shape = of_shapes(self._ensemble, self._plan(ratio)) if ratio else self._ensemble
                subjects = [nominal(shape, one) for one in self._wanted.device.precisions]
                found += [
                    DeployCandidate(ratio=ratio, precision=subject[2], **costs)
                    for subject, costs in zip(subjects, self._costs(subjects), strict=True)
                ]
            tell("costs", len(ratios), len(ratios))
        return tuple(found)

    def _costs(self, subjects: Sequence[Subject]) -> list[dict[str, Any]]:
        """Return what ensembles cost on the target, beside the unpruned one in fp32."""
        every = [nominal(self._ensemble, "fp32"), *subjects]
        found: list[tuple[float | None, int]] = []
        if self._wanted.device.timing == "measured":
            found += [(one.ms, one.native_bytes) for one in time_encoders(every, self._image)]
        else:
            for subject in every:
                size = native_bytes(subject, self._image)
                macs = round(ensemble_cost(subject[0]).macs * self._wanted.tile.size**2)
                bound = expected_time(self._wanted.device.profile, subject[2], macs, size)
                found.append((bound.milliseconds if bound else None, size))
        watts = self._wanted.device.watts
        first = found[0][0]
        return [
            {
                "milliseconds": ms,
                "times_as_fast": first / ms if first and ms else None,
                "size": size,
                "millijoules": watts * ms if watts and ms else None,
            }
            for ms, size in found[1:]
        ]

    @cached_property
    def _judge_of_levels(self) -> Judge:
        return Judge(self._levels_of(self._ensemble))

    @torch.inference_mode()
    def _levels_of(self, ensemble: Ensemble) -> list[Sequence[Tensor]]:
        return [ensemble(tile[None]) for tile in self._tiles.held_out]

    def _judge(self, candidate: DeployCandidate) -> DeployCandidate:
        ratio, precision = candidate.ratio, candidate.precision
        try:
            pruned = load_ensemble(self._pruned(ratio))
            if self._wanted.promised:
                self._require_promise(ratio, pruned)
            scales = None
            if precision == "int8":
                scales = load_scales(self._scales(ratio), pruned)
        except CheckFailedError as error:
            return candidate.as_failed(error)
        with self._step(f"judge {candidate.name}", _JUDGE) as tell:
            engine = self._wanted.device.profile.engine
            deployed = deployment(pruned, engine, precision, scales)
            form = NATIVE if engine == "onnxruntime" else deployed.form
            encoders = {owner: one.in_form(form) for owner, one in deployed.native.items()}
            rounded = with_encoders(pruned, encoders)
            levels = self._judge_of_levels.compare(self._levels_of(rounded))
            tell("judge", 1, 2)
            (costs,) = self._costs([(pruned, deployed.native, precision)])
            tell("judge", 2, 2)
        noisy = [level.sqnr_db for level in levels if level.sqnr_db is not None]
        if not all(map(isfinite, (*noisy, *(level.cosine for level in levels)))):
            return candidate.as_failed(CheckFailedError("a level has values that are not finite"))
        return DeployCandidate(
            ratio=ratio,
            precision=precision,
            cosine=least_cosine(levels),
            sqnr_db=min(noisy) if noisy else None,
            drop=max(level.drop for level in levels),
            **costs,
        )

    def _require_promise(self, ratio: float, pruned: Ensemble) -> None:
        """Check what pruning alone leaves against what docs/pruning.md promises of it.

        Raises:
            CheckFailedError: a level keeps less.
        """
        plan = self._plan(ratio)
        promised = promised_db(1 - plan.macs_after / plan.macs_before)
        levels = fidelity_of(self._ensemble, pruned, self._tiles)
        if promised is not None and levels is not None:
            require_promise(levels, promised, f"pruning by {ratio:g}")
