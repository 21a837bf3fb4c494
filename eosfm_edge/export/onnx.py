"""The chain as one standard ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from eosfm_edge.export.constants import fold_constants
from eosfm_edge.export.integer_biases import make_biases_integer

OPSET = 17  # the first with LayerNormalization; TensorRT 8.6 parses it

INPUT_NAME = "image"


def level_names(count: int) -> list[str]:
    """Return the names of the graph's outputs, finest first."""
    return [f"level{i + 1}" for i in range(count)]


def write_onnx(
    chain: nn.Module,
    image: Tensor,
    path: Path,
    *,
    dynamic_batch: bool,
    integer_biases: bool = False,
) -> None:
    """Trace a chain and write it as ONNX.

    Args:
        chain: takes one image tensor, returns a tuple of levels.
        image: an example (1, bands, H, W) of the static tile.
        path: the file.
        dynamic_batch: leave the batch dimension open.
        integer_biases: give int8 products the biases that ONNX Runtime's CPU provider wants.
    """
    with torch.inference_mode():
        names = level_names(len(chain(image)))
    axes = {name: {0: "batch"} for name in (INPUT_NAME, *names)} if dynamic_batch else None
    with warnings.catch_warnings():
        # The tracing exporter, on purpose: its graphs have one Gelu and one LayerNormalization
        # where the newer exporter leaves Erf and its neighbours, which run slower.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Height and width are those of the tile: they may become constants.
        warnings.simplefilter("ignore", TracerWarning)
        torch.onnx.export(
            chain,
            (image,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=names,
            dynamic_axes=axes,
            do_constant_folding=True,
        )
    model = onnx.load(path)
    fold_constants(model)
    if integer_biases:
        make_biases_integer(model)
    _check_standard(model)
    onnx.save(model, path)


def _check_standard(model: onnx.ModelProto) -> None:
    """Make sure that any ONNX runtime can take the graph: checked, and no foreign operators."""
    onnx.checker.check_model(model, full_check=True)
    foreign = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    if foreign or model.functions:
        raise RuntimeError(f"the exporter made operators that are not standard: {sorted(foreign)}")
