"""Graphs built by TensorRT-RTX itself, which needs no GPU for that."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eosfm_edge.engines.builder import BuildOptions, build_engine, parse_graph
from eosfm_edge.engines.library import Library, load_library
from eosfm_edge.engines.precisions import (
    asked_precisions,
    compare_precisions,
    parse_listing,
    require_precisions,
)
from eosfm_edge.errors import CheckFailedError, UserError

pytestmark = pytest.mark.engines

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")

CHANNELS = 64


@pytest.fixture(scope="module")
def rtx() -> Library:
    return load_library("tensorrt-rtx")


def options(*capabilities: str, precision: str = "fp16", batch: int = 1) -> BuildOptions:
    return BuildOptions(precision, batch, 64, capabilities or ("8.9",))  # type: ignore[arg-type]


def matrices(path: Path, kinds: list[int], batch: int | str = 1, operator: str = "MatMul") -> Path:
    """Write a graph of products of rows of channels, each in a type of its own."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "image"
    for index, kind in enumerate(kinds):
        weight = rng.standard_normal((CHANNELS, CHANNELS)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        operands = []
        for name in (x, f"w{index}"):
            nodes.append(helper.make_node("Cast", [name], [f"{name}_{index}"], to=kind))
            operands.append(f"{name}_{index}")
        gives = [f"p{index}"]
        nodes.append(helper.make_node(operator, operands, gives, name=f"/m.{index}/MatMul"))
        nodes.append(helper.make_node("Cast", [f"p{index}"], [f"r{index}"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Relu", [f"r{index}"], [f"y{index}"]))
        x = f"y{index}"
    shape = [batch, 32, CHANNELS]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", x)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


FP16, FP32 = TensorProto.FLOAT16, TensorProto.FLOAT


def quiet(what: str, done: int, total: int) -> None: ...


def test_what_is_asked_is_what_the_graph_says(rtx: Library, tmp_path: Path) -> None:
    graph = matrices(tmp_path / "m.onnx", [FP16, FP32, FP16])
    _, _, network = parse_graph(rtx, graph)
    assert asked_precisions(rtx.module, network) == {
        "/m.0/MatMul": "fp16",
        "/m.1/MatMul": "fp32",
        "/m.2/MatMul": "fp16",
    }


@pytest.mark.parametrize("capabilities", [("8.6",), ("8.9",), ("8.6", "8.9", "12.0")])
def test_an_engine_is_built_in_what_is_asked(
    rtx: Library, tmp_path: Path, capabilities: tuple[str, ...]
) -> None:
    graph = matrices(tmp_path / "m.onnx", [FP16, FP32, FP16])
    told: list[tuple[str, int, int]] = []
    built = build_engine(rtx, graph, options(*capabilities), lambda *what: told.append(what))
    assert len(built.engine) > 3 * 2 * CHANNELS**2 and built.seconds > 0
    assert built.listing is not None
    found = compare_precisions(built.asked, parse_listing(built.listing))
    require_precisions(found)
    assert found.asked == found.done == {"fp16": 2, "fp32": 1}
    assert found.summary == "2 of 2 products in fp16, 1 of 1 products in fp32"
    assert told and all(0 <= done <= total for _, done, total in told)


def test_a_fallback_is_noticed(rtx: Library, tmp_path: Path) -> None:
    """The engine of another graph, as if TensorRT had widened what was asked of it."""
    asked = build_engine(rtx, matrices(tmp_path / "a.onnx", [FP16] * 3), options(), quiet).asked
    wide = build_engine(rtx, matrices(tmp_path / "b.onnx", [FP16, FP32, FP16]), options(), quiet)
    assert wide.listing is not None
    found = compare_precisions(asked, parse_listing(wide.listing))
    assert found.fallen_back == ("/m.1/MatMul",)
    with pytest.raises(CheckFailedError, match=r"fell back: 2 of 3 products in fp16; wider than"):
        require_precisions(found)


def test_an_open_batch_is_built(rtx: Library, tmp_path: Path) -> None:
    graph = matrices(tmp_path / "m.onnx", [FP16], batch="n")
    assert build_engine(rtx, graph, options(batch=4), quiet).engine


def test_what_is_no_graph_is_refused(rtx: Library, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="does not take"):
        parse_graph(rtx, tmp_path / "m.onnx")


def test_an_operator_that_is_unknown_is_named(rtx: Library, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"NoSuchOperator /m\.0/MatMul: "):
        parse_graph(rtx, matrices(tmp_path / "m.onnx", [FP16], operator="NoSuchOperator"))


def test_a_gpu_that_it_does_not_build_for_is_named(rtx: Library, tmp_path: Path) -> None:
    graph = matrices(tmp_path / "m.onnx", [FP16])
    with pytest.raises(UserError, match=r"does not build for SM 8\.7(?s:.*)8\.6, 8\.9"):
        build_engine(rtx, graph, options("8.7"), quiet)


def test_ctrl_c_ends_a_build(rtx: Library, tmp_path: Path) -> None:
    graph = matrices(tmp_path / "m.onnx", [FP16] * 20)
    after: list[int] = []

    def interrupt(what: str, done: int, total: int) -> None:
        if not after:
            os.kill(os.getpid(), signal.SIGINT)
        after.append(done)

    before = signal.getsignal(signal.SIGINT)
    if before != signal.default_int_handler:
        pytest.skip("SIGINT does not raise KeyboardInterrupt in this process")
    with pytest.raises(KeyboardInterrupt):
        build_engine(rtx, graph, options(), interrupt)
    assert signal.getsignal(signal.SIGINT) == before
    everything: list[int] = []
    build_engine(rtx, graph, options(), lambda what, done, total: everything.append(done))
    assert len(after) < len(everything) / 2


def test_a_library_that_is_not_there_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r"tensorrt cannot be imported(?s:.*)JetPack"):
        load_library("tensorrt")
