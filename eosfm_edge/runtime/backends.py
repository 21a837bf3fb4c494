"""Who computes: the seam between a bundle and the engines that can run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from eosfm_edge.bundle.graphs import (
    CPU_PROVIDER,
    INPUT_NAME,
    FloatArray,
    Provider,
    onnxruntime_session,
    open_ends,
    run_graphs,
)
from eosfm_edge.errors import UserError
from eosfm_edge.formats.backends import BACKENDS
from eosfm_edge.formats.bundle import CHAIN_NAME, Manifest
from eosfm_edge.machine import memory
from eosfm_edge.runtime.tensorrt import TensorRT

# How far half precision may take a level from the known answer, as libeosfm's cuda backend has it.
HALF_TOLERANCE = 1e-2


class Backend(Protocol):
    """An engine with a bundle loaded."""

    name: str

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        ...


class Native:
    """libeosfm: ``chain.gguf`` and the specialists' files."""

    name = "native"

    def __init__(self, bundle: Path, manifest: Manifest, threads: int = 0) -> None:
        """Open the bundle; ``threads`` 0 takes all cores.

        Raises:
            UserError: libeosfm cannot be loaded or refuses the bundle, or the chain is not what
                the manifest says.
        """
        from eosfm_edge.native.binding import Model

        with Model(bundle) as model:
            info = model.describe()
            self.isa = info.isa.decode()
            # What the machine does not have would be found out when the system kills the process.
            self.context = model.context(threads=threads, backends=self.name, memory_limit=memory())
        shapes = {f"level{i + 1}": shape for i, shape in enumerate(self.context.shapes)}
        shapes[INPUT_NAME] = (info.bands, info.tile, info.tile)
        _require_match(manifest, shapes, CHAIN_NAME)

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        tiles = [self.context.run(list(tile)) for tile in image]
        return [np.stack(level) for level in zip(*tiles, strict=True)]


class Cuda(Native):
    """libeosfm's own kernels on an NVIDIA GPU, which reads the same files."""

    name = "cuda"


def tolerance_of(backend: str, manifest: Manifest) -> float:
    """Return how far a backend may be from the known answer, relative to a level's largest value.

    Raises:
        UserError: the bundle was not checked with what the backend computes from.
    """
    tolerance = manifest.parity_of(backend).tolerance
    return max(tolerance, HALF_TOLERANCE) if backend == Cuda.name else tolerance


class OnnxRuntime:
    """ONNX Runtime on the CPU or with CUDA: the bundle's graphs as they are."""

    def __init__(
        self, bundle: Path, manifest: Manifest, threads: int = 0, provider: Provider = CPU_PROVIDER
    ) -> None:
        """Load the graphs; ``threads`` 0 takes all cores.

        Raises:
            UserError: ONNX Runtime is not installed, has no such provider or refuses a graph, or
                the graphs are not what the manifest says.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"the onnxruntime backend cannot be loaded: {error}",
                remedy="pip install 'eosfm-edge[run]' (from a checkout: pip install '.[run]')",
            ) from error
        self.name = "onnxruntime" if provider == CPU_PROVIDER else "onnxruntime-cuda"
        if provider not in onnxruntime.get_available_providers():
            raise UserError(
                f"ONNX Runtime {onnxruntime.__version__} has no {provider} here",
                remedy="install onnxruntime-gpu in the place of onnxruntime",
            )
        self._sessions = []
        for graph in manifest.graphs:
            try:
                session = onnxruntime_session(bundle / graph, threads, provider)
            except Exception as error:  # ONNX Runtime has many types of its own, of no common base
                raise UserError(
                    f"ONNX Runtime {onnxruntime.__version__} refuses {bundle / graph}: {error}",
                    remedy="check the bundle with eosfm-edge verify",
                ) from error
            if provider not in session.get_providers():
                raise UserError(f"ONNX Runtime cannot use {provider} here: see what it says above")
            self._sessions.append(session)
        _require_match(manifest, open_ends(self._sessions), ", ".join(manifest.graphs))
        self._levels = [level.name for level in manifest.levels]

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        return run_graphs(self._sessions, image, self._levels)


def _require_match(
    manifest: Manifest, found: Mapping[str, tuple[int | str | None, ...]], file: str
) -> None:
    """Refuse a model whose tensors are not those of the manifest.

    Args:
        manifest: what they must be.
        found: their names and shapes without the batch; what is no number may be any.
        file: which has the model.

    Raises:
        UserError: a tensor is missing, surplus or of another shape.
    """
    size = manifest.tile.size
    expected = {INPUT_NAME: (len(manifest.input), size, size)}
    for level in manifest.levels:
        expected[level.name] = (level.channels, size // level.stride, size // level.stride)
    for name in sorted({*found, *expected}):
        if not _fits(found.get(name), expected.get(name)):
            raise UserError(
                f"{file} has {_described(name, found.get(name))}",
                expected=f"{_described(name, expected.get(name))}, as the manifest says",
                remedy="export the bundle again",
            )


def _fits(found: tuple[int | str | None, ...] | None, expected: tuple[int, ...] | None) -> bool:
    if found is None or expected is None or len(found) != len(expected):
        return False
    pairs = zip(found, expected, strict=True)
    return all(mine == wanted or not isinstance(mine, int) for mine, wanted in pairs)


def _described(name: str, shape: tuple[int | str | None, ...] | None) -> str:
    return f"no {name}" if shape is None else f"{name} of {' x '.join(map(str, shape))}"


def open_backend(name: str, bundle: Path, manifest: Manifest, threads: int = 0) -> Backend:
    """Load a bundle into the backend of that name.

    Raises:
        UserError: there is no such backend, or it cannot run the bundle here.
    """
    if name == Native.name:
        return Native(bundle, manifest, threads)
    if name == Cuda.name:
        return Cuda(bundle, manifest, threads)
    if name == "onnxruntime":
        return OnnxRuntime(bundle, manifest, threads)
    if name == "onnxruntime-cuda":
        return OnnxRuntime(bundle, manifest, threads, "CUDAExecutionProvider")
    if name == TensorRT.name:
        return TensorRT(bundle, manifest)
    raise UserError(f"there is no backend {name!r}", expected=", ".join(BACKENDS))
