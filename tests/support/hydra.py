"""Hydra's configurations as they are pickled, made without omegaconf.

The classes stand under omegaconf's names while a file is written, so that it has the same names,
states and nesting as one by the real package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _Node:
    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


def _class(module: str, name: str) -> Any:
    return type(name, (_Node,), {"__module__": module})


DictConfig = _class("omegaconf.dictconfig", "DictConfig")
ListConfig = _class("omegaconf.listconfig", "ListConfig")
AnyNode = _class("omegaconf.nodes", "AnyNode")
Metadata = _class("omegaconf.base", "Metadata")
_CLASSES = (DictConfig, ListConfig, AnyNode, Metadata)


def config_of(value: object, parent: object = None) -> Any:
    """Return what ``OmegaConf.create`` would make of a dictionary, list or value."""
    common = {"_metadata": Metadata(optional=True, key=None), "_parent": parent}
    if isinstance(value, Mapping):
        config = DictConfig(**common, _flags_cache=None)
        config._content = {key: config_of(entry, config) for key, entry in value.items()}
        return config
    if isinstance(value, list | tuple):
        config = ListConfig(**common, _flags_cache=None)
        config._content = [config_of(entry, config) for entry in value]
        return config
    return AnyNode(**common, _val=value)


@contextmanager
def omegaconf_in_place() -> Iterator[None]:
    """Let the classes be pickled by omegaconf's names."""
    stand_ins = {
        name: ModuleType(name) for name in {"omegaconf", *(c.__module__ for c in _CLASSES)}
    }
    for cls in _CLASSES:
        setattr(stand_ins[cls.__module__], cls.__name__, cls)
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
