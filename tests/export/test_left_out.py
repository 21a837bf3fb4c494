"""Specialists that are not selected: not in the graph, and nothing is missed but they."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from support.scenes import scene_pixels, write_scene
from support.tiers import thorough
from support.weights import BACKBONE, WIDTHS, State, encoder_state

from eosfm_edge.bundle.known_answer import relative_difference
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.fusion import build_fusion
from eosfm_edge.ensemble.model import Ensemble, build_from_state, physical_units
from eosfm_edge.ensemble.store import save_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.exporting.onnx import write_onnx
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import BUNDLE_SUFFIX, MODEL_NAME
from eosfm_edge.formats.ensemble import (
    EnsembleSpec,
    FusionMode,
    InputBand,
    Provenance,
    SelectionSpec,
    SpecialistSpec,
)

Array = NDArray[np.float32]

# On four bands of no name, the first specialist is run twice and the others once each.
WANTS = (3, 4, 13)
OWNERS = (0, 0, 1, 2)
FUSIONS: tuple[FusionMode, ...] = ("none", "conv1x1", "mlp", "addition")

# The second of three is not selected: what follows it must stay in its place.
WITHOUT_SECOND = SelectionSpec(mode="topk", k=2, scale_features=True)
WEIGHTS = (0.7, -0.4, 1.6)


def shared_state(fusion: FusionMode, weights: Sequence[float]) -> State:
    state: State = {"encoder_selector.specialists_weights": torch.tensor(weights)}
    generator = torch.Generator().manual_seed(1)
    for level, width in enumerate(WIDTHS):
        for key, value in build_fusion(fusion, [width] * len(OWNERS), 24).state_dict().items():
            values = torch.randn(value.shape, generator=generator)
            state[f"feature_fusion.{level}.{key}"] = values / max(1, value[0].numel()) ** 0.5
    return state


def spec_of(fusion: FusionMode, selection: SelectionSpec) -> EnsembleSpec:
    return EnsembleSpec(
        name="test",
        input=tuple(InputBand(scale=1e-4 * (i + 1), offset=0.1 * i) for i in range(4)),
        specialists=tuple(
            SpecialistSpec(
                name=f"wants{wanted}",
                backbone=BACKBONE,
                bands=tuple(Band() for _ in range(wanted)),
                weights=f"specialists/wants{wanted}.safetensors",
                weights_sha256="0" * 64,
                provenance=Provenance(source="test"),
            )
            for wanted in WANTS
        ),
        normalisation="none",
        projection=False,
        selection=selection,
        fusion=fusion,
        shared_sha256="0" * 64,
    )


@pytest.fixture(scope="module")
def encoders() -> list[State]:
    return [encoder_state(wanted, seed=wanted) for wanted in WANTS]


def build(
    encoders: Sequence[State],
    fusion: FusionMode,
    selection: SelectionSpec = WITHOUT_SECOND,
    weights: Sequence[float] = WEIGHTS,
) -> Ensemble:
    tensors = {f"encoders.{i}.{k}": v for i, state in enumerate(encoders) for k, v in state.items()}
    return build_from_state(spec_of(fusion, selection), tensors | shared_state(fusion, weights))


def stored_image() -> torch.Tensor:
    return torch.from_numpy(scene_pixels(4, 64, 64).astype(np.float32)[None])


@torch.inference_mode()
def full(ensemble: Ensemble) -> list[Array]:
    """Return the levels of all specialists, of which those not selected are multiplied by 0."""
    levels: list[torch.Tensor] = ensemble(physical_units(ensemble.spec, stored_image()))
    return [level.numpy() for level in levels]


def exported(ensemble: Ensemble, path: Path) -> list[Array]:
    """Return the levels that the graph gives, which is left at the path."""
    write_onnx(Chain(ensemble), stored_image(), path, dynamic_batch=False)
    session = onnxruntime.InferenceSession(path)
    levels: list[Array] = session.run(None, {"image": stored_image().numpy()})
    return levels


def stems(path: Path) -> list[int]:
    """Return the bands of each specialist whose weights are in a graph."""
    tensors = onnx.load(path).graph.initializer
    return sorted(t.dims[1] for t in tensors if t.name.endswith("stem_0.weight"))


def elements(path: Path) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer)


@pytest.mark.parametrize("fusion", ["mlp", *thorough("none", "conv1x1", "addition")])
def test_the_graph_gives_what_the_whole_ensemble_gives(
    fusion: FusionMode, encoders: list[State], tmp_path: Path
) -> None:
    ensemble = build(encoders, fusion)
    got = exported(ensemble, tmp_path / "m.onnx")
    for mine, expected in zip(got, full(ensemble), strict=True):
        assert relative_difference(mine, expected) < 1e-5
    assert stems(tmp_path / "m.onnx") == [3, 13]


@pytest.mark.thorough
@pytest.mark.parametrize("selection", [SelectionSpec(mode="smooth"), SelectionSpec(mode="topk")])
def test_a_product_of_all_is_what_the_whole_ensemble_gives(
    selection: SelectionSpec, encoders: list[State], tmp_path: Path
) -> None:
    ensemble = build(encoders, "multiplication", selection)
    got = exported(ensemble, tmp_path / "m.onnx")
    for mine, expected in zip(got, full(ensemble), strict=True):
        assert relative_difference(mine, expected) < 1e-4
    assert stems(tmp_path / "m.onnx") == [3, 4, 13]


def test_the_unselected_are_zeros_where_decoders_expect_them(
    encoders: list[State], tmp_path: Path
) -> None:
    got = exported(build(encoders, "none"), tmp_path / "m.onnx")
    for level, width in zip(got, WIDTHS, strict=True):
        sets = [level[:, i * width : (i + 1) * width] for i in range(len(OWNERS))]
        assert level.shape[1] == len(OWNERS) * width
        assert not sets[2].any()
        assert all(np.abs(sets[i]).max() > 0.1 for i in (0, 1, 3))


def test_unselected_weights_are_not_in_the_graph(encoders: list[State], tmp_path: Path) -> None:
    exported(build(encoders, "conv1x1", SelectionSpec()), tmp_path / "all.onnx")
    exported(build(encoders, "conv1x1"), tmp_path / "two.onnx")
    encoder = sum(value.numel() for value in encoders[1].values())
    fusion_inputs = 24 * sum(WIDTHS)  # of the one set that the specialist has
    saved = elements(tmp_path / "all.onnx") - elements(tmp_path / "two.onnx")
    assert abs(saved - encoder - fusion_inputs) < 100
    smaller = (tmp_path / "all.onnx").stat().st_size - (tmp_path / "two.onnx").stat().st_size
    assert smaller > 4 * saved

    tensors = {t.name: tuple(t.dims) for t in onnx.load(tmp_path / "two.onnx").graph.initializer}
    assert not [name for name in tensors if "encoders.1." in name]
    fusions = [dims for name, dims in tensors.items() if "fusion" in name and len(dims) == 4]
    assert fusions == [(24, 3 * width, 1, 1) for width in WIDTHS]


def test_a_product_without_all_is_refused(encoders: list[State]) -> None:
    with pytest.raises(UserError, match="zero everywhere"):
        Chain(build(encoders, "multiplication"))


def test_an_ensemble_of_which_nothing_is_selected_is_refused(encoders: list[State]) -> None:
    with pytest.raises(UserError, match="every specialist that can be run has a selection weight"):
        Chain(build(encoders, "none", SelectionSpec(scale_features=True), (0.0, 0.0, 0.0)))


def save(encoders: list[State], directory: Path, fusion: FusionMode) -> Path:
    spec = spec_of(fusion, WITHOUT_SECOND)
    save_ensemble(directory, spec, list(encoders), shared_state(fusion, WEIGHTS))
    return directory


def test_a_bundle_says_who_is_in_it_and_who_is_not(encoders: list[State], tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", scene_pixels(4, 64, 64))
    directory = save(encoders, tmp_path / "ensemble", "none")
    bundle = tmp_path / f"test{BUNDLE_SUFFIX}"
    manifest = export_bundle(directory, scene, bundle, ExportOptions(tile=64))
    bundled = [(s.name, round(s.factor, 6), len(s.runs)) for s in manifest.specialists]
    assert bundled == [("wants3", 0.7, 2), ("wants13", 1.6, 1)]
    assert [(s.name, s.reason) for s in manifest.left_out] == [("wants4", "not selected")]
    assert stems(bundle / MODEL_NAME) == [3, 13]
    specialists = sorted(path.name for path in (bundle / "specialists").iterdir())
    assert specialists == ["wants13.gguf", "wants3.gguf"]
    assert [level.channels for level in manifest.levels] == [len(OWNERS) * w for w in WIDTHS]


def test_a_refused_product_leaves_no_bundle(encoders: list[State], tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", scene_pixels(4, 64, 64))
    directory = save(encoders, tmp_path / "ensemble", "multiplication")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="zero everywhere"):
        export_bundle(directory, scene, tmp_path / "out" / "b.eosfm", ExportOptions(tile=64))
    assert list((tmp_path / "out").iterdir()) == []
