"""The chain with its specialists stacked against the chain itself, over random ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from support.chains import image_of, narrow, spec_of
from support.specimens import MOTE, enliven
from support.speck import SPECK
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.bundle.graphs import onnxruntime_session
from eosfm_edge.bundle.known_answer import sqnr_db
from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.engines.builder import BuildOptions, build_engine
from eosfm_edge.engines.library import load_library
from eosfm_edge.engines.precisions import compare_precisions, parse_listing
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.onnx import write_onnx
from eosfm_edge.exporting.stacked import StackedChain
from eosfm_edge.formats.ensemble import FusionMode, SelectionSpec
from eosfm_edge.formats.precision import LayerPrecision
from eosfm_edge.network.calibration import with_encoders
from eosfm_edge.network.deployed import CPU, TENSORRT, DeployedEncoder, Form

pytestmark = pytest.mark.filterwarnings("ignore:specialist s4 is skipped")

BANDS, TILE = 4, 64
FUSIONS: tuple[FusionMode, ...] = ("none", "conv1x1", "mlp", "addition")
HALF = Form(products="fp16", convolutions="fp16")
SEEDS = range(4)
# Of a mote: three downsamplings, and two products in each of five blocks.
PRODUCTS, BLOCKS = 3 + 2 * 5, 5
# As any of these, which differ from layer to layer and from specialist to specialist.
MIXED: tuple[LayerPrecision, ...] = ("int8", "int8", "int8", "half", "fp32")


def ensemble_of(
    seed: int, wants: Sequence[int] = (3, 4, 12, 3, 2), backbones: Sequence[str] = (MOTE,) * 5
) -> Any:
    """Return specialists of other hidden widths each, with a selection that leaves one out.

    Of four bands those that want three are run twice, those that want two are not.
    """
    fusion = FUSIONS[seed % len(FUSIONS)]
    spec = spec_of(
        wants,
        BANDS,
        normalisation="layer" if seed % 2 else "batch",
        projection=seed % 3 == 1,
        selection=SelectionSpec(k=max(len(wants) - 1, 1), scale_features=True),
        fusion=fusion,
    )
    specialists = tuple(
        one.model_copy(update={"backbone": f"convnextv2_{backbone}"})
        for one, backbone in zip(spec.specialists, backbones, strict=False)
    )
    spec = spec.model_copy(update={"specialists": specialists})
    widths: dict[str, Any] = {"projected": [(8, 8, 8, 8)] * len(wants)} if spec.projection else {}
    if fusion in ("conv1x1", "mlp"):
        widths["fused"] = (6, 8, 10, 8)
    torch.manual_seed(seed)
    ensemble: Any = Ensemble(spec, **widths)
    enliven(ensemble, seed)
    narrow(ensemble, seed)
    generator = torch.Generator().manual_seed(seed)
    weights = 0.5 + torch.rand(len(wants), generator=generator)
    ensemble.encoder_selector.specialists_weights.copy_(weights)
    return ensemble


def images(count: int = 2) -> Tensor:
    return torch.from_numpy(np.stack([image_of(BANDS, TILE, TILE, seed) for seed in range(count)]))


def deployed(
    ensemble: Any, form: Form, precisions: Sequence[LayerPrecision], seed: int = 0
) -> Chain:
    """Return the chain with each layer in one of the precisions, and int8 with its scales."""
    rng = np.random.default_rng(seed)
    physical = physical_units(ensemble.spec, images())
    encoders = {}
    for owner, runs in enumerate(ensemble.sets):
        encoder = DeployedEncoder(ensemble.encoders[owner])
        if "int8" in precisions and runs:
            set_scales(encoder, [physical[:, list(bands)] for bands in runs], "minmax", 0)
            for layer in encoder.layers().values():
                layer.precision = precisions[rng.integers(len(precisions))]
        else:
            for layer in encoder.layers().values():
                layer.precision = "half" if "half" in precisions else "fp32"
        encoders[owner] = encoder.in_form(form)
    return Chain(with_encoders(ensemble, encoders))


@torch.inference_mode()
def levels(chain: Any, image: Tensor) -> list[NDArray[np.float32]]:
    return [level.numpy() for level in chain(image)]


def decibels(got: Sequence[Any], expected: Sequence[Any]) -> list[float]:
    return [sqnr_db(mine, other) for mine, other in zip(got, expected, strict=True)]


@pytest.mark.parametrize("backbone", [SPECK, MOTE])
@pytest.mark.parametrize("seed", [0, *thorough(*SEEDS[1:])])
def test_fp32_is_the_chain(seed: int, backbone: str) -> None:
    ensemble = ensemble_of(seed, backbones=[backbone] * 5)
    stacked = StackedChain(deployed(ensemble, Form(), ["fp32"]))
    (runs,) = stacked.members
    assert runs == stacked.chain.runs and len(runs) > len(stacked.chain.owners)
    for got, expected in zip(
        levels(stacked, images()), levels(Chain(ensemble), images()), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("form", [HALF, replace(HALF, products="bf16"), TENSORRT])
@pytest.mark.parametrize("seed", [0, *thorough(*SEEDS[1:])])
def test_rounded_it_is_as_near_to_the_chain_as_the_chain_to_itself(seed: int, form: Form) -> None:
    """A last bit decides where a value is rounded to, and all that follows carries it on.

    So the measure is what becomes of the chain when its input changes by its last bit.
    """
    ensemble = ensemble_of(seed)
    chain = deployed(ensemble, form, MIXED if form == TENSORRT else ["half"], seed)
    noise = torch.randn(images().shape, generator=torch.Generator().manual_seed(seed))
    whole, stacked = levels(chain, images()), levels(StackedChain(chain), images())
    nudged = levels(chain, images() * (1 + 1e-7 * noise))
    drift, own = decibels(stacked, whole), decibels(nudged, whole)
    pairs = zip(drift, own, strict=True)
    assert all(mine > min(itself - 6, 50) for mine, itself in pairs), (drift, own)
    exact = levels(Chain(ensemble), images())
    costs, alone = decibels(stacked, exact), decibels(whole, exact)
    assert all(mine > its - 0.5 for mine, its in zip(costs, alone, strict=True)), (costs, alone)


@pytest.mark.parametrize("precisions", [["fp32"], ["half"], MIXED])
@pytest.mark.parametrize("seed", [0, *thorough(1)])
def test_onnx_runtime_gives_the_same_of_an_open_batch(
    tmp_path: Path, seed: int, precisions: Sequence[LayerPrecision]
) -> None:
    form = {"fp32": Form(), "half": HALF, "int8": TENSORRT}[precisions[0]]
    emulated = deployed(ensemble_of(seed), form, precisions, seed)
    traced = deployed(ensemble_of(seed), replace(form, emulated=False), precisions, seed)
    path = tmp_path / "model.onnx"
    write_onnx(StackedChain(traced), images(1), path, dynamic_batch=True)
    got = onnxruntime_session(path).run(None, {"image": images(3).numpy()})
    asked = {"fp32": 100, "half": 60, "int8": 35}[precisions[0]]
    assert min(decibels(got, levels(StackedChain(emulated), images(3)))) > asked


def test_a_specialist_that_is_like_no_other_is_run_as_it_was() -> None:
    """Both of its runs as one batch, with its weights once."""
    chain = deployed(ensemble_of(0, wants=(3,)), TENSORRT, ["int8"])
    stacked = StackedChain(chain)
    assert not stacked.stacks
    for got, expected in zip(levels(stacked, images()), levels(chain, images()), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("seed", [0, *thorough(1)])
def test_shapes_that_differ_are_stacks_of_their_own(seed: int) -> None:
    """And what each gives is fused in the order of the specialists."""
    backbones = (MOTE, SPECK, MOTE, SPECK, MOTE)
    ensemble = ensemble_of(seed, wants=(4, 3, 12, 4, 4), backbones=backbones)
    chain = deployed(ensemble, Form(), ["fp32"])
    stacked = StackedChain(chain)
    found = [{backbones[owner] for owner, _ in runs} for runs in stacked.members]
    assert all(len(shapes) == 1 for shapes in found)
    ran = [run for runs in stacked.members for run in runs]
    ran += [run for run in chain.runs if run[0] in stacked.alone]
    assert sorted(ran) == sorted(chain.runs)
    assert min(decibels(levels(stacked, images()), levels(Chain(ensemble), images()))) > 100


def test_int8_with_a_zero_point_is_refused() -> None:
    ensemble = ensemble_of(0)
    with pytest.raises(UserError, match=r"cannot be stacked in int8(.|\n)*leave out --stack"):
        StackedChain(deployed(ensemble, CPU, ["int8"]))
    StackedChain(deployed(ensemble, CPU, ["half"]))


@pytest.mark.parametrize("form", [HALF, TENSORRT])
def test_a_graph_has_the_products_of_one_specialist(tmp_path: Path, form: Form) -> None:
    chain = deployed(
        ensemble_of(0), replace(form, emulated=False), ["int8" if form.symmetric else "half"]
    )
    write_onnx(StackedChain(chain), images(1), tmp_path / "m.onnx", dynamic_batch=False)
    graph = onnx.load(tmp_path / "m.onnx").graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMul") == PRODUCTS
    # Stems are on their own; this ensemble's fusion is no convolution.
    assert operators.count("Conv") == BLOCKS + len(chain.runs)
    assert operators.count("LayerNormalization") == 3 + BLOCKS + len(chain.runs)


@pytest.mark.engines
@pytest.mark.parametrize("form", [HALF, TENSORRT])
@pytest.mark.parametrize("capability", ["8.6", "8.9"])
def test_tensorrt_computes_stacks_in_the_precision_asked(
    tmp_path: Path, form: Form, capability: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    narrow_type, layers = ("int8", "int8") if form.symmetric else ("fp16", "half")
    chain = deployed(ensemble_of(0), replace(form, emulated=False), [layers])  # type: ignore[list-item]
    graph = tmp_path / "m.onnx"
    write_onnx(StackedChain(chain), images(1), graph, dynamic_batch=True)
    options = BuildOptions("int8" if form.symmetric else "fp16", 2, 256, (capability,))
    built = build_engine(load_library("tensorrt-rtx"), graph, options, lambda *_: None)
    assert built.listing is not None
    listed = parse_listing(built.listing)
    found = compare_precisions(built.asked, listed)
    assert not found.fallen_back and not found.unseen
    assert found.done[narrow_type] == PRODUCTS + BLOCKS  # type: ignore[index]
    # And in no more layers than that: fp32 are stems.
    kinds = [layer.precision for layer in listed if layer.kind in ("gemm", "correlation")]
    assert kinds.count(narrow_type) <= PRODUCTS + BLOCKS  # type: ignore[arg-type]
    assert kinds.count("fp32") == len(chain.runs)
