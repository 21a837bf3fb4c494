"""Bundles in int8 and in halves: what they hold, and that all backends compute what they say."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import onnx
import onnxruntime
import pytest
from support.command import run
from support.precise import TILE, calibrated, exported
from support.tiers import thorough

from eosfm_edge.exporting import integer_biases
from eosfm_edge.exporting.choice import in_order
from eosfm_edge.formats.bundle import MODEL_NAME, Candidate, read_manifest
from eosfm_edge.formats.calibration import CALIBRATION_NAME
from eosfm_edge.formats.precision import Precision
from eosfm_edge.runtime.backends import open_context

MATRICES = 3 + 2 * 5  # of a mote: downsampling, and fc1 and fc2 of five blocks
SPECIALISTS = 2
KERNEL = 49  # weights of a channel of a depthwise convolution


@pytest.fixture(scope="module")
def scales(motes: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibrated(tmp_path_factory.mktemp("scales"), motes, imagery)


@pytest.fixture(scope="module")
def tiny_scales(
    tiny_ensemble: Path, tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return calibrated(tmp_path_factory.mktemp("tiny"), tiny_ensemble, tiny_scene, tile=32)


@pytest.fixture(scope="module", params=["cpu", *thorough("desktop-tensorrt")])
def int8(
    motes: Path, imagery: Path, request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    return exported(tmp_path_factory.mktemp("int8"), motes, imagery, request.param, "int8")


def least(levels: object) -> float:
    return min(level.sqnr_db for level in levels)  # type: ignore[attr-defined]


def test_backends_agree_with_what_was_calibrated(int8: Path) -> None:
    for parity in read_manifest(int8).parity:
        assert parity.agreement is not None
        assert least(parity.levels) > 20
        assert least(parity.agreement) > least(parity.levels) - 5


def test_backends_agree_with_one_another_on_other_tiles(int8: Path, tmp_path: Path) -> None:
    manifest = read_manifest(int8)
    image = np.random.default_rng(5).normal(500, 200, (1, 3, TILE, TILE)).astype(np.float32)
    native, other = (
        open_context(int8, manifest, [name]).run(list(image[0]))
        for name in ("native", "onnxruntime")
    )
    for a, b in zip(native, other, strict=True):
        noise = np.square(a - b, dtype=float).sum()
        assert 10 * np.log10(np.square(b, dtype=float).sum() / noise) > 15


def test_all_matrices_are_int8_in_the_engines_files(int8: Path) -> None:
    for path in (int8 / "specialists").iterdir():
        kinds = [t.tensor_type.name for t in gguf.GGUFReader(path).tensors]
        assert kinds.count("I8") == MATRICES


def test_all_matrices_are_int8_in_the_graph(int8: Path) -> None:
    graph = onnx.load(int8 / MODEL_NAME).graph
    constants = {t.name: t for t in graph.initializer}
    kept = [t for t in constants.values() if len(t.dims) == 2 and t.dims[0] != KERNEL]
    assert {t.data_type for t in kept} == {onnx.TensorProto.INT8}
    assert len(kept) == SPECIALISTS * MATRICES


@pytest.mark.parametrize("int8", ["cpu"], indirect=True)
def test_onnx_runtime_multiplies_integers(int8: Path, tmp_path: Path) -> None:
    """Without integer biases it would multiply what it has dequantised."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(int8 / MODEL_NAME, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QGemm") == SPECIALISTS * MATRICES
    assert "MatMul" not in kinds


def test_integer_biases_are_close_to_the_real_ones(int8: Path) -> None:
    model = onnx.load(int8 / MODEL_NAME)
    again = onnx.ModelProto.FromString(model.SerializeToString())
    assert integer_biases.make_biases_integer(again) in (0, SPECIALISTS * MATRICES)


@pytest.mark.parametrize(
    ("target", "precision", "worst"),
    [
        ("desktop-tensorrt", "fp16", 35),
        *thorough(("desktop-tensorrt", "bf16", 30), ("cpu", "bf16", 30)),
    ],
)
def test_halves_keep_their_islands_and_their_signal(
    tmp_path: Path, motes: Path, imagery: Path, target: str, precision: Precision, worst: float
) -> None:
    bundle = exported(tmp_path, motes, imagery, target, precision)
    manifest = read_manifest(bundle)
    for parity in manifest.parity:
        assert least(parity.levels) > worst
    if target == "desktop-tensorrt":
        model = onnx.shape_inference.infer_shapes(onnx.load(bundle / MODEL_NAME))
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
        islands = {"LayerNormalization", "ReduceSum", "Sqrt", "Erf"}
        for node in model.graph.node:
            if node.op_type in islands:
                assert types[node.output[0]] == onnx.TensorProto.FLOAT, node.op_type
        half = getattr(onnx.TensorProto, {"fp16": "FLOAT16", "bf16": "BFLOAT16"}[precision])
        products = [types[n.output[0]] for n in model.graph.node if n.op_type == "MatMul"]
        assert products.count(half) == SPECIALISTS * MATRICES


def test_the_fastest_faithful_precision_is_chosen_by_what_was_measured(
    tmp_path: Path, tiny_ensemble: Path, tiny_scene: Path, tiny_scales: Path
) -> None:
    code, out, err = run(
        "export", tiny_ensemble, "--scene", tiny_scene, "--tile", 32, "-o", tmp_path / "b.eosfm",
        "--precision", "auto", "--calibration", tiny_scales,
    )  # fmt: skip
    assert code == 0, err
    manifest = read_manifest(tmp_path / "b.eosfm")
    first, *others = manifest.candidates
    assert {one.precision for one in manifest.candidates} == {"fp32", "bf16", "int8"}
    assert manifest.precision == first.precision and first.keeps_budget
    assert all(one.milliseconds >= 0.9 * first.milliseconds for one in others if one.keeps_budget)
    for one in manifest.candidates:
        assert one.summary in out


@pytest.mark.parametrize(
    ("milliseconds", "cosines", "chosen"),
    [
        ((10.0, 9.5, 9.2), (1, 1, 1), "fp32"),  # a tie is no reason to lose precision
        ((10.0, 8.9, 8.5), (1, 1, 1), "bf16"),
        ((10.0, 8.9, 5.0), (1, 1, 1), "int8"),
        ((10.0, 8.0, 5.0), (1, 1, 0.9), "bf16"),
        ((10.0, 8.0, 5.0), (1, 0.9, 0.9), "fp32"),
        ((10.0, 12.0, 5.0), (1, 1, 1), "int8"),
    ],
)
def test_a_narrower_precision_must_be_worth_it(
    milliseconds: tuple[float, ...], cosines: tuple[float, ...], chosen: str
) -> None:
    found = [
        Candidate(precision=precision, milliseconds=ms, min_cosine=cosine, asked=0.995)
        for precision, ms, cosine in zip(
            ("fp32", "bf16", "int8"), milliseconds, cosines, strict=True
        )
    ]
    assert in_order(found)[0].precision == chosen
    assert {one.precision for one in in_order(found)} == {"fp32", "bf16", "int8"}


def test_this_machine_s_precision_is_measured_where_none_is_given(
    tmp_path: Path, tiny_ensemble: Path, tiny_scene: Path
) -> None:
    arguments = ("--scene", tiny_scene, "--tile", 32, "-o", tmp_path / "b.eosfm")
    code, out, err = run("export", tiny_ensemble, *arguments)
    assert code == 0, err
    manifest = read_manifest(tmp_path / "b.eosfm")
    assert {one.precision for one in manifest.candidates} == {"fp32", "bf16"}
    assert f"the fastest that is faithful: {manifest.precision}" in out


def test_a_precision_that_misses_the_budget_is_not_chosen(
    tmp_path: Path, tiny_ensemble: Path, tiny_scene: Path, tiny_scales: Path
) -> None:
    strict = tmp_path / "strict"
    strict.mkdir()
    for path in tiny_scales.iterdir():
        (strict / path.name).write_bytes(path.read_bytes())
    content = json.loads((strict / CALIBRATION_NAME).read_text())
    (strict / CALIBRATION_NAME).write_text(json.dumps({**content, "min_cosine": 1.0}))
    code, out, err = run(
        "export", tiny_ensemble, "--scene", tiny_scene, "--tile", 32, "-o", tmp_path / "b.eosfm",
        "--precision", "auto", "--calibration", strict,
    )  # fmt: skip
    assert code == 0, err
    assert read_manifest(tmp_path / "b.eosfm").precision == "fp32"
    assert "misses 1" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--precision", "int8"), "int8 needs a calibration"),
        (("--precision", "fp16"), "cpu has no fp16"),
        (("--precision", "auto", "--target", "desktop-tensorrt"), "measures on this machine"),
        (("--precision", "int8", "--calibration", "nowhere"), "does not exist"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, tiny_ensemble: Path, tiny_scene: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    bundle = tmp_path / "b.eosfm"
    code, _, err = run(
        "export", tiny_ensemble, "--scene", tiny_scene, "--tile", 32, "-o", bundle, *arguments
    )  # fmt: skip
    assert code == 2 and sentence in err
    assert not bundle.exists()


def test_scales_of_other_specialists_are_refused(
    tmp_path: Path, tiny_ensemble: Path, tiny_scene: Path, scales: Path
) -> None:
    code, _, err = run(
        "export", tiny_ensemble, "--scene", tiny_scene, "--tile", 32, "-o", tmp_path / "b.eosfm",
        "--precision", "int8", "--calibration", scales,
    )  # fmt: skip
    assert code == 2 and "has no scales for specialist" in err


@pytest.mark.thorough
def test_static_grn_makes_tiles_of_a_bundle_independent(
    tmp_path: Path, motes: Path, imagery: Path
) -> None:
    """The brightness of one corner does not reach the other: the network is convolutional."""
    bundle = exported(tmp_path, motes, imagery, "cpu", "int8", grn="static")
    image = np.random.default_rng(0).normal(500, 200, (1, 3, TILE, TILE)).astype(np.float32)
    other = image.copy()
    other[..., 48:, 48:] *= 3
    for name in ("native", "onnxruntime"):
        context = open_context(bundle, read_manifest(bundle), [name])
        a, b = context.run(list(image[0]))[0], context.run(list(other[0]))[0]
        np.testing.assert_array_equal(a[..., :8, :8], b[..., :8, :8])
        assert not np.array_equal(a, b)
