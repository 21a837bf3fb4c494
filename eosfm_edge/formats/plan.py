"""The plan: what goes, why, and what it saves, as a file that people read, edit and replay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

import eosfm_edge
from eosfm_edge.errors import UserError
from eosfm_edge.files import cannot_write
from eosfm_edge.formats.base import Name, Sha256, Strict, read_yaml_model
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.text import runs_of_numbers

CREATED_WITH = f"eosfm-edge {eosfm_edge.__version__}"


def _parse_channels(value: Any) -> Any:
    """Read ``0-3 7 12-20``; lists of numbers are left to pydantic."""
    if isinstance(value, int):
        return (value,)
    if not isinstance(value, str):
        return value
    channels: list[int] = []
    for part in value.split():
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ValueError(f"{part!r} is not a channel, nor channels such as 3-7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{part!r} ends before it begins")
        channels += range(first, last + 1)
    return tuple(channels)


Channels = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(_parse_channels),
    AfterValidator(lambda channels: tuple(sorted(set(channels)))),
    PlainSerializer(runs_of_numbers, return_type=str),
]


class GroupPlan(Strict):
    """Channels that go together from one place.

    Attributes:
        of: a block (``stages_2.blocks.4``), or a stage's residual width (``stages_2``).
        keeps: how many channels are left: for people, ``removes`` is what counts.
        removes: which go.
        error: what the criterion expects of it: for ``reconstruction`` the squared error of the
            block's output, relative to it.
    """

    of: str = Field(pattern=r"^stages_[0-3](\.blocks\.\d+)?$")
    keeps: int
    removes: Channels
    error: float


class SpecialistPlan(Strict):
    """The plan of one specialist. MACs are for one pixel of the input and one run of it."""

    name: Name
    weights_sha256: Sha256
    action: Literal["prune", "keep", "remove"]
    why: str
    macs_before: float
    macs_after: float
    params_before: int
    params_after: int
    groups: tuple[GroupPlan, ...] = ()


class Plan(Strict):
    """A plan for an ensemble. Savings are what was expected when it was made."""

    schema_version: Literal[1] = 1
    ensemble: Name
    created_with: str
    asked: str
    recipe: Recipe
    macs_before: float
    macs_after: float
    params_before: int
    params_after: int
    specialists: tuple[SpecialistPlan, ...]

    @property
    def removed(self) -> tuple[int, ...]:
        """The places of the specialists that go as a whole."""
        return tuple(i for i, one in enumerate(self.specialists) if one.action == "remove")


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        UserError: it is not there, or not a plan; names the field.
    """
    return read_yaml_model(Plan, path, what="a pruning plan")


def plan_text(plan: Plan) -> str:
    """Return a plan as it is written."""
    text: str = yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False, width=100)
    return (
        "# What eosfm-edge prune removes: edit `removes` and `action`, and replay with --plan.\n"
        + text
    )


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        scratch.write_text(plan_text(plan), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        raise cannot_write(path, error.strerror) from error


def require_plan_fits(plan: Plan, names: Sequence[str], digests: Sequence[str]) -> None:
    """Check that a plan is of an ensemble.

    Raises:
        UserError: it is of other specialists, or of other weights of them.
    """
    planned = [one.name for one in plan.specialists]
    if planned != list(names):
        raise UserError(
            f"the plan is for the specialists {', '.join(planned)}", expected=", ".join(names)
        )
    for one, digest in zip(plan.specialists, digests, strict=True):
        if one.weights_sha256 != digest:
            raise UserError(
                f"the plan is for other weights of {one.name}",
                expected=f"SHA-256 {one.weights_sha256}, found {digest}",
                remedy="make a plan for this ensemble",
            )
