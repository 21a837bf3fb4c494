"""The engines that libeosfm knows, and which of them are here."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from eosfm_edge.native.header import END, EngineInfo, library

_REASON_SIZE = 512


@dataclass(frozen=True)
class KnownEngine:
    """An engine that a context can be asked to compute with.

    Attributes:
        name: as libeosfm's ladder takes it.
        reason: why it is not here; empty if it is.
        isa: of the native engine: the instruction set that it uses on this processor.
    """

    name: str
    reason: str
    isa: str | None


def known_engines() -> list[KnownEngine]:
    """Return all engines of this version of libeosfm.

    Their shared objects are loaded, but nothing that those stand on: an engine that is here may
    still lack a GPU or an ONNX Runtime.

    Raises:
        UserError: libeosfm cannot be loaded.
    """
    found: list[KnownEngine] = []
    reason = ctypes.create_string_buffer(_REASON_SIZE)
    info = EngineInfo(reason=ctypes.addressof(reason), reason_size=_REASON_SIZE)
    while library().eosfm_library_describe_engine(len(found), ctypes.byref(info)) != END:
        isa = info.isa.decode() if info.isa else None
        found.append(KnownEngine(info.name.decode(), reason.value.decode(errors="replace"), isa))
    return found
