"""The settings of the encoder in a checkpoint: Lightning's ``hyper_parameters.model_args``.

EoS-FM's trainer keeps there what its tensors do not say: how many encoders were selected and how,
the normalisation, the fusion. Hydra makes it a ``DictConfig``, others a dictionary or a
``Namespace``: all are read without making such objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

import numpy as np

from eosfm_edge.ensemble.pickles import Inert
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import FusionMode, NormalisationMode, SelectionSpec

_NUMPY = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Settings:
    """The settings of a checkpoint's encoder; None stands for the reference's default.

    Attributes:
        in_chans: bands of its input, or None if the file does not say.
        selection: how much each specialist counted.
        normalisation: of each feature set.
        fusion: of all feature sets.
        ablated: specialists whose features were replaced by zeros.
    """

    in_chans: int | None
    selection: SelectionSpec
    normalisation: NormalisationMode
    fusion: FusionMode
    ablated: tuple[int, ...]

    def __str__(self) -> str:
        selection = f"selection {self.selection.mode}"
        if self.selection.mode == "topk":
            selection += f" of {self.selection.k or 'all'}"
        if self.selection.scale_features:
            selection += " with scaled features"
        ablated = f", ablated encoders {self.ablated}" if self.ablated else ""
        bands = f", {self.in_chans} input bands" if self.in_chans else ""
        return (
            f"{selection}, normalisation '{self.normalisation}', fusion '{self.fusion}'"
            f"{ablated}{bands}"
        )


def read_settings(content: object, where: str) -> Settings | None:
    """Return what a Lightning checkpoint says of an EoS-FM encoder, or None if nothing.

    Args:
        content: the checkpoint.
        where: its name in messages.

    Raises:
        UserError: a value is there that EoS-FM does not have.
    """
    arguments = entries(entries(entries(content).get("hyper_parameters")).get("model_args"))
    given = {
        key.removeprefix("backbone_"): value
        for key, value in arguments.items()
        if isinstance(key, str) and key.startswith("backbone_")
    }
    given |= {str(key): value for key, value in entries(given.get("kwargs")).items()}
    name = plain(arguments.get("backbone"))
    if not (isinstance(name, str) and name.rpartition("_")[2].lower() == "eosfm"):
        return None
    return _Reader(given, where).settings()


class _Reader:
    def __init__(self, given: Mapping[str, object], where: str) -> None:
        self._given = given
        self._where = f"{where}: hyper_parameters.model_args"

    def settings(self) -> Settings:
        mode = self._one_of("encoder_selection_mode", ("topk", "smooth"), "topk")
        # Without max_encoders there is no selection at all, whatever the mode.
        k = self._number("max_encoders")
        selection = SelectionSpec()
        if k is not None:
            scale = self._flag("scale_features", False)
            selection = (
                SelectionSpec(mode="topk", k=k, scale_features=scale)
                if mode == "topk"
                else SelectionSpec(mode="smooth", scale_features=scale)
            )
        normalised = self._flag("normalize_features", True)
        kind = self._one_of("normalization_type", ("batch", "layer"), "batch")
        return Settings(
            in_chans=self._number("in_chans"),
            selection=selection,
            normalisation=cast(NormalisationMode, kind if normalised else "none"),
            fusion=cast(FusionMode, self._one_of("feature_fusion", get_args(FusionMode), "none")),
            ablated=self._numbers("ablate_encoders"),
        )

    def _number(self, key: str) -> int | None:
        value = plain(self._given.get(key))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 16:
            raise self._odd(key, "a number from 1, or nothing")
        return value

    def _numbers(self, key: str) -> tuple[int, ...]:
        value = plain(self._given.get(key))
        if value is None:
            return ()
        if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
            raise self._odd(key, "a list of numbers from 0")
        return tuple(value)

    def _flag(self, key: str, default: bool) -> bool:
        value = plain(self._given.get(key))
        if value is not None and not isinstance(value, bool):
            raise self._odd(key, "true or false")
        return default if value is None else value

    def _one_of(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = plain(self._given.get(key))
        if value is not None and value not in choices:
            raise self._odd(key, f"one of {', '.join(choices)}")
        return default if value is None else str(value)

    def _odd(self, key: str, expected: str) -> UserError:
        value = plain(self._given[key])
        shown = repr(value)[:60] if isinstance(value, str | int | float) else "another object"
        return UserError(f"{self._where}.backbone_{key} is {shown}", expected=expected)


def entries(value: object) -> Mapping[object, object]:
    """Return what is set by key in a dictionary of any kind, or in an object with attributes."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Inert):
        if value.entries:  # a subclass of dict
            return value.entries
        state = value.state
        if isinstance(state, Mapping):
            content = state.get("_content")  # omegaconf's DictConfig
            return content if isinstance(content, Mapping) else state
    return {}


def plain(value: object) -> object:
    """Return a text, number, flag or list of such as Python has it, however it was written.

    Anything else is returned as it is. omegaconf keeps values in nodes, numpy in its scalars.
    """
    if isinstance(value, tuple | list):
        return [_scalar(item) for item in value[:_MOST_VALUES]]
    if isinstance(value, Inert) and isinstance(value.state, Mapping):
        content = value.state.get("_content")
        if isinstance(content, list):  # omegaconf's ListConfig
            return [_scalar(item) for item in content[:_MOST_VALUES]]
    return _scalar(value)


def _scalar(value: object) -> object:
    if not isinstance(value, Inert):
        return value
    if isinstance(value.state, Mapping) and "_val" in value.state:
        return value.state["_val"]
    match value.arguments:
        case (Inert(arguments=(str(code), *_)), bytes(data)) if code in _NUMPY:
            if value.name.endswith(".multiarray.scalar") and len(data) == np.dtype(code).itemsize:
                return np.frombuffer(data, f"<{code}")[0].item()
    return value
