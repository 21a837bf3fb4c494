"""Notes of an import: what the user should know about how the files were read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eosfm_edge.ensemble.checkpoint import Checkpoint, State
from eosfm_edge.ensemble.settings import Settings
from eosfm_edge.ensemble.state import SELECTION_WEIGHTS
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.bands import S2_L1C, Band, find
from eosfm_edge.formats.ensemble import EnsembleSpec


def notes_of_settings(
    settings: Settings, spec: EnsembleSpec, checkpoints: Sequence[Checkpoint]
) -> list[str]:
    """Tell what was read of a checkpoint's hyper-parameters, and what overrules them."""
    path = next(c.path for c in checkpoints if c.settings)
    notes = [f"read from hyper_parameters.model_args of {path}: {settings}"]
    overruled = [
        option
        for option, chosen, said in (
            ("--selection, --top-k, --scale-features", spec.selection, settings.selection),
            ("--norm", spec.normalisation, settings.normalisation),
            ("--fusion", spec.fusion, settings.fusion),
        )
        if chosen != said
    ]
    if overruled:
        notes.append(f"{', '.join(overruled)}: what was given overrules the file's own")
    if settings.in_chans not in (None, len(spec.input)):
        notes.append(
            f"the file's encoder had {settings.in_chans} input bands, and here there are "
            f"{len(spec.input)}: its specialists may be run on other bands than they were"
        )
    return notes


def note_of_adaptation(spec: EnsembleSpec) -> list[str]:
    """Tell whom the other adaptation would give other bands."""
    other: AdaptationMode = "name" if spec.adaptation == "count" else "count"
    changed = [
        specialist.name
        for specialist, ours, theirs in zip(
            spec.specialists,
            spec.feature_sets(),
            spec.model_copy(update={"adaptation": other}).feature_sets(),
            strict=True,
        )
        if ours != theirs
    ]
    reason = ", as the reference does" if spec.adaptation == "count" else ", since they are named"
    return changed and [
        f"bands are matched by {spec.adaptation}{reason}; with --adaptation {other} "
        f"{', '.join(changed)} would be run on other bands"
    ]


def note_of_b8a(spec: EnsembleSpec, unnamed: Sequence[str]) -> list[str]:
    """Tell whose thirteen bands were taken to be in the usual order, where others are in use."""
    b8a, place = find(Band(name="B8A"), spec.input), S2_L1C.index("B8A")
    guessed = [
        specialist.name
        for specialist, runs in zip(spec.specialists, spec.feature_sets(), strict=True)
        if specialist.name in unnamed
        and len(specialist.bands) == len(S2_L1C)
        and any(run[place] == b8a for run in runs)
    ]
    eurosat = "B01,...,B08,B09,...,B12,B8A"
    if spec.adaptation == "count":
        otherwise = f"--bands {eurosat} --adaptation count"
    else:
        otherwise = f"--specialist-bands NAME={eurosat}"
    return guessed and [
        f"{', '.join(guessed)}: nothing says in which order the 13 bands are: B8A is taken to "
        f"follow B08; if it is the last, as in EuroSAT, say {otherwise}"
    ]


def note_of_ties(spec: EnsembleSpec, shared: State) -> list[str]:
    """Tell where weights are equal of which one is selected and the other is not."""
    k = spec.selection.k
    if spec.selection.mode != "topk" or k is None or k >= len(spec.specialists):
        return []
    ordered = shared[SELECTION_WEIGHTS].sort(descending=True).values
    if ordered[k - 1] != ordered[k]:
        return []
    chosen = torch.topk(shared[SELECTION_WEIGHTS], k).indices.sort().values.tolist()
    names = ", ".join(spec.specialists[i].name for i in chosen)
    return [
        f"{k} of {len(spec.specialists)} specialists are selected, of weights that are equal: "
        f"PyTorch takes {names}"
    ]
