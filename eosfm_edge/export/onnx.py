"""The chain as one standard ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

OPSET = 17  # the first with LayerNormalization; TensorRT 8.6 parses it

INPUT_NAME = "image"


def level_names(count: int) -> list[str]:
    """Return the names of the graph's outputs, finest first."""
    return [f"level{i + 1}" for i in range(count)]


def write_onnx(chain: nn.Module, image: Tensor, path: Path, *, dynamic_batch: bool) -> None:
    """Trace a chain and write it as ONNX.

    Args:
        chain: takes one image tensor, returns a tuple of levels.
        image: an example (1, bands, H, W) of the static tile.
        path: the file.
        dynamic_batch: leave the batch dimension open.
    """
    with torch.inference_mode():
        names = level_names(len(chain(image)))
    axes = {name: {0: "batch"} for name in (INPUT_NAME, *names)} if dynamic_batch else None
    with warnings.catch_warnings():
        # The tracing exporter, on purpose: its graphs have one Gelu and one LayerNormalization
        # where the newer exporter leaves Erf and its neighbours, which run slower.
        warnings.simplefilter("ignore", DeprecationWarning)
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
    _check_standard(path)


def _check_standard(path: Path) -> None:
    """Make sure that any ONNX runtime can take the graph: checked, and no foreign operators."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    foreign = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    if foreign or model.functions:
        raise RuntimeError(f"the exporter made operators that are not standard: {sorted(foreign)}")
