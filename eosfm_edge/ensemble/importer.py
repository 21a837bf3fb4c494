"""``eosfm-edge import``: trained weights become an ensemble directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import ValidationError

from eosfm_edge.ensemble.checkpoint import State, read_checkpoint
from eosfm_edge.ensemble.encoders import (
    named_encoders,
    require_choice,
    require_names,
    require_order,
)
from eosfm_edge.ensemble.known import Known, settings_of, usual_adaptation
from eosfm_edge.ensemble.model import build_from_state
from eosfm_edge.ensemble.notes import (
    note_of_adaptation,
    note_of_b8a,
    note_of_ties,
    notes_of_settings,
)
from eosfm_edge.ensemble.recognition import as_specialist
from eosfm_edge.ensemble.shared import complete, require_shared_fits, shared_of
from eosfm_edge.ensemble.store import PENDING, save_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.base import explain, plain_name
from eosfm_edge.formats.ensemble import (
    EnsembleSpec,
    FusionMode,
    InputBand,
    NormalisationMode,
    SelectionSpec,
)


@dataclass(frozen=True)
class ImportOptions:
    """Settings that weight files lack. None: taken from the files, or the reference's default.

    ``prefix`` chooses among the encoders of files that hold several: a model and its average.
    """

    name: str | None = None
    input: tuple[InputBand, ...] | None = None
    specialist_bands: Mapping[str, tuple[Band, ...]] = field(default_factory=dict)
    adaptation: AdaptationMode | None = None
    normalisation: NormalisationMode | None = None
    selection: SelectionSpec | None = None
    fusion: FusionMode | None = None
    prefix: str | None = None


@dataclass(frozen=True)
class Imported:
    """The ensemble that was written, and what the user should know about how it was read."""

    spec: EnsembleSpec
    notes: tuple[str, ...]


def import_ensemble(
    sources: Sequence[Path],
    directory: Path,
    options: ImportOptions = ImportOptions(),
    *,
    overwrite: bool = False,
) -> Imported:
    """Read weight files and write an ensemble directory.

    Args:
        sources: EoS-FM ``.pth`` lists, Lightning or TerraTorch ``.ckpt``, and single specialists,
            in the order that the ensemble shall have; at most one of them with what specialists
            share.
        directory: the ensemble directory to write.
        options: what the files do not say.
        overwrite: replace a directory that is there.

    Raises:
        UserError: a file cannot be read safely, or its tensors do not fit; nothing is written.
    """
    # The encoders of all files, each under a name of its own.
    checkpoints = [read_checkpoint(path, options.prefix) for path in sources]
    require_choice(options.prefix, checkpoints)
    encoders = named_encoders(checkpoints)
    names = [encoder.name for encoder in encoders]
    shared, header = shared_of(checkpoints)
    require_order(header, names)
    require_names(options.specialist_bands, names)

    # Each becomes a specialist.
    read = [as_specialist(one, options.specialist_bands.get(one.name)) for one in encoders]
    specialists = tuple(specialist for specialist, _ in read)
    states = [state for _, state in read]
    notes = [note for checkpoint in checkpoints for note in checkpoint.notes]

    # What was given comes first, then what the files say, then what the reference does.
    settings = settings_of(checkpoints)
    known = Known(shared, header, settings, notes)
    from_reference = all(encoder.entry.in_ensemble for encoder in encoders)
    try:
        bands = options.input or known.input()
        spec = EnsembleSpec(
            name=options.name or plain_name(directory.name),
            input=bands,
            specialists=specialists,
            adaptation=options.adaptation
            or known.adaptation()
            or usual_adaptation(bands, by_count=from_reference and not options.specialist_bands),
            normalisation=options.normalisation or known.normalisation(),
            projection=any(key.startswith("feature_projections.") for key in shared),
            selection=options.selection or known.selection(),
            fusion=options.fusion or known.fusion(),
            shared_sha256=PENDING,
        )
    except ValidationError as error:
        raise UserError(f"the ensemble does not hold together: {explain(error)}") from error
    if settings:
        notes += notes_of_settings(settings, spec, checkpoints)
        _ablate(states, settings.ablated)
    has_shared = bool(header) or any(checkpoint.shared for checkpoint in checkpoints)
    shared = complete(shared, spec, from_file=has_shared, notes=notes)

    # Tell what the user may have meant otherwise.
    unnamed = [
        encoder.name
        for encoder in encoders
        if encoder.name not in options.specialist_bands
        and "bands" not in encoder.checkpoint.metadata
    ]
    notes += note_of_ties(spec, shared)
    notes += note_of_b8a(spec, unnamed)
    nobody_chose = not (options.adaptation or options.specialist_bands)
    other_bands = note_of_adaptation(spec) if from_reference and nobody_chose else []
    notes += other_bands

    where = ", ".join(str(c.path) for c in checkpoints if c.shared) or "the ensemble"
    require_shared_fits(shared, spec, where, other_bands)
    # Building it is the last check: skipped specialists are warned of, and a fusion that
    # cannot work is refused, before anything is written.
    tensors = {f"encoders.{i}.{k}": v for i, state in enumerate(states) for k, v in state.items()}
    build_from_state(spec, {**tensors, **shared})
    written = save_ensemble(directory, spec, states, shared, overwrite=overwrite)
    return Imported(written, tuple(notes))


def _ablate(states: list[State], ablated: Sequence[int]) -> None:
    """Make the features of ablated specialists 0, as the reference does before it normalises.

    An encoder whose weights are all 0 gives 0.
    """
    for i in ablated:
        if i >= len(states):
            raise UserError(
                f"hyper_parameters.model_args.backbone_ablate_encoders names encoder {i}",
                expected=f"numbers from 0 to {len(states) - 1}",
            )
        states[i] = {key: torch.zeros_like(value) for key, value in states[i].items()}
