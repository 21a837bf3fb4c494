"""Fold a traced graph's constants: weights become the int8 that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

# A dequantised weight stays int8: that is what runtimes look for, and a quarter of the bytes.
_KEPT = {"DequantizeLinear"}


def fold_constants(model: onnx.ModelProto) -> None:
    """Replace the nodes of a graph that depend on constants alone by their values, in place."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    left = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if node.op_type in _KEPT or not all(name in constants for name in inputs):
            left.append(node)
            continue
        values = _run(model, node, [constants[name] for name in inputs])
        for name, value in zip(node.output, values, strict=True):
            constants[name] = numpy_helper.from_array(value, name)
    set_nodes(graph, left, constants)


def set_nodes(
    graph: onnx.GraphProto,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, onnx.TensorProto],
) -> None:
    """Give a graph other nodes, and of the constants those that they use."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in constants.items() if name in used]
    for field, values in ((graph.node, nodes), (graph.initializer, kept)):
        copies = list(values)
        del field[:]
        field.extend(copies)


def _run(
    model: onnx.ModelProto, node: onnx.NodeProto, inputs: list[onnx.TensorProto]
) -> list[NDArray[Any]]:
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    alone = onnx.helper.make_graph([node], "constant", [], outputs, inputs)
    proto = onnx.helper.make_model(alone, opset_imports=model.opset_import)
    return list(ReferenceEvaluator(proto).run(None, {}))
