"""A bundle's ONNX graphs, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.machine import processor_quota

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FloatArray = NDArray[np.float32]

INPUT_NAME = "image"  # of the graph's input; its outputs have the levels' names


def onnxruntime_session(model: Path | bytes, threads: int = 0) -> InferenceSession:
    """Open a graph with ONNX Runtime on the CPU, set as libeosfm's backend sets it.

    Bundles are run by libeosfm. Export checks what no bundle has: graphs in memory whose bf16 is
    widened to fp32.

    Args:
        model: a file, or its content.
        threads: 0 takes all cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or processor_quota() or 0
    # Threads that spin while tiles are read and written take the cores from who does that.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI its products of unsigned and signed bytes add pairs up in 16 bits, which overflow
    # and can leave an int8 network 2 dB. With this it takes unsigned weights there.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_graphs(
    sessions: Sequence[InferenceSession], image: FloatArray, levels: Sequence[str]
) -> list[FloatArray]:
    """Run graphs in order, each on what the image and those before it give."""
    tensors: dict[str, FloatArray] = {INPUT_NAME: image}
    for session in sessions:
        gives = [tensor.name for tensor in session.get_outputs()]
        takes = {tensor.name: tensors[tensor.name] for tensor in session.get_inputs()}
        tensors |= zip(gives, session.run(gives, takes), strict=True)
    return [tensors[level] for level in levels]
