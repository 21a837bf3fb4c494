"""Other people's weight files: which encoders are in one, and what it says of them.

Three kinds, told apart by content: EoS-FM's list of ``(in_chans, state_dict, config)``, a state
dict (plain, or inside a checkpoint of Lightning or another trainer), and ``.safetensors``. No
code in a file is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eosfm_edge.ensemble.archive import Archive, StoredTensor
from eosfm_edge.ensemble.kinds import Kind, kind_of, weights_in
from eosfm_edge.ensemble.names import CLASSIFIER, feature_list_name, looks_like
from eosfm_edge.ensemble.pickles import Inert
from eosfm_edge.ensemble.settings import Settings, entries, plain, read_settings
from eosfm_edge.errors import UserError
from eosfm_edge.files import sha256_file

State = dict[str, Tensor]

_MOST_BANDS = 65_536
_MOST_NAMES = 8  # under which a module is looked for, and that a message lists
_DEEPEST = 4  # a state dict below the file's own level: state_dict, model, teacher, backbone


@dataclass(frozen=True)
class EncoderEntry:
    """One specialist of a file: ``where`` names it in messages.

    ``in_ensemble`` says that it came in a form of EoS-FM's own, for several specialists.
    """

    where: str
    state: State
    in_ensemble: bool
    in_chans: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a weight file.

    ``encoders`` are the specialists in order; ``shared`` are normalisation, projection, selection
    and fusion tensors under the reference's names; ``settings`` say how they were used, if the
    file does; ``metadata`` is a safetensors header's; ``notes`` are for the user; ``prefixes``
    are those that had to be chosen from.
    """

    path: Path
    sha256: str
    encoders: tuple[EncoderEntry, ...]
    shared: State
    metadata: Mapping[str, str]
    settings: Settings | None = None
    notes: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


_SHARED = r"(?:feature_normalizers|feature_projections|encoder_selector|feature_fusion)\."
_ANCHOR = re.compile(r"^(?P<prefix>(?:.*\.)?)stem_0\.weight$")
_NUMBERED = re.compile(r"^(?P<prefix>(?:.*\.)?)encoders\.\d+\.$")
_SHARED_KEY = re.compile(rf"^(?P<prefix>(?:.*\.)?){_SHARED}")
# Lightning's name of the level that a model's weights are on; not worth telling prefixes by.
_USUAL = "state_dict."


def read_checkpoint(path: Path, prefix: str | None = None) -> Checkpoint:
    """Read a weight file of any of the kinds above, or a folder that holds one.

    Args:
        path: the file.
        prefix: which encoder to take where there are several, as messages name them.

    Raises:
        UserError: it cannot be read, is truncated or of another kind, or holds no specialist and
            nothing that specialists share, or several of them and no prefix chooses.
    """
    try:
        path = weights_in(path) if path.is_dir() else path
        kind = kind_of(path)
        sha256 = sha256_file(path)
        if kind is Kind.SAFETENSORS:
            return _from_safetensors(path, sha256, prefix)
        archive = Archive(path)
        return _from_archive(archive, sha256, prefix)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _from_safetensors(path: Path, sha256: str, prefix: str | None) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file: {error}", remedy="fetch it again"
        ) from error
    found = _Found(path, state, lambda value: value if isinstance(value, Tensor) else None)
    return found.checkpoint(sha256, metadata, None, prefix)


def _from_archive(archive: Archive, sha256: str, prefix: str | None) -> Checkpoint:
    path, content = archive.path, archive.content

    def load(value: object) -> Tensor | None:
        return archive.tensor(value) if isinstance(value, StoredTensor) else None

    if isinstance(content, list):
        return Checkpoint(path, sha256, _ensemble_list(content, path, load), {}, {})
    if isinstance(content, Inert) and not content.entries:
        raise UserError(
            f"{path} is a {content.name} object, which is not made: no code in a file is run",
            expected="a state dict",
            remedy="torch.save(model.state_dict(), 'state.pth') where it comes from",
        )
    if not isinstance(content, Mapping | Inert):
        raise UserError(f"{path} is a {_described(content)}", expected="a state dict")
    found = _Found(path, _flattened(content), load)
    return found.checkpoint(sha256, {}, read_settings(content, str(path)), prefix)


Load = Callable[[object], "Tensor | None"]


def _ensemble_list(content: list[Any], path: Path, load: Load) -> tuple[EncoderEntry, ...]:
    found = []
    for i, entry in enumerate(content):
        where = f"{path} [{i}]"
        if not (isinstance(entry, tuple | list) and len(entry) == 3):
            raise UserError(
                f"{where} is a {_described(entry)}",
                expected="(in_chans, state_dict, config), as EoS-FM writes it",
            )
        in_chans, state, config = plain(entry[0]), entry[1], entries(entry[2])
        if type(in_chans) is not int or not 1 <= in_chans <= _MOST_BANDS:
            raise UserError(
                f"{where}: in_chans is {_short(in_chans)}",
                expected=f"a number from 1 to {_MOST_BANDS}",
            )
        said = {key: value for key in ("backbone", "encoder_name")
                if isinstance(value := plain(config.get(key)), str)}  # fmt: skip
        if "backbone" not in said:
            raise UserError(
                f"{where}: config has no 'backbone'", expected="'timm_' and timm's name"
            )
        if not isinstance(state, Mapping):
            raise UserError(f"{where} is a {_described(state)}", expected="a state dict")
        named = _renamed({str(key): value for key, value in state.items()}, where, load)
        tensors = _tensors(named, where, load)
        found.append(EncoderEntry(where, tensors, True, in_chans, said))
    if not found:
        raise UserError(f"{path} is an empty list", expected="at least one specialist")
    return tuple(found)


def _flattened(content: object) -> dict[str, object]:
    """Return everything in nested dictionaries by its path, ``model.encoder.stem_0.weight``."""
    flat: dict[str, object] = {}
    seen: set[int] = set()
    level = [("", content)]
    for _ in range(_DEEPEST + 1):
        below: list[tuple[str, object]] = []
        for prefix, holder in level:
            if id(holder) in seen:  # one dictionary under two names, or in itself
                continue
            seen.add(id(holder))
            for key, value in entries(holder).items():
                if not isinstance(key, str):
                    continue
                if isinstance(value, Mapping) or (isinstance(value, Inert) and value.entries):
                    below.append((f"{prefix}{key}.", value))
                else:
                    flat[prefix + key] = value
        level = below
    return flat


@dataclass(frozen=True)
class _Found:
    """A file's values by their paths, and how a tensor is read."""

    path: Path
    values: Mapping[str, object]
    load: Load

    def checkpoint(
        self,
        sha256: str,
        metadata: Mapping[str, str],
        settings: Settings | None,
        wanted: str | None,
    ) -> Checkpoint:
        """Take the encoder that is wanted apart: whole, single, or shared tensors alone.

        What a checkpoint holds beside that, outside of the prefix, is not ours to judge.
        """
        names = {key: feature_list_name(key) for key in self.values}
        numbered: dict[str, bool] = {}  # prefix: whether several encoders are numbered below it
        for name in names.values():
            if anchor := _ANCHOR.match(name):
                several = _NUMBERED.match(anchor["prefix"])
                prefix = several["prefix"] if several else anchor["prefix"]
                numbered[prefix] = numbered.get(prefix, False) or bool(several)
        if not numbered:
            shared = {m["prefix"] for name in names.values() if (m := _SHARED_KEY.match(name))}
            numbered = dict.fromkeys(shared, True)
        if not numbered:
            raise self._no_specialist()
        notes: list[str] = []
        prefix = self._chosen(tuple(numbered), names, wanted)
        inside = self._inside(prefix, tuple(numbered), names)
        if other := looks_like(inside):
            raise UserError(f"{self.path} looks like {other}", expected="a ConvNeXtV2")
        tensors = self._without_classifier(inside, prefix, names, notes)
        where = f"{self.path} {_shown(prefix).rstrip('.')}".rstrip()
        state = _tensors(tensors, str(self.path), self.load, _shown(prefix))
        if numbered[prefix]:
            encoders, shared_state = _whole(state, self.path)
        else:
            encoders, shared_state = (EncoderEntry(where, state, False),), {}
            settings = None
        prefixes = tuple(sorted(map(_shown, numbered))) if len(numbered) > 1 else ()
        return Checkpoint(
            self.path, sha256, encoders, shared_state, metadata, settings, tuple(notes), prefixes
        )

    def _inside(
        self, prefix: str, prefixes: Sequence[str], names: Mapping[str, str]
    ) -> dict[str, object]:
        """Return the values below a prefix, but not below a longer one, as timm's features."""
        longer = tuple(p for p in prefixes if p != prefix and p.startswith(prefix))
        kept = {
            key: self.values[key]
            for key, name in names.items()
            if name.startswith(prefix) and not name.startswith(longer)
        }
        renamed = _renamed(kept, str(self.path), self.load)
        return {name.removeprefix(prefix): value for name, value in renamed.items()}

    def _chosen(self, prefixes: Sequence[str], names: Mapping[str, str], wanted: str | None) -> str:
        """Return the prefix that is wanted; a module under two names is there once."""
        first, *others = prefixes
        if not others:
            return first
        if wanted is not None:
            for prefix in prefixes:
                if _shown(prefix).rstrip(".") == wanted.rstrip("."):
                    return prefix
        if len(others) < _MOST_NAMES:
            values = self._inside(first, prefixes, names)
            if all(self._equal(values, self._inside(p, prefixes, names)) for p in others):
                return first
        shown = sorted(_shown(prefix) or "'' (no prefix)" for prefix in prefixes)
        more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
        raise UserError(
            f"{self.path} holds several encoders, under {', '.join(shown[:_MOST_NAMES])}{more}",
            expected="one, or a choice: an averaged copy (ema) or a teacher is usually the one "
            "to deploy",
            remedy=f"add --prefix {_shown(first) or repr('')}, or another of them",
        )

    def _equal(self, one: Mapping[str, object], other: Mapping[str, object]) -> bool:
        common = {key for key in one if not CLASSIFIER.match(key)}
        if common != {key for key in other if not CLASSIFIER.match(key)}:
            return False
        return all(_same(one[key], other[key], self.load) for key in common)

    def _without_classifier(
        self,
        values: Mapping[str, object],
        prefix: str,
        names: Mapping[str, str],
        notes: list[str],
    ) -> Mapping[str, object]:
        """Leave out what classifiers have beside an encoder, and say so.

        timm's feature lists have nothing beside it: there, a surplus key is a fault.
        """
        if f"{prefix}stem_0.weight" in names or "stem_0.weight" not in values:
            return values
        left = sorted({key.rpartition(".")[0] for key in values if CLASSIFIER.match(key)})
        if left:
            notes.append(f"{self.path}: the classifier is left out: {', '.join(left)}")
        return {key: value for key, value in values.items() if not CLASSIFIER.match(key)}

    def _no_specialist(self) -> UserError:
        tensors = [key for key, value in self.values.items()
                   if isinstance(value, Tensor | StoredTensor)]  # fmt: skip
        other = looks_like(tensors)
        return UserError(
            f"{self.path} holds no specialist: none of its {len(tensors)} tensors is the stem of "
            "a ConvNeXtV2" + (f"; it looks like {other}" if other else ""),
            expected="a ConvNeXtV2 by timm's names (stem_0.weight or stem.0.weight) or its "
            "authors' (downsample_layers.0.0.weight)",
        )


def _shown(prefix: str) -> str:
    """Return a prefix as the user sees it."""
    return prefix.removeprefix(_USUAL)


def _renamed(values: Mapping[str, object], where: str, load: Load) -> dict[str, object]:
    """Return values under the names of timm's feature list.

    Raises:
        UserError: two names become one, and the values differ.
    """
    renamed: dict[str, object] = {}
    origin: dict[str, str] = {}
    for key, value in values.items():
        name = feature_list_name(key)
        if name in renamed and not _same(renamed[name], value, load):
            raise UserError(
                f"{where}: {origin[name]} and {key} are the same tensor's names, with other values",
                remedy="save the one that is wanted alone",
            )
        renamed.setdefault(name, value)
        origin.setdefault(name, key)
    return renamed


def _same(one: object, other: object, load: Load) -> bool:
    """Return whether two values are one tensor, or tensors with equal values."""
    if one is other:
        return True
    first, second = load(one), load(other)
    if first is None or second is None or first.shape != second.shape:
        return False
    return first.dtype == second.dtype and torch.equal(first, second)


def _tensors(content: Mapping[str, object], where: str, load: Load, prefix: str = "") -> State:
    state: State = {}
    for key, value in content.items():
        tensor = load(value)
        if tensor is None:
            odd = isinstance(value, Inert) and value.name.startswith("torch._utils.")
            found = "not a plain tensor" if odd else f"a {_described(value)}"
            raise UserError(
                f"{where}: {prefix}{key} is {found}",
                expected="a state dict of plain tensors: dense, with values",
            )
        state[key] = tensor
    return state


def _short(value: object) -> str:
    plain_enough = isinstance(value, str | float) or value is None
    if plain_enough or (isinstance(value, int) and value.bit_length() < 256):
        return repr(value)[:80]
    return f"a {_described(value)}"


def _described(value: object) -> str:
    if isinstance(value, Inert):
        return value.name
    return "Tensor" if isinstance(value, StoredTensor) else type(value).__name__


def _whole(state: State, path: Path) -> tuple[tuple[EncoderEntry, ...], State]:
    encoders: dict[int, State] = {}
    shared: State = {}
    for key, value in state.items():
        match = re.match(r"encoders\.(\d+)\.(.+)", key)
        if match:
            encoders.setdefault(int(match[1]), {})[match[2]] = value
        elif re.match(_SHARED, key):
            # A count of training batches: nothing depends on it in evaluation mode.
            if not key.endswith(".num_batches_tracked"):
                shared[key] = value
        else:
            raise UserError(f"{path}: key {key} is not part of an EoS-FM encoder")
    missing = set(range(len(encoders))) - set(encoders)
    if missing:
        raise UserError(
            f"{path}: encoders.{min(missing)} is missing", expected="encoders numbered from 0"
        )
    return tuple(
        EncoderEntry(f"{path} encoders.{i}", encoders[i], True) for i in range(len(encoders))
    ), shared
