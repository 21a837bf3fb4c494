"""``model.onnx`` is what ``export/bundle.md`` says: standard, static, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, ValueInfoProto
from support.command import run
from support.graphs import open_graphs
from torch import Tensor, nn

from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.exporting.onnx import write_onnx
from eosfm_edge.formats.bundle import MODEL_NAME, read_manifest

# The bundle of conftest.py: its RGB specialist is run on two sets of bands, the other on one.
RUNS = 3
SPECIALISTS = 2  # a specialist is in the graph once
NORMS = 1 + 3 + (2 + 2 + 6 + 2)  # of the encoder: stem, downsampling, blocks


@pytest.fixture(scope="module")
def model(bundle: Path) -> onnx.ModelProto:
    return onnx.load(bundle / MODEL_NAME)


@pytest.fixture(scope="module")
def dynamic(
    tiny_ensemble: Path, tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle that the command made with ``--batch``."""
    path = tmp_path_factory.mktemp("dynamic") / "tiny.eosfm"
    options = ("--scene", tiny_scene, "--tile", "64", "--batch", "4", "--precision", "fp32")
    options += ("--for", "all")
    code, _, err = run("export", tiny_ensemble, "-o", path, *options)
    assert code == 0, err
    return path


def shape(value: ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_param or dim.dim_value for dim in dims)


def test_the_checker_passes(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)


def test_operators_are_of_the_standard_domain_in_opset_17(model: onnx.ModelProto) -> None:
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert not model.functions


def test_weights_are_inside(model: onnx.ModelProto) -> None:
    assert {tensor.data_location for tensor in model.graph.initializer} == {TensorProto.DEFAULT}


def test_a_specialist_that_is_run_twice_has_its_weights_once(model: onnx.ModelProto) -> None:
    stems = [tuple(t.dims) for t in model.graph.initializer if tuple(t.dims[2:]) == (4, 4)]
    assert sorted(stems) == [(8, 3, 4, 4), (8, 13, 4, 4)]
    # 71,488 parameters in the encoder of three bands, 1,280 more in that of thirteen.
    elements = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert 2 * 71_488 < elements < 2 * 71_488 + 4_000


def test_each_layer_norm_is_one_node(model: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("LayerNormalization") == SPECIALISTS * NORMS


def test_shapes_are_static(model: onnx.ModelProto) -> None:
    (image,) = model.graph.input
    assert (image.name, shape(image)) == ("image", (1, 13, 96, 96))
    assert [(level.name, shape(level)) for level in model.graph.output] == [
        ("level1", (1, RUNS * 8, 24, 24)),
        ("level2", (1, RUNS * 16, 12, 12)),
        ("level3", (1, RUNS * 24, 6, 6)),
        ("level4", (1, RUNS * 32, 3, 3)),
    ]
    for value in (image, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


def test_a_static_model_takes_one_image(bundle: Path) -> None:
    run = open_graphs(bundle)
    with pytest.raises(Exception, match="Got: 3 Expected: 1"):
        run(np.zeros((3, 13, 96, 96), np.float32))


def test_a_dynamic_batch_is_open_and_nothing_else(dynamic: Path) -> None:
    assert read_manifest(dynamic).tile.batch == 4
    graph = onnx.load(dynamic / MODEL_NAME).graph
    assert [shape(value) for value in (*graph.input, *graph.output)] == [
        ("batch", 3, 64, 64),
        ("batch", 8, 16, 16),
        ("batch", 16, 8, 8),
        ("batch", 24, 4, 4),
        ("batch", 32, 2, 2),
    ]


def test_a_batch_gives_what_its_images_give_one_by_one(dynamic: Path) -> None:
    run = open_graphs(dynamic)
    images = np.random.default_rng(0).uniform(0, 4000, (3, 3, 64, 64)).astype(np.float32)
    together = run(images)
    one_by_one = [run(image[None]) for image in images]
    for level, features in enumerate(together):
        alone = np.concatenate([levels[level] for levels in one_by_one])
        assert np.ptp(alone, axis=0).max() > 0.1  # the images are not alike
        np.testing.assert_allclose(features, alone, rtol=0, atol=1e-5 * np.abs(alone).max())


class Foreign(torch.autograd.Function):
    """An operator that no standard has."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        return image * 2

    @staticmethod
    def symbolic(graph: Any, image: Any) -> Any:
        return graph.op("com.example::Twice", image).setType(image.type())


class ForeignChain(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (Foreign.apply(image),) * 4


def test_a_graph_with_a_foreign_operator_is_refused(tmp_path: Path) -> None:
    image = torch.zeros(1, 3, 32, 32)
    with pytest.raises(RuntimeError, match=r"not standard: \['Twice'\]"):
        write_onnx(ForeignChain(), image, tmp_path / "m.onnx", dynamic_batch=False)


def test_numbers_of_the_example_do_not_matter(tiny_ensemble: Path, tmp_path: Path) -> None:
    """The graph is traced: nothing of the traced image may be left in it."""
    chain = Chain(load_ensemble(tiny_ensemble))
    for name, image in (("a", torch.zeros(1, 3, 32, 32)), ("b", torch.rand(1, 3, 32, 32) * 4000)):
        write_onnx(chain, image, tmp_path / name, dynamic_batch=False)
    stored = np.random.default_rng(1).uniform(0, 4000, (1, 3, 32, 32)).astype(np.float32)
    first, second = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"image": stored}) for name in "ab"
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
