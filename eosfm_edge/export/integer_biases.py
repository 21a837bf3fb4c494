"""Integer biases: what ONNX Runtime's CPU provider needs to compute a product in int8.

It takes ``DequantizeLinear, DequantizeLinear, MatMul, Add`` for its int8 product (QGemm) only if
the bias is int32 behind a DequantizeLinear of its own, of the product's scale; otherwise it
multiplies in fp32 what it has dequantised. TensorRT's parser refuses such biases.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from eosfm_edge.export.constants import set_nodes


def make_biases_integer(model: onnx.ModelProto) -> int:
    """Make the biases of int8 products int32, in place; returns how many there were."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    added = 0
    for node in graph.node:
        bias = _bias_of_int8_product(node, makers, constants)
        if bias is not None:
            place, scale = bias
            name = node.input[place]
            added += 1
            integers = np.rint(_value(constants, name).astype(np.float64) / scale)
            for part, values in (
                ("int", integers.clip(-(2**31), 2**31 - 1).astype(np.int32)),
                ("scale", scale.astype(np.float32)),
                ("zero", np.zeros(len(scale), np.int32)),
            ):
                full = f"{name}_{part}"
                constants[full] = numpy_helper.from_array(values, full)
            inputs = [f"{name}_{part}" for part in ("int", "scale", "zero")]
            nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}_real"], axis=0))
            node.input[place] = f"{name}_real"
        nodes.append(node)
    set_nodes(graph, nodes, constants)
    return added


def _bias_of_int8_product(
    node: onnx.NodeProto,
    makers: dict[str, onnx.NodeProto],
    constants: dict[str, onnx.TensorProto],
) -> tuple[int, np.ndarray] | None:
    """Return which input of an Add is such a bias, and the product's scales (outputs,)."""
    if node.op_type != "Add":
        return None
    for place in (0, 1):
        product = makers.get(node.input[1 - place])
        if product is None or product.op_type != "MatMul" or node.input[place] not in constants:
            continue
        sides = [makers.get(name) for name in product.input]
        if all(side is not None and side.op_type == "DequantizeLinear" for side in sides):
            rows, weight = (_value(constants, side.input[1]) for side in sides if side is not None)
            return place, rows.astype(np.float64) * weight
    return None


def _value(constants: dict[str, onnx.TensorProto], name: str) -> np.ndarray:
    return numpy_helper.to_array(constants[name])
