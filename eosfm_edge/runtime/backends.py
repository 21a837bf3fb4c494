"""Who computes: the seam between a bundle and the engines that can run it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.manifest import MODEL_NAME, Manifest
from eosfm_edge.errors import UserError

FloatArray = NDArray[np.float32]

BACKENDS = ("native", "onnxruntime")


class Backend(Protocol):
    """An engine with a bundle loaded."""

    name: str

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        ...


class Native:
    """libeosfm: ``chain.gguf`` and the specialists' files."""

    name = "native"

    def __init__(self, bundle: Path, threads: int = 0) -> None:
        """Open the bundle; ``threads`` 0 takes all cores.

        Raises:
            UserError: libeosfm cannot be loaded, or refuses the bundle.
        """
        from eosfm_edge.runtime.binding import Model

        with Model(bundle) as model:
            self.isa = model.describe().isa.decode()
            self.context = model.context(threads=threads)

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        tiles = [self.context.run(list(tile)) for tile in image]
        return [np.stack(level) for level in zip(*tiles, strict=True)]


class OnnxRuntime:
    """ONNX Runtime on the CPU: ``model.onnx`` as it is."""

    name = "onnxruntime"

    def __init__(self, bundle: Path, manifest: Manifest, threads: int = 0) -> None:
        """Load the model; ``threads`` 0 takes all cores.

        Raises:
            UserError: ONNX Runtime is not installed, or refuses the model.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"the onnxruntime backend cannot be loaded: {error}",
                remedy="pip install 'eosfm-edge[run]'",
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while tiles are read and written take the cores from who does that.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                bundle / MODEL_NAME, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many types of its own, of no common base
            raise UserError(
                f"ONNX Runtime {onnxruntime.__version__} refuses {bundle / MODEL_NAME}: {error}",
                remedy="check the bundle with eosfm-edge verify",
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._outputs = [level.name for level in manifest.levels]

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        levels: list[FloatArray] = self._session.run(self._outputs, {self._input: image})
        return levels


def open_backend(name: str, bundle: Path, manifest: Manifest, threads: int = 0) -> Backend:
    """Load a bundle into the backend of that name.

    Raises:
        UserError: there is no such backend, or it cannot run the bundle here.
    """
    if name == Native.name:
        return Native(bundle, threads)
    if name == OnnxRuntime.name:
        return OnnxRuntime(bundle, manifest, threads)
    raise UserError(f"there is no backend {name!r}", expected=", ".join(BACKENDS))
