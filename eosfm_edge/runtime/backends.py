"""Who computes: libeosfm's ladder of backends, to which Python adds TensorRT by its wheel.

libeosfm uses a backend other than native only if it gives the bundle's known answer.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from eosfm_edge.engines.runner import EngineChain, FloatArray
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.extras import how_to_install
from eosfm_edge.formats.bundle import Manifest
from eosfm_edge.machine import memory
from eosfm_edge.native.binding import Context, Model
from eosfm_edge.native.header import NOT_FOUND, WRONG_ANSWER, EosfmError
from eosfm_edge.runtime.tensorrt import open_tensorrt


def open_context(
    bundle: Path,
    manifest: Manifest,
    backends: Sequence[str],
    threads: int = 0,
    warn: Callable[[str], None] | None = None,
) -> Context:
    """Open a bundle on the first of some backends that works here.

    Args:
        bundle: the bundle's directory.
        manifest: the bundle's.
        backends: who may compute, in this order.
        threads: of a backend on the CPU; 0 for all cores.
        warn: called with a sentence for each backend that cannot be used, before the next.

    Raises:
        CheckFailedError: the last backend does not give the known answer.
        UserError: the bundle cannot be opened, or no backend works here, for the last's reason.
    """

    # Opened when libeosfm first asks TensorRT to compute: if that fails, the next is tried.
    @cache
    def engines() -> EngineChain:
        return open_tensorrt(bundle, manifest)

    def compute(image: FloatArray) -> list[FloatArray]:
        return [level[0] for level in engines().run(image[np.newaxis])]

    needs_onnxruntime = any(name.startswith("onnxruntime") for name in backends)
    library = onnxruntime_library() if needs_onnxruntime else None
    last = backends[-1]
    model = Model(bundle, warn)  # which the context keeps
    try:
        return model.context(
            compute if "tensorrt" in backends else None,
            backends=" ".join(backends),
            name="tensorrt",
            backend_library=library,
            threads=threads,
            # The system would kill the process that takes more.
            memory_limit=memory(),
        )
    except EosfmError as error:
        if error.status == WRONG_ANSWER:
            raise wrong_answer(bundle, last, str(error)) from error
        if last == "native":
            raise
        raise UserError(
            f"{last} cannot be used here: {error}", remedy=_remedy(last, error.status, library)
        ) from error


def wrong_answer(bundle: Path, backend: str, reason: str) -> CheckFailedError:
    """Return the error of a backend that does not give the bundle's known answer."""
    return CheckFailedError(
        f"{bundle} gives a wrong answer on {backend}: {reason}",
        remedy="transfer or export the bundle again, or use another --backend",
    )


def onnxruntime_library() -> Path | None:
    """Return the library in ONNX Runtime's wheel.

    None where EOSFM_ONNXRUNTIME names another, which libeosfm reads, or no wheel is installed: then
    libeosfm takes the system's.
    """
    spec = None if os.environ.get("EOSFM_ONNXRUNTIME") else importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    found = sorted((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*"))
    return found[-1] if found else None


def _remedy(backend: str, status: int, library: Path | None) -> str | None:
    if backend == "onnxruntime":
        if status == NOT_FOUND and library is None:
            return how_to_install("run")
        return "check the bundle with eosfm-edge verify"
    if backend == "onnxruntime-cuda":
        return "install onnxruntime-gpu instead of onnxruntime"
    return None
