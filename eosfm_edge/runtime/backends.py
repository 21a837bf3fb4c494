"""Who computes: the seam between a bundle and the engines that can run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.bundle.digests import damaged_files
from eosfm_edge.bundle.manifest import CHAIN_NAME, MODEL_NAME, Manifest
from eosfm_edge.errors import CheckFailedError, UserError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FloatArray = NDArray[np.float32]

BACKENDS = ("native", "onnxruntime")

INPUT_NAME = "image"  # of the graph's input; its outputs have the levels' names


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
        from eosfm_edge.runtime.binding import Model

        with Model(bundle) as model:
            info = model.describe()
            self.isa = info.isa.decode()
            self.context = model.context(threads=threads)
        shapes = {f"level{i + 1}": shape for i, shape in enumerate(self.context.shapes)}
        shapes[INPUT_NAME] = (info.bands, info.tile, info.tile)
        _require_match(manifest, shapes, CHAIN_NAME)

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        tiles = [self.context.run(list(tile)) for tile in image]
        return [np.stack(level) for level in zip(*tiles, strict=True)]


def onnxruntime_session(model: Path | bytes, threads: int = 0) -> InferenceSession:
    """Open a model with ONNX Runtime on the CPU.

    Args:
        model: a file, or its content.
        threads: 0 takes all cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while tiles are read and written take the cores from who does that.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI its products of unsigned and signed bytes add pairs up in 16 bits, which overflow
    # and can leave an int8 network 2 dB. With this it takes unsigned weights there.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxRuntime:
    """ONNX Runtime on the CPU: ``model.onnx`` as it is."""

    name = "onnxruntime"

    def __init__(self, bundle: Path, manifest: Manifest, threads: int = 0) -> None:
        """Load the model; ``threads`` 0 takes all cores.

        Raises:
            UserError: ONNX Runtime is not installed or refuses the model, or the model is not
                what the manifest says.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"the onnxruntime backend cannot be loaded: {error}",
                remedy="pip install 'eosfm-edge[run]' (from a checkout: pip install '.[run]')",
            ) from error
        try:
            self._session = onnxruntime_session(bundle / MODEL_NAME, threads)
        except Exception as error:  # ONNX Runtime raises many types of its own, of no common base
            raise UserError(
                f"ONNX Runtime {onnxruntime.__version__} refuses {bundle / MODEL_NAME}: {error}",
                remedy="check the bundle with eosfm-edge verify",
            ) from error
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        _require_match(manifest, {t.name: tuple(t.shape[1:]) for t in tensors}, MODEL_NAME)
        self._outputs = [level.name for level in manifest.levels]

    def run(self, image: FloatArray) -> list[FloatArray]:
        """Return the levels, each (N, C, H/s, W/s), of stored values (N, bands, H, W)."""
        levels: list[FloatArray] = self._session.run(self._outputs, {INPUT_NAME: image})
        return levels


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


def require_intact(bundle: Path, manifest: Manifest) -> None:
    """Check every file's digest; no backend should be given a bundle that fails this.

    Raises:
        CheckFailedError: a file is missing, altered or surplus.
    """
    complaints = damaged_files(bundle, manifest)
    if complaints:
        raise CheckFailedError(
            f"{bundle} is not as it was exported:\n    " + "\n    ".join(complaints),
            remedy="transfer or export it again",
        )


def open_backend(name: str, bundle: Path, manifest: Manifest, threads: int = 0) -> Backend:
    """Load a bundle into the backend of that name.

    Raises:
        UserError: there is no such backend, or it cannot run the bundle here.
    """
    if name == Native.name:
        return Native(bundle, manifest, threads)
    if name == OnnxRuntime.name:
        return OnnxRuntime(bundle, manifest, threads)
    raise UserError(f"there is no backend {name!r}", expected=", ".join(BACKENDS))
