"""A contender of benchmarks/int8.py: `int8_worker.py ENGINE turn|split THREADS (MODEL IMAGE)...`.

Models are run one after the other with all threads (turn), or THREADS at once with one each
(split). ENGINE is native, openvino-f32, onnxruntime as it is but for spinning, which is off, or
onnxruntime-wide as the product sets it up.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from engine_worker import MODULES, Image, Run, load

from eosfm_edge.bundle.graphs import onnxruntime_session
from eosfm_edge.runtime.bench_worker import serve


def plain_session(model: str, threads: int) -> onnxruntime.InferenceSession:
    """Open a model as anyone does; threads that spin would disturb who has the next turn."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load_one(engine: str, model: str, threads: int, image: Image) -> Run:
    if not engine.startswith("onnxruntime"):
        return load(engine, model, threads, image)
    wide = engine == "onnxruntime-wide"
    session = (onnxruntime_session if wide else plain_session)(model, threads)
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: image})


def load_all(
    engine: str, how: str, threads: int, pairs: list[tuple[str, Image]]
) -> Callable[[], object]:
    each = threads if how == "turn" else 1
    runs = [load_one(engine, model, each, image) for model, image in pairs]
    if how == "turn":
        return lambda: [run() for run in runs]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda run: run(), runs))


if __name__ == "__main__":
    _, asked, arrangement, count, *files = sys.argv
    importlib.import_module(MODULES[asked.removesuffix("-wide")])  # not part of loading a model
    subjects = [(m, np.load(i)) for m, i in zip(files[::2], files[1::2], strict=True)]
    serve(lambda: load_all(asked, arrangement, int(count), subjects))
