"""The tensors that specialists share: of selection, normalisation and fusion; and their header."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import TypeAdapter, ValidationError

from eosfm_edge.ensemble.checkpoint import Checkpoint, State
from eosfm_edge.ensemble.specialist import widths
from eosfm_edge.ensemble.state import SELECTION_WEIGHTS, check_shared
from eosfm_edge.errors import UserError
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.base import explain
from eosfm_edge.formats.ensemble import (
    INPUT_ADAPTER,
    LEVELS,
    EnsembleSpec,
    FusionMode,
    NormalisationMode,
    SelectionSpec,
)

# What the header of a file with shared tensors may say, and what reads it.
_HEADER: dict[str, Callable[[str], object]] = {
    "input": INPUT_ADAPTER.validate_json,
    "selection": SelectionSpec.model_validate_json,
    "adaptation": TypeAdapter(AdaptationMode).validate_python,
    "normalisation": TypeAdapter(NormalisationMode).validate_python,
    "fusion": TypeAdapter(FusionMode).validate_python,
}


def shared_of(checkpoints: Sequence[Checkpoint]) -> tuple[State, Mapping[str, str]]:
    """Return the tensors that specialists share and the header of the file they came in."""
    holders = [c for c in checkpoints if c.shared]
    if len(holders) > 1:
        raise UserError(
            f"{holders[0].path} and {holders[1].path} both hold selection, normalisation or fusion",
            expected="at most one file with what specialists share",
        )
    if not holders:
        return {}, {}
    _check_header(holders[0])
    return holders[0].shared, holders[0].metadata


def complete(shared: State, spec: EnsembleSpec, *, from_file: bool, notes: list[str]) -> State:
    """Add what the reference starts with where the files have nothing.

    Selection weights of 1 and, for specialists that come without an encoder around them,
    normalisation statistics of mean 0 and variance 1.
    """
    complete = dict(shared)
    if SELECTION_WEIGHTS not in complete:
        complete[SELECTION_WEIGHTS] = torch.ones(len(spec.specialists))
        if spec.selection.k not in (None, len(spec.specialists)):
            raise UserError(
                "the files hold no selection weights to take the largest of",
                remedy="leave --top-k out",
            )
    else:
        complete[SELECTION_WEIGHTS] = complete[SELECTION_WEIGHTS].flatten()
    if spec.normalisation == "batch" and not from_file:
        notes.append(
            "no normalisation statistics in the files: mean 0 and variance 1, as the reference "
            "starts with"
        )
        for i, specialist in enumerate(spec.specialists):
            for level in LEVELS:
                width = widths(specialist)[level]
                complete[f"feature_normalizers.{i}.{level}.running_mean"] = torch.zeros(width)
                complete[f"feature_normalizers.{i}.{level}.running_var"] = torch.ones(width)
    return complete


def require_shared_fits(
    shared: State, spec: EnsembleSpec, where: str, note_of_adaptation: Sequence[str]
) -> None:
    """As :func:`check_shared`; a fusion may not fit because it was trained on other sets."""
    try:
        check_shared(shared, spec, where)
    except UserError as error:
        if not note_of_adaptation or "feature_fusion." not in str(error):
            raise
        remedy = f"use the adaptation it was trained with: {note_of_adaptation[0]}"
        raise UserError(str(error), remedy=remedy) from error


def _check_header(checkpoint: Checkpoint) -> None:
    """Check what a header says, while the file that it is in is known."""
    for key in _HEADER.keys() & checkpoint.metadata.keys():
        try:
            _HEADER[key](checkpoint.metadata[key])
        except ValidationError as error:
            raise UserError(
                f"{checkpoint.path}: '{key}' in its header: {explain(error)}"
            ) from error
