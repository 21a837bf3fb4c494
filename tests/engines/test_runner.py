"""Engines that run one after the other, on what stands in for a GPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.stand_ins import Cuda, TensorRt

from eosfm_edge.engines.library import Library
from eosfm_edge.engines.runner import EngineChain
from eosfm_edge.errors import UserError

SHAPE = (2, 3, 3)


def graph(
    op: str, takes: list[str], gives: str, batch: int | str = 1, kind: int = TensorProto.FLOAT
) -> bytes:
    """Return an ONNX graph of one node, serialised."""

    def tensor(name: str) -> Any:
        return helper.make_tensor_value_info(name, kind, [batch, *SHAPE])

    node = helper.make_node(op, takes, [gives])
    inputs = [tensor(name) for name in dict.fromkeys(takes)]
    made = helper.make_graph([node], "g", inputs, [tensor(gives)])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    return bytes(onnx.load_model_from_string(model.SerializeToString()).SerializeToString())


@pytest.fixture
def cuda() -> Cuda:
    return Cuda()


Opener = Callable[..., EngineChain]


@pytest.fixture
def opened(cuda: Cuda) -> Opener:
    def make(*engines: bytes, outputs: tuple[str, ...] = ("y",)) -> EngineChain:
        library = Library("tensorrt", TensorRt(cuda), "10.3.0.26")
        return EngineChain(library, cuda, engines, outputs)

    return make


def image(batch: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE)).astype(np.float32)


def test_every_run_is_of_its_own_image(opened: Opener, cuda: Cuda) -> None:
    chain = opened(graph("Neg", ["image"], "y"))
    for seed in range(4):
        x = image(seed=seed)
        (y,) = chain.run(x)
        assert np.array_equal(y, -x)
    assert cuda.launched == 3  # the first warms up


def test_a_result_outlives_the_next_run(opened: Opener) -> None:
    chain = opened(graph("Neg", ["image"], "y"))
    first = chain.run(image(seed=1))[0]
    kept = first.copy()
    chain.run(image(seed=2))
    assert np.array_equal(first, kept)


def test_engines_take_what_those_before_give(opened: Opener) -> None:
    chain = opened(
        graph("Abs", ["image"], "a"), graph("Neg", ["image"], "b"), graph("Sub", ["a", "b"], "y")
    )
    for seed in range(3):
        x = image(seed=seed)
        assert np.array_equal(chain.run(x)[0], abs(x) + x)


def test_outputs_come_in_the_order_that_was_asked(opened: Opener) -> None:
    chain = opened(graph("Abs", ["image"], "a"), graph("Neg", ["a"], "y"), outputs=("y", "a"))
    x = image()
    y, a = chain.run(x)
    assert np.array_equal(a, abs(x)) and np.array_equal(y, -abs(x))


def test_an_open_batch_takes_what_it_was_built_for(opened: Opener, cuda: Cuda) -> None:
    chain = opened(graph("Abs", ["image"], "a", "n"), graph("Neg", ["a"], "y", "n"))
    for batch in (3, 1, 4, 2):
        x = image(batch, seed=batch)
        assert np.array_equal(chain.run(x)[0], -abs(x))
    assert not cuda.launched
    with pytest.raises(UserError, match=r"5 tiles at once(?s:.*)expected: at most 4"):
        chain.run(image(5))


def test_a_fixed_batch_takes_no_other(opened: Opener) -> None:
    with pytest.raises(UserError, match=r"2 tiles at once(?s:.*)expected: 1"):
        opened(graph("Neg", ["image"], "y")).run(image(2))


def test_everything_is_freed(opened: Opener, cuda: Cuda) -> None:
    chain = opened(graph("Neg", ["image"], "y"))
    chain.run(image())
    assert cuda.allocated and cuda.streams
    chain.close()
    chain.close()
    assert not cuda.allocated and not cuda.streams
    again = opened(graph("Neg", ["image"], "y"))
    assert cuda.allocated
    del again
    gc.collect()
    assert not cuda.allocated and not cuda.streams


def test_memory_that_is_short_is_freed_too(cuda: Cuda, opened: Opener) -> None:
    cuda.room = 3 * 4 * 18
    with pytest.raises(UserError, match="cudaErrorMemoryAllocation"):
        opened(graph("Neg", ["image"], "y"))
    gc.collect()
    assert not cuda.allocated and not cuda.streams


def test_what_cannot_be_deserialised_says_why(opened: Opener) -> None:
    with pytest.raises(UserError, match=r"TensorRT 10\.3\.0\.26 does not take the engine: deser"):
        opened(b"no engine")


def test_layers_are_timed(opened: Opener, cuda: Cuda) -> None:
    chain = opened(graph("Neg", ["image"], "y", "n"))
    module = TensorRt(cuda)
    assert chain.time_layers(module, 5) == {"a": pytest.approx(0.5)}
    assert "LayerType: gemm" in chain.listing(module)


def test_the_stand_in_is_as_strict_as_the_library(cuda: Cuda, tmp_path: Path) -> None:
    """Or tests on it would show nothing."""
    engine = TensorRt(cuda).Runtime(None).deserialize_cuda_engine(graph("Neg", ["image"], "y"))
    context = engine.create_execution_context()
    with pytest.raises(AssertionError):
        context.execute_async_v3(0)


def test_a_driver_that_is_too_old_is_refused_before_tensorrt_is_asked(cuda: Cuda) -> None:
    class Crashes(TensorRt):
        def Runtime(self, logger: Any) -> Any:  # noqa: N802
            raise AssertionError("it would crash")

    cuda.driver = 12080
    with pytest.raises(UserError, match=r"the GPU's driver is for CUDA 12\.8"):
        EngineChain(Library("tensorrt", Crashes(cuda), "10.16.1"), cuda, [], ["y"])


def test_a_runtime_that_logged_an_error_is_neither_used_nor_destroyed(cuda: Cuda) -> None:
    class NoObject:
        """The binding refuses an address that is none."""

        destroyed = False

        def deserialize_cuda_engine(self, engine: bytes) -> Any:
            raise AssertionError("it would crash")

        def __del__(self) -> None:
            NoObject.destroyed = True

    class Misfit(TensorRt):
        def Runtime(self, logger: Any) -> Any:  # noqa: N802
            logger.log(0, "CUDA initialization failure with error: 35")
            return NoObject()

    library = Library("tensorrt", Misfit(cuda), "10.16.1")
    with pytest.raises(UserError, match="cannot be used here: CUDA initialization failure"):
        EngineChain(library, cuda, [graph("Neg", ["image"], "y")], ["y"])
    gc.collect()
    assert not NoObject.destroyed


def test_no_runtime_is_no_crash(cuda: Cuda) -> None:
    class Nothing(TensorRt):
        def Runtime(self, logger: Any) -> Any:  # noqa: N802
            raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(UserError, match=r"TensorRT 10\.16\.1 cannot be used here"):
        EngineChain(Library("tensorrt", Nothing(cuda), "10.16.1"), cuda, [], ["y"])
