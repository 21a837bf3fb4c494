"""A contender of benchmarks/engines.py: `engine_worker.py ENGINE THREADS IMAGE MODEL...`.

ENGINE is native, onnxruntime, openvino-f32 or openvino-bf16. Several models are one for each run of
a specialist: they are run THREADS at once, with one thread each.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.runtime.bench_worker import serve

MODULES = {
    "native": "eosfm_edge.native.binding",
    "onnxruntime": "onnxruntime",
    "openvino-f32": "openvino",
    "openvino-bf16": "openvino",
}

Image = NDArray[np.float32]
Run = Callable[[], Sequence[Image]]


def load_native(bundle: str, threads: int, image: Image) -> Run:
    binding = importlib.import_module("eosfm_edge.native.binding")
    with binding.Model(Path(bundle)) as model:
        context = model.context(threads=threads)
    bands = list(image[0])
    return lambda: context.run(bands)


def load_onnxruntime(model: str, threads: int, image: Image) -> Run:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if threads == 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: image})


def load_openvino(model: str, threads: int, image: Image, precision: str) -> Run:
    core = importlib.import_module("openvino").Core()
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    return lambda: list(request.infer({0: image}).values())


def load(engine: str, model: str, threads: int, image: Image) -> Run:
    """Load one model into an engine."""
    if engine == "native":
        return load_native(model, threads, image)
    if engine == "onnxruntime":
        return load_onnxruntime(model, threads, image)
    return load_openvino(model, threads, image, engine.removeprefix("openvino-"))


def load_all(engine: str, models: Sequence[str], threads: int, image: Image) -> Run:
    """Load one model with all threads, or several with one each."""
    if len(models) == 1:
        return load(engine, models[0], threads, image)
    runs = [load(engine, model, 1, image) for model in models]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda run: run()[0], runs))


if __name__ == "__main__":
    _, asked, count, image_file, *files = sys.argv
    importlib.import_module(MODULES[asked])  # not part of loading a model
    stored = np.load(image_file)
    serve(lambda: load_all(asked, files, int(count), stored))
