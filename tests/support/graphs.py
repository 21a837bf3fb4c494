"""A bundle's graphs in ONNX Runtime itself, for tests of the graphs and not of a runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.graphs import onnxruntime_session, run_graphs
from eosfm_edge.formats.bundle import read_manifest

Array = NDArray[np.float32]


def open_graphs(bundle: Path) -> Callable[[Array], list[Array]]:
    """Return a function from images (N, bands, H, W) to their levels, each (N, C, h, w)."""
    manifest = read_manifest(bundle)
    sessions = [onnxruntime_session(bundle / graph) for graph in manifest.graphs]
    names = [level.name for level in manifest.levels]
    return lambda image: run_graphs(sessions, image, names)
