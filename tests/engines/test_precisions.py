"""Listings of layers, as several versions of TensorRT write them."""

from __future__ import annotations

import pytest

from eosfm_edge.engines.precisions import (
    Layer,
    Precisions,
    compare_precisions,
    parse_listing,
    require_precisions,
)
from eosfm_edge.errors import CheckFailedError

# Lines made after what each version's documentation and forum threads show of them; only that of
# TensorRT-RTX was written by the library, for a specialist of ours, and shortened.
TENSORRT_8 = (
    "Layers:\n"
    "Name: /fc1/MatMul + /fc1/Add, LayerType: CaskGemmConvolution, Inputs: [ { Name: x_q, "
    "Location: Device, Dimensions: [1,64,56,56], Format/Datatype: Thirty-two wide channel "
    "vectorized row major Int8 format }], Outputs: [ { Name: h, Location: Device, Dimensions: "
    "[1,64,56,56], Format/Datatype: Channel major FP16 format where channel % 8 == 0 }], "
    "ParameterType: Convolution\n"
    "Name: /fc2/MatMul, LayerType: MatrixMultiply, Inputs: [ { Name: Int8Tensor, Location: Device, "
    "Dimensions: [1,64], Format/Datatype: Row major linear FP32 }], Outputs: []\n"
)
TENSORRT_RTX = (
    "Layers:\n"
    "Name: /fc1/MatMul_myl0_6, LayerType: gemm, Inputs: [ { Name: /fc1/Quant_myl0, Dimensions: "
    "[3136,40], Strides: [40,1], StrideOrder: [1,0], Datatype: Int8, Format: (Linear) Row major "
    "linear format }], Constants: [ { Name: c, Dimensions: [1], Datatype: Float, Format: (Linear) "
    "Row major linear format }], Outputs: [ { Name: y, Dimensions: [3136,160], Datatype: Float, "
    "Format: (Linear) Row major linear format }], TacticName: , StreamId: 0, "
    "Metadata: [ONNX Layer: /fc1/MatMul]\n"
    "Name: __myl_FcAdd_myl0_10, LayerType: runtime_fusion, Inputs: [ { Name: /fc2/Cast_output_0.1, "
    "Dimensions: [3136,160], Datatype: Half, Format: (Linear) Row major linear format }], "
    "Constants: [], Outputs: [ { Name: z, Dimensions: [3136,40], Datatype: Half, Format: (Linear) "
    "Row major linear format }], TacticName: , Metadata: [ONNX Layer: /fc2/MatMul][ONNX Layer: "
    "/fc2/Add]\n"
    "Name: entry^bb^signal^7_myl0_0, LayerType: signal, Inputs: [], Constants: [], Outputs: [], "
    "TacticName: , StreamId: 0\n"
)


def test_layers_of_tensorrt_8_are_read() -> None:
    first, second = parse_listing(TENSORRT_8)
    assert (first.precision, second.precision) == ("int8", "fp32")
    assert first.computes("/fc1/MatMul") and second.computes("/fc2/MatMul")
    assert not first.computes("/fc2/MatMul") and not second.computes("/fc1/MatMul")


def test_layers_of_tensorrt_rtx_are_read() -> None:
    first, second, third = parse_listing(TENSORRT_RTX)
    assert first == Layer("/fc1/MatMul_myl0_6", "gemm", ("/fc1/MatMul",), "int8")
    assert second.nodes == ("/fc2/MatMul", "/fc2/Add") and second.precision == "fp16"
    assert third.precision is None


@pytest.mark.parametrize(
    "other", ["/fc1/MatMul_1", "/a/fc1/MatMul", "/fc1/Mat", "/fc1/MatMul_myl0", "fc1/MatMul"]
)
def test_names_are_not_parts_of_names(other: str) -> None:
    assert not Layer("/fc1/MatMul_myl0_6", "gemm", (), "int8").computes(other)


def test_a_pointwise_end_does_not_hide_a_product() -> None:
    asked = {"/m": "int8"}
    layers = [Layer("k", "kgen", ("/m",), "fp32"), Layer("/m_myl0_1", "gemm", (), "int8")]
    assert compare_precisions(asked, layers).fallen_back == ()  # type: ignore[arg-type]


def test_of_two_parts_the_wider_counts() -> None:
    layers = [Layer("/m_myl0_1", "gemm", (), "int8"), Layer("/m_myl0_2", "gemm", (), "fp16")]
    assert compare_precisions({"/m": "int8"}, layers).fallen_back == ("/m",)


def test_narrower_is_no_fallback() -> None:
    found = compare_precisions({"/m": "fp32"}, [Layer("/m", "gemm", (), "fp16")])
    assert not found.fallen_back and found.done == {"fp16": 1}


def test_some_may_fall_back() -> None:
    few = Precisions({"int8": 40, "fp32": 1}, {"int8": 38, "fp32": 3}, ("a", "b"), ())
    require_precisions(few)
    more = Precisions({"int8": 40, "fp32": 1}, {"int8": 37, "fp32": 4}, ("a", "b", "c"), ())
    with pytest.raises(CheckFailedError, match="wider than asked are a, b, c"):
        require_precisions(more)


def test_a_listing_that_shows_nothing_is_not_trusted() -> None:
    hidden = compare_precisions(
        {"/m": "int8"}, [Layer("{ForeignNode[a...b]}", "Myelin", (), "fp32")]
    )
    assert hidden.unseen == ("/m",)
    with pytest.raises(CheckFailedError, match="show none of its products"):
        require_precisions(hidden)


def test_fp32_cannot_fall_back() -> None:
    require_precisions(Precisions({"fp32": 3}, {}, (), ("a", "b", "c")))
