"""Integer biases: what ONNX Runtime's CPU provider needs to compute a product in int8.

It takes ``DequantizeLinear, DequantizeLinear, MatMul, Add`` for its int8 product (QGemm) only if
the bias is int32 behind a DequantizeLinear of its own, of the product's scale; otherwise it
multiplies in fp32 what it has dequantised. TensorRT's parser refuses such biases.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from eosfm_edge.exporting.constants import set_nodes


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
            place, weight, rows = bias
            name = node.input[place]
            added += 1
            values_of_bias = _value(constants, name).astype(np.float64)
            scale = rows * _room_for(values_of_bias / rows, weight, constants)
            integers = np.rint(values_of_bias / scale)
            for part, values in (
                ("int", integers.astype(np.int32)),
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
) -> tuple[int, onnx.NodeProto, float] | None:
    """Return which input of an Add is such a bias, its weights' maker, and its rows' scale."""
    if node.op_type != "Add":
        return None
    for place in (0, 1):
        product = makers.get(node.input[1 - place])
        if product is None or product.op_type != "MatMul" or node.input[place] not in constants:
            continue
        sides = [makers.get(name) for name in product.input]
        if all(side is not None and side.op_type == "DequantizeLinear" for side in sides):
            rows, weight = (side for side in sides if side is not None)
            return place, weight, float(_value(constants, rows.input[1]))
    return None


def _room_for(
    bias: np.ndarray, weight: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> np.ndarray:
    """Return the weights' scales (outputs,), made larger where a bias does not fit int32 by them.

    A dead output has weights of 0, or nearly so, and a scale to match, but a bias like others.
    Its weights are rounded anew in the larger scale: what that changes is 2^-32 of the bias.
    """
    codes, scales = (_value(constants, weight.input[i]) for i in (0, 1))
    least = np.abs(bias) / (2**31 - 256)
    larger: np.ndarray = np.maximum(scales.astype(np.float64), least).astype(np.float32)
    if (larger > scales).any():
        rounded = np.rint(codes.astype(np.float64) * (scales.astype(np.float64) / larger))
        for i, values in ((0, rounded.astype(codes.dtype)), (1, larger)):
            name = f"{weight.input[i]}_fit"
            constants[name] = numpy_helper.from_array(values, name)
            weight.input[i] = name
    room: np.ndarray = larger.astype(np.float64)
    return room


def _value(constants: dict[str, onnx.TensorProto], name: str) -> np.ndarray:
    return numpy_helper.to_array(constants[name])
