"""Reading other people's weight files without running what is in them.

Three kinds, told apart by content: EoS-FM's list of ``(in_chans, state_dict, config)``, a state
dict (plain, or inside a Lightning checkpoint), and ``.safetensors``.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eosfm_edge.errors import UserError
from eosfm_edge.files import sha256_file

State = dict[str, Tensor]

_MOST_BANDS = 65_536


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
    """What a weight file holds.

    ``encoders`` are the specialists in order; ``shared`` are normalisation, projection, selection
    and fusion tensors under the reference's names; ``metadata`` is a safetensors header's.
    """

    path: Path
    sha256: str
    encoders: tuple[EncoderEntry, ...]
    shared: State
    metadata: Mapping[str, str]


_SHARED = r"(?:feature_normalizers|feature_projections|encoder_selector|feature_fusion)\."
_ENSEMBLE_KEY = re.compile(r"^(?P<prefix>(?:.*\.)?)encoders\.\d+\.stem_0\.weight$")
_SINGLE_KEY = re.compile(r"^(?P<prefix>(?:.*\.)?)stem_0\.weight$")
_SHARED_KEY = re.compile(rf"^(?P<prefix>(?:.*\.)?){_SHARED}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a weight file of any of the kinds above.

    Raises:
        UserError: it cannot be read, is truncated, would need code to be run, or holds no
            specialist and nothing that specialists share.
    """
    metadata: Mapping[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            content, metadata = _read_safetensors(path)
        else:
            content = _read_pickle(path)
        sha256 = sha256_file(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if isinstance(content, list):
        return Checkpoint(path, sha256, _ensemble_list(content, path), {}, metadata)
    encoders, shared = _split_state(_state_dict(content), path)
    return Checkpoint(path, sha256, encoders, shared, metadata)


def _read_safetensors(path: Path) -> tuple[State, Mapping[str, str]]:
    path.stat()  # safetensors' own complaint about a missing file is less clear
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a whole safetensors file: {error}", remedy="fetch it again"
        ) from error


def _read_pickle(path: Path) -> Any:
    path.open("rb").close()  # what cannot be opened is no damaged file
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"(?:GLOBAL|global) ['\"]?([\w.]+)", str(error))
        if not unsafe or _ends_within(path, unsafe[1]):
            raise _truncated(path) from error
        raise UserError(
            f"{path} would run code when loaded: it refers to {unsafe[1]}",
            expected="tensors, numbers, strings, lists and dicts only",
            remedy="have its owner save the state dict alone, best as .safetensors",
        ) from error
    except Exception as error:  # whatever a parser stumbles over in a damaged file
        raise _truncated(path) from error


def _ends_within(path: Path, name: str) -> bool:
    """Return whether a file ends within ``module.name``: cut short, it names what is not there."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(name) - 2))
        end = file.read().decode("latin-1")
    # Module and name are lines of a pickle: a name that is whole has a line end after it. Where
    # there is none, torch drops the last character of what it reads.
    read = re.escape(name.removesuffix(".")).replace(r"\.", r"[.\n]")
    unread = r"\n?.?" if name.endswith(".") else r"[^\n]?"
    return re.search(rf"{read}{unread}\Z", end, re.DOTALL) is not None


def _truncated(path: Path) -> UserError:
    # torch's own words recommend to load it with weights_only=False.
    return UserError(
        f"{path} is not a whole PyTorch file: it was cut short, damaged, or is of another kind",
        expected="a .pth or .ckpt saved by torch.save",
        remedy="fetch it again",
    )


def _ensemble_list(content: list[Any], path: Path) -> tuple[EncoderEntry, ...]:
    entries = []
    for i, entry in enumerate(content):
        where = f"{path} [{i}]"
        if not (isinstance(entry, tuple | list) and len(entry) == 3):
            raise UserError(
                f"{where} is a {type(entry).__name__}",
                expected="(in_chans, state_dict, config), as EoS-FM writes it",
            )
        in_chans, state, config = entry
        if not isinstance(in_chans, int) or not 1 <= in_chans <= _MOST_BANDS:
            raise UserError(
                f"{where}: in_chans is {in_chans!r}", expected=f"a number from 1 to {_MOST_BANDS}"
            )
        if not isinstance(config, Mapping) or "backbone" not in config:
            raise UserError(
                f"{where}: config has no 'backbone'", expected="'timm_' and timm's name"
            )
        entries.append(EncoderEntry(where, _tensors(state, where), True, in_chans, config))
    if not entries:
        raise UserError(f"{path} is an empty list", expected="at least one specialist")
    return tuple(entries)


def _state_dict(content: Any) -> Any:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        return content["state_dict"]
    return content


def _tensors(content: Any, where: str) -> State:
    if not isinstance(content, Mapping):
        raise UserError(f"{where} is a {type(content).__name__}", expected="a state dict")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{where}: {key} is a {type(value).__name__}", expected="a state dict of tensors"
            )
        if value.is_nested or value.is_meta or value.layout != torch.strided:
            raise UserError(f"{where}: {key} is not a plain tensor", expected="dense, with values")
    return dict(content)


def _split_state(content: Any, path: Path) -> tuple[tuple[EncoderEntry, ...], State]:
    """Tell apart a whole encoder, one specialist, and shared tensors alone; strip prefixes.

    What a checkpoint holds beside that, outside of the prefix, is not ours to judge.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is a {type(content).__name__}", expected="a state dict")
    state = {str(key): value for key, value in content.items()}
    for pattern, split in ((_ENSEMBLE_KEY, _whole), (_SINGLE_KEY, _single), (_SHARED_KEY, _whole)):
        prefixes = {m["prefix"] for key in state if (m := pattern.match(key))}
        if len(prefixes) > 1:
            raise UserError(
                f"{path} holds several encoders, under {', '.join(sorted(prefixes))}",
                expected="one",
                remedy="save the one that is wanted alone",
            )
        if prefixes:
            prefix = prefixes.pop()
            kept = {key: value for key, value in state.items() if key.startswith(prefix)}
            inside = {k.removeprefix(prefix): v for k, v in _tensors(kept, str(path)).items()}
            return split(inside, path, prefix)
    raise UserError(
        f"{path} holds no specialist: none of its {len(state)} keys ends in stem_0.weight",
        expected="timm's feature-list names (stem_0.weight, stages_0.blocks.0.conv_dw.weight, ...)",
    )


def _whole(state: State, path: Path, _: str) -> tuple[tuple[EncoderEntry, ...], State]:
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


def _single(state: State, path: Path, prefix: str) -> tuple[tuple[EncoderEntry, ...], State]:
    where = f"{path} {prefix.rstrip('.')}" if prefix else str(path)
    return (EncoderEntry(where, state, False),), {}
