"""Modules as standard ONNX graphs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from eosfm_edge.errors import UserError
from eosfm_edge.exporting.constants import fold_constants
from eosfm_edge.exporting.integer_biases import make_biases_integer
from eosfm_edge.formats.ensemble import LEVEL_NAMES

OPSET = 17  # the first with LayerNormalization; TensorRT 8.6 parses it

INPUT_NAME = "image"
MOST_BYTES = (1 << 31) - (1 << 24)  # of weights in a graph: protobuf's limit, less the nodes


def write_onnx(
    chain: nn.Module,
    image: Tensor,
    path: Path,
    *,
    dynamic_batch: bool,
    integer_biases: bool = False,
) -> None:
    """Trace a chain and write it as one graph.

    Args:
        chain: takes one image tensor, returns the four levels.
        image: an example (1, bands, H, W) of the static tile.
        path: the file.
        dynamic_batch: leave the batch dimension open.
        integer_biases: give int8 products the biases that ONNX Runtime's CPU provider wants.
    """
    write_graph(
        chain,
        {INPUT_NAME: image},
        LEVEL_NAMES,
        path,
        dynamic_batch=dynamic_batch,
        integer_biases=integer_biases,
    )


def write_graph(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    path: Path,
    *,
    dynamic_batch: bool,
    integer_biases: bool = False,
) -> None:
    """Trace a module and write it as a graph; as :func:`write_onnx`.

    Args:
        module: takes the inputs in order, returns a tuple of the outputs.
        inputs: by name, an example (1, C, H, W) of each.
        outputs: their names.
        path: the file.
        dynamic_batch: leave the batch dimension open.
        integer_biases: as there.

    Raises:
        UserError: the weights are more than one ONNX file can have.
    """
    size = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    if size > MOST_BYTES:
        raise UserError(
            f"{path.name} would have {size / 1e9:.1f} GB",
            expected=f"at most {MOST_BYTES / 1e9:.1f} GB, which is what one ONNX file can have",
            remedy="export with --split, a graph for each specialist, or prune the ensemble",
        )
    axes = {name: {0: "batch"} for name in (*inputs, *outputs)} if dynamic_batch else None
    with warnings.catch_warnings():
        # The tracing exporter, on purpose: its graphs have one Gelu and one LayerNormalization
        # where the newer exporter leaves Erf and its neighbours, which run slower.
        warnings.simplefilter("ignore", DeprecationWarning)
        # Height and width are those of the tile: they may become constants.
        warnings.simplefilter("ignore", TracerWarning)
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
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
