"""The TensorRT in use: its module is a parameter of everything that builds and runs engines.

TensorRT (8.6 to 11) and TensorRT-RTX have one Python API under two names. What a version lacks is
asked of the module where it is used, not derived from its number.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from eosfm_edge.errors import UserError
from eosfm_edge.extras import how_to_install
from eosfm_edge.formats.target import TensorRt

_MODULES: dict[TensorRt, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_REMEDIES: dict[TensorRt, str] = {
    "tensorrt": "JetPack and NVIDIA's containers have it; a virtual environment sees it with "
    "--system-site-packages",
    "tensorrt-rtx": how_to_install("rtx"),
}
OLDEST = (8, 6)  # whose parser has LayerNormalization


@dataclass(frozen=True)
class Library:
    """A TensorRT that is installed: its name, its Python module and its full version."""

    name: TensorRt
    module: Any
    version: str

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.name == 'tensorrt-rtx' else 'TensorRT'} {self.version}"


def load_library(name: TensorRt) -> Library:
    """Import a TensorRT.

    Raises:
        UserError: it is not installed, cannot be loaded, or is older than 8.6.
    """
    try:
        module = importlib.import_module(_MODULES[name])
    except (ImportError, OSError) as error:
        raise UserError(
            f"{_MODULES[name]} cannot be imported: {error}",
            expected=f"the Python module of {name}",
            remedy=_REMEDIES[name],
        ) from error
    version = str(module.__version__)
    if name == "tensorrt" and _numbers(version) < OLDEST:
        raise UserError(
            f"TensorRT {version} is installed",
            expected="TensorRT 8.6 or later, which parses LayerNormalization",
            remedy="run on libeosfm: --backend native",
        )
    return Library(name, module, version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
