"""``eosfm-edge import``: trained weights become an ensemble directory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from pydantic import TypeAdapter, ValidationError

from eosfm_edge.ensemble.checkpoint import Checkpoint, EncoderEntry, State, read_checkpoint
from eosfm_edge.ensemble.kinds import NAMELESS
from eosfm_edge.ensemble.model import build_from_state
from eosfm_edge.ensemble.settings import Settings
from eosfm_edge.ensemble.specialist import (
    ARCHITECTURES,
    backbone_from_config,
    expected_shapes,
    recognise,
    widths,
    with_dimensions_of,
)
from eosfm_edge.ensemble.state import SELECTION_WEIGHTS, check_shared, check_specialist
from eosfm_edge.ensemble.store import save_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.bands import PRESETS, S2_L1C, Band, find, parse_bands
from eosfm_edge.formats.base import explain
from eosfm_edge.formats.ensemble import (
    INPUT_ADAPTER,
    LEVELS,
    PRUNING_ADAPTER,
    SPECIALISTS_FOLDER,
    EnsembleSpec,
    FusionMode,
    InputBand,
    NormalisationMode,
    Provenance,
    PruningRecord,
    SelectionSpec,
    SpecialistSpec,
)

_PENDING = "0" * 64  # a digest that save_ensemble fills in
_LONGEST_NAME = 64
_LIKE_ENOUGH = 0.5
# What the header of a file with shared tensors may say, and what reads it.
_HEADER: dict[str, Callable[[str], object]] = {
    "input": INPUT_ADAPTER.validate_json,
    "selection": SelectionSpec.model_validate_json,
    "adaptation": TypeAdapter(AdaptationMode).validate_python,
    "normalisation": TypeAdapter(NormalisationMode).validate_python,
    "fusion": TypeAdapter(FusionMode).validate_python,
}


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
    checkpoints = [read_checkpoint(path, options.prefix) for path in sources]
    _check_prefix(options.prefix, checkpoints)
    entries = [(c, entry) for c in checkpoints for entry in c.encoders]
    if not entries:
        raise UserError("no specialist in " + ", ".join(str(path) for path in sources))
    shared, header = _shared(checkpoints)
    settings = _settings(checkpoints)
    names = _unique([_name(c, entry) for c, entry in entries])
    _check_order(header, names)
    _check_named(options.specialist_bands, names)
    read = [
        _specialist(c, entry, name, options.specialist_bands.get(name))
        for (c, entry), name in zip(entries, names, strict=True)
    ]
    specialists = [specialist for specialist, _ in read]
    states = [state for _, state in read]
    unnamed = [
        name
        for (c, _), name in zip(entries, names, strict=True)
        if name not in options.specialist_bands and "bands" not in c.metadata
    ]
    notes = [note for c in checkpoints for note in c.notes]
    from_reference = all(entry.in_ensemble for _, entry in entries)
    known = _Known(shared, header, settings, notes)
    spec = _spec(directory, specialists, known, options, from_reference)
    if settings:
        notes += _notes_of_settings(settings, spec, checkpoints)
        _ablate(states, settings)
    shared = _complete(shared, spec, bool(header) or any(c.shared for c in checkpoints), notes)
    notes += _note_of_ties(spec, shared)
    notes += _note_of_b8a(spec, unnamed)
    note_of_adaptation = _note_of_adaptation(spec, options) if from_reference else []
    notes += note_of_adaptation
    where = ", ".join(str(c.path) for c in checkpoints if c.shared) or "the ensemble"
    _check_shared(shared, spec, where, note_of_adaptation)
    # Building it is the last check: skipped specialists are warned of, and a fusion that
    # cannot work is refused, before anything is written.
    encoders = {f"encoders.{i}.{k}": v for i, state in enumerate(states) for k, v in state.items()}
    build_from_state(spec, {**encoders, **shared})
    written = save_ensemble(directory, spec, states, shared, overwrite=overwrite)
    return Imported(written, tuple(notes))


def _check_prefix(prefix: str | None, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse a prefix that chooses nothing: whoever gives one believes that there is a choice."""
    if prefix is None or any(c.prefixes for c in checkpoints):
        return
    raise UserError(
        f"--prefix {prefix!r}: {', '.join(str(c.path) for c in checkpoints)} hold one encoder each",
        remedy="leave --prefix out",
    )


def _settings(checkpoints: Sequence[Checkpoint]) -> Settings | None:
    """Return what the one file that is a whole encoder says of it."""
    if sum(bool(c.encoders) for c in checkpoints) > 1:
        return None  # it is put together anew here
    return next((c.settings for c in checkpoints if c.settings), None)


def _notes_of_settings(
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


def _ablate(states: list[State], settings: Settings) -> None:
    """Make the features of ablated specialists 0, as the reference does before it normalises.

    An encoder whose weights are all 0 gives 0.
    """
    for i in settings.ablated:
        if i >= len(states):
            raise UserError(
                f"hyper_parameters.model_args.backbone_ablate_encoders names encoder {i}",
                expected=f"numbers from 0 to {len(states) - 1}",
            )
        states[i] = {key: torch.zeros_like(value) for key, value in states[i].items()}


def _shared(checkpoints: Sequence[Checkpoint]) -> tuple[State, Mapping[str, str]]:
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


def _check_header(checkpoint: Checkpoint) -> None:
    """Check what a header says, while the file that it is in is known."""
    for key in _HEADER.keys() & checkpoint.metadata.keys():
        try:
            _HEADER[key](checkpoint.metadata[key])
        except ValidationError as error:
            raise UserError(
                f"{checkpoint.path}: '{key}' in its header: {explain(error)}"
            ) from error


def _name(checkpoint: Checkpoint, entry: EncoderEntry) -> str:
    """Return what the file calls the specialist, or what the file is called."""
    given = entry.config.get("encoder_name") or checkpoint.metadata.get("name")
    if given is None and len(checkpoint.encoders) > 1:
        given = f"encoder_{checkpoint.encoders.index(entry) + 1}"  # the reference's own default
    if given is None:
        path = checkpoint.path
        given = path.parent.name if path.name in NAMELESS else path.stem
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", str(given)).lstrip("._-")[:_LONGEST_NAME]
    return plain or "specialist"


def _unique(names: list[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        candidate, n = name, 2
        while candidate in result:
            candidate, n = f"{name[: _LONGEST_NAME - len(str(n)) - 1]}_{n}", n + 1
        result.append(candidate)
    return result


def _check_shared(
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


def _check_order(header: Mapping[str, str], names: Sequence[str]) -> None:
    """Statistics and fusion belong to specialists by number: refuse another order."""
    meant = header.get("specialists")
    if meant is not None and meant.split(",") != list(names):
        raise UserError(
            f"specialists are given as {', '.join(names)}",
            expected=meant.replace(",", ", ") + ", as the file with their fusion says",
            remedy="give the files in that order",
        )


def _check_named(specialist_bands: Mapping[str, object], names: Sequence[str]) -> None:
    unknown = set(specialist_bands) - set(names)
    if unknown:
        raise UserError(
            f"bands are given for {sorted(unknown)[0]!r}", expected=f"one of {', '.join(names)}"
        )


def _specialist(
    checkpoint: Checkpoint, entry: EncoderEntry, name: str, bands: tuple[Band, ...] | None
) -> tuple[SpecialistSpec, State]:
    """Describe a specialist, and return its tensors with the dimensions that timm gives them."""
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
        weights_sha256=_PENDING,
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
    depths, channels = ARCHITECTURES[backbone]
    wanted = {
        f"stages_{stage}.blocks.{block}.conv_dw.weight": (channels[stage], 1, 7, 7)
        for stage, depth in enumerate(depths)
        for block in range(depth)
    }
    found = {key: tuple(v.shape) for key, v in state.items() if key.endswith(".conv_dw.weight")}
    return len(wanted.items() & found.items()) / len(wanted.keys() | found.keys())


def _usual_bands(count: int) -> tuple[Band, ...]:
    """Return the band set that EoS-FM means by a number, or bands known only by their place."""
    for names in PRESETS.values():
        if len(names) == count:
            return tuple(Band(name=name) for name in names)
    return tuple(Band() for _ in range(count))


@dataclass(frozen=True)
class _Known:
    """Return the shared tensors and settings of the files; adds to ``notes``."""

    shared: State
    header: Mapping[str, str]
    settings: Settings | None
    notes: list[str]

    def selection(self) -> SelectionSpec:
        """Return how specialists count; where they were weighed and nothing says how, ask."""
        if "selection" in self.header:
            return SelectionSpec.model_validate_json(self.header["selection"])
        if self.settings:
            return self.settings.selection
        weights = self.shared.get(SELECTION_WEIGHTS)
        if weights is None:
            return SelectionSpec()
        values = ", ".join(f"{float(value):g}" for value in weights.flatten()[:32])
        raise UserError(
            f"the encoders were selected by weights ({values}), but nothing says how many of them, "
            "and how",
            expected="hyper_parameters.model_args of EoS-FM's trainer, with backbone_max_encoders",
            remedy=f"add --top-k and backbone_max_encoders of the training (--top-k "
            f"{weights.numel()} takes all), or --selection smooth; and --scale-features if "
            "backbone_scale_features was on",
        )

    def normalisation(self) -> NormalisationMode:
        """Return how feature sets are normalised."""
        if "normalisation" in self.header:
            return cast(NormalisationMode, self.header["normalisation"])
        if self.settings:
            return self.settings.normalisation
        if any(key.startswith("feature_normalizers.") for key in self.shared) or not self.shared:
            return "batch"
        self.notes.append("no normalisation statistics in the files: 'none' (or say --norm layer)")
        return "none"

    def fusion(self) -> FusionMode:
        """Return how feature sets are fused."""
        if "fusion" in self.header:
            return cast(FusionMode, self.header["fusion"])
        if self.settings:
            return self.settings.fusion
        if "feature_fusion.0.weight" in self.shared:
            return "conv1x1"
        if "feature_fusion.0.0.weight" in self.shared:
            return "mlp"
        if self.shared:
            self.notes.append(
                "no fusion tensors in the files: sets are concatenated (or say --fusion addition "
                "or multiplication, which have none either)"
            )
        return "none"

    def adaptation(self) -> AdaptationMode | None:
        """Return what says which bands a specialist gets, if the header of a file does."""
        return cast("AdaptationMode | None", self.header.get("adaptation"))

    def input(self) -> tuple[InputBand, ...]:
        """Return the ensemble's input bands."""
        if "input" in self.header:
            return INPUT_ADAPTER.validate_json(self.header["input"])
        count = self.settings.in_chans if self.settings else None
        counted = f"; there were {count}" if count else ""
        raise UserError(
            f"the files do not say what bands the ensemble's input has{counted}",
            remedy=f"add --bands, with names or one of {', '.join(PRESETS)}",
        )


def _spec(
    directory: Path,
    specialists: Sequence[SpecialistSpec],
    known: _Known,
    options: ImportOptions,
    from_reference: bool,
) -> EnsembleSpec:
    try:
        bands = options.input or known.input()
        return EnsembleSpec(
            name=options.name or re.sub(r"[^A-Za-z0-9._-]+", "_", directory.name).lstrip("._-"),
            input=bands,
            specialists=tuple(specialists),
            adaptation=options.adaptation
            or known.adaptation()
            or _adaptation(bands, options, from_reference),
            normalisation=options.normalisation or known.normalisation(),
            projection=any(key.startswith("feature_projections.") for key in known.shared),
            selection=options.selection or known.selection(),
            fusion=options.fusion or known.fusion(),
            shared_sha256=_PENDING,
        )
    except ValidationError as error:
        raise UserError(f"the ensemble does not hold together: {explain(error)}") from error


def _adaptation(
    bands: Sequence[Band], options: ImportOptions, from_reference: bool
) -> AdaptationMode:
    """Go by numbers of bands where the reference did, unless somebody says what the bands are.

    A band set of the reference's says no more than its number does.
    """
    named = tuple(band.name for band in bands) not in PRESETS.values()
    return "count" if from_reference and not named and not options.specialist_bands else "name"


def _note_of_adaptation(spec: EnsembleSpec, options: ImportOptions) -> list[str]:
    """Tell whom the other adaptation would give other bands, if nobody has chosen."""
    if options.adaptation or options.specialist_bands:
        return []
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


def _note_of_b8a(spec: EnsembleSpec, unnamed: Sequence[str]) -> list[str]:
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


def _note_of_ties(spec: EnsembleSpec, shared: State) -> list[str]:
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


def _complete(shared: State, spec: EnsembleSpec, from_file: bool, notes: list[str]) -> State:
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
