"""Exports for TensorRT, parsed and built by TensorRT's own parser and builder.

TensorRT-RTX builds without a GPU; what it builds cannot be run here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from support.precise import exported

from eosfm_edge.formats.bundle import MODEL_NAME
from eosfm_edge.formats.precision import Precision

pytestmark = pytest.mark.engines

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")

AMPERE, ADA = "SM86", "SM89"


def build(model: Path, capability: str) -> Any:
    """Return the serialised engine; complains of what the parser or the builder says."""
    complaints: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                complaints.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network()
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(model)), complaints
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, capability), 0)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None, complaints
    assert not complaints
    return engine


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_every_precision_is_parsed_and_built(
    tmp_path: Path, motes: Path, imagery: Path, precision: Precision
) -> None:
    bundle = exported(tmp_path, motes, imagery, "desktop-tensorrt", precision)
    for capability in (AMPERE, ADA):
        assert build(bundle / MODEL_NAME, capability).nbytes > 0


def test_static_grn_is_parsed_and_built(tmp_path: Path, motes: Path, imagery: Path) -> None:
    bundle = exported(tmp_path, motes, imagery, "desktop-tensorrt", "int8", grn="static")
    assert build(bundle / MODEL_NAME, ADA).nbytes > 0


def test_what_onnx_runtime_wants_is_refused(tmp_path: Path, motes: Path, imagery: Path) -> None:
    """The reason why there are two forms; were it accepted, one would do."""
    bundle = exported(tmp_path, motes, imagery, "cpu", "int8")
    with pytest.raises(AssertionError, match="asymmetric quantization"):
        build(bundle / MODEL_NAME, ADA)


def test_the_form_is_what_tensorrt_documents(tmp_path: Path, motes: Path, imagery: Path) -> None:
    """Symmetric int8, per channel for weights, no integer biases, between convolution and norm."""
    graph = onnx.load(
        exported(tmp_path, motes, imagery, "desktop-tensorrt", "int8") / MODEL_NAME
    ).graph
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    quantisers = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantisers
    for node in quantisers:
        zero = constants[node.input[2]]
        assert zero.dtype == "int8" and not zero.any()
    assert not [t for t in constants.values() if t.dtype == "int32"]
    after_convolution = [
        node
        for node in quantisers
        if node.op_type == "QuantizeLinear" and makers[node.input[0]].op_type == "Conv"
    ]
    assert after_convolution
    statistics = [node for node in graph.node if node.op_type in ("ReduceSum", "Sqrt")]
    inferred = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "b.eosfm" / MODEL_NAME))
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert statistics
    assert all(types[node.output[0]] == onnx.TensorProto.FLOAT for node in statistics)
