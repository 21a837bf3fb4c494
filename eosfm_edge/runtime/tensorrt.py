"""TensorRT by its wheel: the engines that ``eosfm-edge build`` left in the bundle."""

from __future__ import annotations

from pathlib import Path

from eosfm_edge.engines.cuda import cuda_runtime, find_gpu
from eosfm_edge.engines.library import Library, load_library
from eosfm_edge.engines.runner import EngineChain
from eosfm_edge.engines.store import Wanted, find_engine, read_engine
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import Manifest
from eosfm_edge.formats.engines import read_index


def open_tensorrt(bundle: Path, manifest: Manifest) -> EngineChain:
    """Deserialise the engines of a bundle's graphs, if they were built for what is here.

    They run by TensorRT or TensorRT-RTX, whichever built them.

    Raises:
        CheckFailedError: an engine's bytes are not those that were built.
        UserError: there is no GPU, no TensorRT, or no engine whose whole key matches.
    """
    library = _library(bundle)
    gpu = find_gpu()
    wanted = Wanted(library.name, library.version, gpu.compute_capability)
    entries = [find_engine(bundle, manifest, graph, wanted) for graph in manifest.graphs]
    return EngineChain(
        library,
        cuda_runtime(),
        [read_engine(bundle, entry) for entry in entries],
        [level.name for level in manifest.levels],
    )


def _library(bundle: Path) -> Library:
    """Load the TensorRT that built the bundle's engines last.

    Raises:
        UserError: nothing was built, or that TensorRT is not installed.
    """
    engines = read_index(bundle).engines
    if not engines:
        raise UserError(
            f"{bundle} has no engines", remedy=f"build them here with eosfm-edge build {bundle}"
        )
    return load_library(engines[-1].key.library)
