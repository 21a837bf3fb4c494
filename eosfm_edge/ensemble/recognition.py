"""Find the specialist that a weight file's tensors are: its backbone, shape and bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from pydantic import ValidationError

from eosfm_edge.ensemble.checkpoint import Checkpoint, EncoderEntry, State
from eosfm_edge.ensemble.encoders import NamedEncoder
from eosfm_edge.ensemble.specialist import (
    ARCHITECTURES,
    backbone_from_config,
    expected_shapes,
    full_shape,
    recognise,
    with_dimensions_of,
)
from eosfm_edge.ensemble.state import check_specialist
from eosfm_edge.ensemble.store import PENDING
from eosfm_edge.ensemble.view import EncoderView
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import PRESETS, Band, parse_bands
from eosfm_edge.formats.base import explain
from eosfm_edge.formats.ensemble import (
    PRUNING_ADAPTER,
    SPECIALISTS_FOLDER,
    Provenance,
    PruningRecord,
    SpecialistSpec,
)

_LIKE_ENOUGH = 0.5


def as_specialist(
    encoder: NamedEncoder, bands: tuple[Band, ...] | None
) -> tuple[SpecialistSpec, State]:
    """Describe a specialist, and return its tensors with the dimensions that timm gives them.

    Args:
        encoder: that it is.
        bands: of its input; None: those that its file gives, or that EoS-FM means by their number.

    Raises:
        UserError: the tensors are no ConvNeXtV2's, or other bands than it takes are given.
    """
    checkpoint, entry, name = encoder.checkpoint, encoder.entry, encoder.name
    metadata = checkpoint.metadata
    recognised = recognise(entry.state, metadata.get("backbone"))
    if "backbone" in entry.config:
        backbone = backbone_from_config(entry.config["backbone"], entry.where)
        in_chans = cast(int, entry.in_chans)
        shape = recognised.shape if recognised and recognised.backbone == backbone else None
    elif recognised:
        backbone, in_chans, shape = recognised.backbone, recognised.in_chans, recognised.shape
    else:
        (backbone, in_chans), shape = _closest(entry), None
    state = with_dimensions_of(entry.state, expected_shapes(backbone, in_chans, shape))
    check_specialist(state, backbone, in_chans, entry.where, shape)
    if bands is None and "bands" in metadata:
        try:
            bands = parse_bands(metadata["bands"])
        except UserError as error:
            raise UserError(f"{entry.where}: {error}") from error
    bands = bands or _usual_bands(in_chans)
    if len(bands) != in_chans:
        raise UserError(
            f"{entry.where} takes {in_chans} bands", expected=f"the {len(bands)} that are named"
        )
    specialist = SpecialistSpec(
        name=name,
        backbone=backbone,
        bands=bands,
        weights=f"{SPECIALISTS_FOLDER}/{name}.safetensors",
        weights_sha256=PENDING,
        provenance=Provenance(
            source=checkpoint.path.name,
            source_sha256=checkpoint.sha256,
            licence=metadata.get("licence"),
            citation=metadata.get("citation"),
        ),
        shape=shape,
        pruning=_pruning(checkpoint),
    )
    return specialist, state


def _pruning(checkpoint: Checkpoint) -> tuple[PruningRecord, ...]:
    """Return how a file that `prune` wrote says that it was pruned."""
    if "pruning" not in checkpoint.metadata:
        return ()
    try:
        return PRUNING_ADAPTER.validate_json(checkpoint.metadata["pruning"])
    except ValidationError as error:
        raise UserError(f"{checkpoint.path}: 'pruning' in its header: {explain(error)}") from error


def _closest(entry: EncoderEntry) -> tuple[str, int]:
    """Return the backbone that an encoder was most likely meant to be, and its input channels.

    It is damaged: checking it against that one tells which key is to blame.
    """
    stem = entry.state.get("stem_0.weight")
    if stem is None:
        raise UserError(f"{entry.where}: key stem_0.weight is missing")
    if stem.ndim != 4:
        raise UserError(
            f"{entry.where}: stem_0.weight has shape {tuple(stem.shape)}",
            expected="(channels, bands, 4, 4)",
        )
    likeness = {name: _likeness(entry.state, name) for name in ARCHITECTURES}
    backbone = max(likeness, key=likeness.__getitem__)
    if likeness[backbone] < _LIKE_ENOUGH:
        raise UserError(
            f"{entry.where} is no ConvNeXtV2 that timm knows: the stem, or the blocks and "
            "channels of its stages, fit none",
            expected="a whole encoder, under timm's features_only names",
        )
    return backbone, stem.shape[1]


def _likeness(state: Mapping[str, torch.Tensor], backbone: str) -> float:
    """Return the share of an architecture's blocks, and of those here beside them, that fit."""
    view = EncoderView(1, full_shape(backbone))
    wanted = {
        f"{step.modules[0]}.conv_dw.weight": (step.width, 1, 7, 7)
        for step in view.steps
        if step.kind == "block"
    }
    found = {key: tuple(v.shape) for key, v in state.items() if key.endswith(".conv_dw.weight")}
    return len(wanted.items() & found.items()) / len(wanted.keys() | found.keys())


def _usual_bands(count: int) -> tuple[Band, ...]:
    """Return the band set that EoS-FM means by a number, or bands known only by their place."""
    for names in PRESETS.values():
        if len(names) == count:
            return tuple(Band(name=name) for name in names)
    return tuple(Band() for _ in range(count))
