"""``deploy.yaml``: what a deployment was made of, chose from and chose; it can be replayed.

``docs/deploy.md`` is the format's page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from eosfm_edge.errors import UserError
from eosfm_edge.formats.base import Name, Sha256, Strict, read_yaml_model
from eosfm_edge.formats.budget import Budget, Kind, parse_budgets
from eosfm_edge.formats.bundle import Tile
from eosfm_edge.formats.ensemble import EnsembleSpec
from eosfm_edge.formats.imagery import KeptImagery
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import Profile

# Where milliseconds come from: timed on this machine, or the target's data sheet.
Timing = Literal["measured", "expected"]
_TIMES = "\N{MULTIPLICATION SIGN}"


class DeployCandidate(Strict):
    """A ratio and a precision, what they cost on the target, and what they leave of the features.

    Attributes:
        ratio: the share of multiply-accumulates that goes.
        precision: of the matrices.
        milliseconds: of a tile; None if nothing is known of the target's speed.
        times_as_fast: as the unpruned ensemble in fp32, both in turn; None as for milliseconds.
        size: bytes of the files that the native engine reads.
        millijoules: of a tile; None if nothing is known of the target's speed or power.
        cosine: the least of the levels' mean cosines; None, as the two below, if it was not tried.
        sqnr_db: signal to noise of the worst level; None too where there is no noise.
        drop: the largest percentage of a level's cells that a probe labels otherwise.
        failed: why it is not taken, if a check failed.
    """

    ratio: float = Field(ge=0, lt=1)
    precision: Precision
    milliseconds: float | None = Field(default=None, gt=0)
    times_as_fast: float | None = Field(default=None, gt=0)
    size: int = Field(ge=0)
    millijoules: float | None = Field(default=None, gt=0)
    cosine: float | None = None
    sqnr_db: float | None = None
    drop: float | None = None
    failed: str | None = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.precision} pruned by {self.ratio:g}"

    def as_failed(self, error: UserError) -> DeployCandidate:
        """Return the candidate as one that a check found wrong."""
        return self.model_copy(update={"failed": str(error).splitlines()[0]})

    def value(self, kind: Kind) -> float | None:
        """Return what a kind of budget is about; None if it is not known."""
        if kind == "ms":
            return self.milliseconds
        if kind == "mJ":
            return self.millijoules
        return self.size / 1e6 if kind == "MB" else self.cosine

    def meets(self, budget: Budget) -> bool:
        """Return whether it is within a budget; what is not known is not."""
        value = self.value(budget.kind)
        return value is not None and budget.met_by(value)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a deployment, against the unpruned ensemble in fp32 on the same engine.

    Attributes:
        times_as_fast: None if nothing is known of the target's speed.
        timing: where that is from.
        times_smaller: by the files that the native engine reads.
        worst_db: signal to noise of the worst level; None if nothing differs.
        over: the budgets that are not met.
    """

    times_as_fast: float | None
    timing: Timing | None
    times_smaller: float
    worst_db: float | None
    over: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One-line summary: ``2.9× as fast, 7.3× smaller, 29 dB at worst: within budget``."""
        speed = ""
        if self.times_as_fast:
            speed = f"{self.times_as_fast:.1f}{_TIMES} as fast ({self.timing}), "
        fidelity = "exact" if self.worst_db is None else f"{self.worst_db:.0f} dB at worst"
        outcome = f"over {', '.join(self.over)}" if self.over else "within budget"
        return f"{speed}{self.times_smaller:.1f}{_TIMES} smaller, {fidelity}: {outcome}"


def verdict_of(
    before: DeployCandidate,
    after: DeployCandidate,
    budgets: Sequence[Budget],
    max_drop: float | None,
    timing: Timing | None,
) -> Verdict:
    """Return the verdict on a candidate.

    Args:
        before: the unpruned ensemble in fp32.
        after: the candidate, which was tried.
        budgets: what was asked for.
        max_drop: the percentage of cells that may be labelled otherwise.
        timing: where milliseconds are from.
    """
    over = [str(budget) for budget in budgets if not after.meets(budget)]
    if max_drop is not None and not (after.drop is not None and after.drop <= max_drop):
        over.append(f"a drop of {max_drop:g} %")
    return Verdict(
        after.times_as_fast,
        timing if after.times_as_fast else None,
        before.size / after.size,
        after.sqnr_db,
        tuple(over),
    )


class DeployedFrom(Strict):
    """The ensemble of a deployment, by the digests of its files."""

    name: Name
    specialists: dict[Name, Sha256]
    shared: Sha256

    @classmethod
    def of(cls, spec: EnsembleSpec) -> DeployedFrom:
        """Describe an ensemble."""
        return cls(
            name=spec.name,
            specialists={one.name: one.weights_sha256 for one in spec.specialists},
            shared=spec.shared_sha256,
        )


class DeployRecord(Strict):
    """The content of ``deploy.yaml``.

    Attributes:
        ensemble: that was deployed.
        imagery: that tiles were drawn from.
        tiles: how many were asked for, for calibration; None: as many as the channels need.
        tiles_sha256: of the stored values of the tiles that were drawn for calibration.
        target: all that was known of the device.
        tile: side and batch of the export.
        budgets: as they were written.
        max_drop: the percentage of cells that may be labelled otherwise, if it was limited.
        timing: where milliseconds are from; None if there are none.
        ratio, precision: the candidate that was taken.
        candidates: what it was chosen from.
    """

    format: Literal["eosfm-deploy"] = "eosfm-deploy"
    schema_version: Literal[1] = 1
    created_with: str
    ensemble: DeployedFrom
    imagery: KeptImagery
    tiles: int | None = Field(default=None, ge=1)
    tiles_sha256: Sha256
    target: Profile
    tile: Tile
    budgets: tuple[str, ...] = ()
    max_drop: float | None = Field(default=None, ge=0, le=100)
    timing: Timing | None = None
    ratio: float
    precision: Precision
    candidates: tuple[DeployCandidate, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> DeployRecord:
        there = {(one.ratio, one.precision) for one in self.candidates}
        for needed in ((0.0, "fp32"), (self.ratio, self.precision)):
            if needed not in there:
                raise ValueError(f"candidates: {needed[1]} at ratio {needed[0]:g} is not there")
        try:
            parse_budgets(self.budgets)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def candidate(self, ratio: float, precision: Precision) -> DeployCandidate:
        """Return the candidate of a ratio and a precision."""
        wanted = (ratio, precision)
        return next(one for one in self.candidates if (one.ratio, one.precision) == wanted)

    @property
    def verdict(self) -> Verdict:
        """The verdict on what was taken."""
        return verdict_of(
            self.candidate(0.0, "fp32"),
            self.candidate(self.ratio, self.precision),
            parse_budgets(self.budgets),
            self.max_drop,
            self.timing,
        )


def read_deploy_record(path: Path) -> DeployRecord:
    """Read a ``deploy.yaml``.

    Raises:
        UserError: it is not there, or not one; names the field.
    """
    return read_yaml_model(DeployRecord, path, what="a deploy.yaml, which eosfm-edge deploy writes")


def record_text(record: DeployRecord) -> str:
    """Return a record as it is written."""
    text: str = yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False, width=100)
    return (
        "# How eosfm-edge deploy made this bundle. Make it again: eosfm-edge deploy ENSEMBLE "
        "--replay deploy.yaml\n" + text
    )
