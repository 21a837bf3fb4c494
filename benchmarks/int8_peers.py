"""INT8 of the peers: ONNX Runtime's and NNCF's, as they do it when nothing is set.

What is left of a specialist of thirteen bands is less than noise, since one scale for all bands
leaves the narrowest of them a single level. So both are also given what a careful user would find:
the stem is left in fp32.

Both get timm's encoder as torch.onnx.export traces it (opset 17; batch, height and width open).

ONNX Runtime 1.32: quant_pre_process, then quantize_static with its defaults: QDQ format, int8
activations with zero points, int8 weights, both per tensor, ranges the smallest and largest
values (MinMax), every operator that can be. Without VNNI its products do not overflow: they are
s8s8, and leave what the graph leaves without any optimisation.

NNCF 3.4: nncf.quantize of OpenVINO's model with its defaults: int8 weights per channel, symmetric,
and activations per tensor, its fast bias correction, at most 300 images.
"""

from __future__ import annotations

import io
import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from int8_worker import plain_session
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed
from torch import Tensor, nn

from eosfm_edge.exporting.onnx import INPUT_NAME, OPSET
from eosfm_edge.formats.ensemble import LEVEL_NAMES

FloatArray = NDArray[np.float32]


class Peer(nn.Module):
    """Another engine's model in place of an encoder."""

    def __init__(self, run: Callable[[FloatArray], Sequence[FloatArray]]) -> None:
        super().__init__()
        self._run = run

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.from_numpy(np.array(level)) for level in self._run(x.contiguous().numpy())]


@dataclass(frozen=True)
class Quantised:
    """An encoder as a peer quantised it.

    Attributes:
        network: that runs it, on images of any size.
        timed: the file of the model for one image of the size that is timed.
        megabytes: of its files, for images of any size.
        seconds: of quantisation.
    """

    network: Peer
    timed: Path
    megabytes: float
    seconds: float


class _Tiles(CalibrationDataReader):
    def __init__(self, tiles: Sequence[Tensor]) -> None:
        self._tiles = iter(tiles)

    def get_next(self) -> dict[str, FloatArray] | None:
        tile = next(self._tiles, None)
        return None if tile is None else {INPUT_NAME: tile[None].numpy()}


def export(encoder: nn.Module, path: Path, size: int) -> Path:
    """Write an encoder for images of any size; returns the file of images of one size."""
    bands = encoder.get_parameter("stem_0.weight").shape[1]
    names = list(LEVEL_NAMES)
    open_axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder,
            (torch.zeros(1, bands, 64, 64),),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=names,
            dynamic_axes={INPUT_NAME: open_axes, **{name: {0: "batch"} for name in names}},
        )
    model = onnx.load(path)
    for level in model.graph.output:  # the exporter names open sizes by how they were computed
        for axis in (2, 3):
            level.type.tensor_type.shape.dim[axis].dim_param = f"{level.name}_{axis}"
    onnx.save(model, path)
    return _of_size(path, bands, size)


def onnxruntime_default(
    model: Path, tiles: Sequence[Tensor], size: int, *, stem: bool = True
) -> Quantised:
    """Quantise an ONNX model with ONNX Runtime, with the stem or but for it."""
    kind = "int8" if stem else "int8-but-stem"
    prepared, path = model.with_suffix(".prepared.onnx"), model.with_suffix(f".{kind}.onnx")
    started = time.monotonic()
    quant_pre_process(model, prepared)
    left_out = [] if stem else [_first_convolution(prepared)]
    quantize_static(prepared, path, _Tiles(tiles), nodes_to_exclude=left_out)
    seconds = time.monotonic() - started
    session = plain_session(str(path), 0)
    return Quantised(
        Peer(lambda image: session.run(None, {INPUT_NAME: image})),
        _of_size(path, len(tiles[0]), size),
        path.stat().st_size / 1e6,
        seconds,
    )


def nncf_default(
    model: Path, tiles: Sequence[Tensor], size: int, *, stem: bool = True
) -> Quantised:
    """Quantise an ONNX model with NNCF, for OpenVINO, with the stem or but for it."""
    os.environ.setdefault("NNCF_CI", "1")  # or it reports its use
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    started = time.monotonic()
    images = nncf.Dataset([tile[None].numpy() for tile in tiles])
    with redirect_stdout(io.StringIO()):  # progress bars
        # OpenVINO makes two operations of a convolution: the product, and the bias.
        parts = [f"{_first_convolution(model)}{part}" for part in ("", "/WithoutBiases")]
        left_out = None if stem else nncf.IgnoredScope(names=parts)
        quantised = nncf.quantize(openvino.convert_model(model), images, ignored_scope=left_out)
    seconds = time.monotonic() - started
    kind = "nncf" if stem else "nncf-but-stem"
    path, timed = model.with_suffix(f".{kind}.xml"), model.with_suffix(f".{kind}.timed.xml")
    openvino.save_model(quantised, path)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.compile_model(path, "CPU", options).create_infer_request()
    quantised.reshape([1, len(tiles[0]), size, size])
    openvino.save_model(quantised, timed)
    return Quantised(
        Peer(lambda image: list(request.infer({0: image}).values())),
        timed,
        sum(f.stat().st_size for f in (path, path.with_suffix(".bin"))) / 1e6,
        seconds,
    )


def _first_convolution(path: Path) -> str:
    """Return the name of a model's first convolution."""
    return next(str(n.name) for n in onnx.load(path).graph.node if n.op_type == "Conv")


def _of_size(path: Path, bands: int, size: int) -> Path:
    """Write a model for one image of one size."""
    model = onnx.load(path)
    del model.graph.value_info[:]  # sizes that were open
    make_input_shape_fixed(model.graph, INPUT_NAME, [1, bands, size, size])
    fix_output_shapes(model)
    fixed = path.with_suffix(".fixed.onnx")
    onnx.save(model, fixed)
    return fixed
