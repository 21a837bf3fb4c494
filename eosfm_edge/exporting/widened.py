"""A graph in bf16 as one that every ONNX runtime can compute.

ONNX Runtime has no bf16 on a CPU. Each operation is computed in fp32 and its result rounded to
bf16, which is what hardware does that multiplies bf16 and adds in fp32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

_BF16 = TensorProto.BFLOAT16
_FLOAT = TensorProto.FLOAT


def widened(path: Path) -> bytes:
    """Return a model, serialised, with everything in bf16 computed in fp32 and rounded."""
    model = onnx.load(path)
    graph = model.graph
    types = _types(model)
    if _BF16 not in types.values():
        return path.read_bytes()
    for tensor in graph.initializer:
        if tensor.data_type == _BF16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == _BF16:
                    attribute.i = _FLOAT
        rounded = [name for name in node.output if types.get(name) == _BF16]
        for place, name in enumerate(node.output):
            if name in rounded:
                node.output[place] = f"{name}_wide"
        nodes.append(node)
        for name in rounded:
            narrow = f"{name}_bf16"
            nodes.append(helper.make_node("Cast", [f"{name}_wide"], [narrow], to=_BF16))
            nodes.append(helper.make_node("Cast", [narrow], [name], to=_FLOAT))
    copies = list(nodes)
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]
    serialised: bytes = model.SerializeToString()
    return serialised


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in inferred.initializer
    }
