"""Importing trained weights: what comes in comes out unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import S2_INPUT, State, encoder_state, write_pth

from eosfm_edge.ensemble.bands import RGB, Band
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.model import build_from_state
from eosfm_edge.ensemble.spec import INPUT_ADAPTER, SelectionSpec, read_spec
from eosfm_edge.ensemble.specialist import build_encoder
from eosfm_edge.ensemble.store import load_ensemble

S2 = ImportOptions(input=S2_INPUT)


def whole_encoder(prefix: str) -> State:
    """Return what a downstream checkpoint holds: an encoder of two specialists, and a decoder."""
    state = {f"encoders.{i}.{k}": v for i, n in enumerate((3, 13))
             for k, v in encoder_state(n, seed=i).items()}  # fmt: skip
    state["encoder_selector.specialists_weights"] = torch.tensor([0.25, 0.75])
    for level, width in enumerate((40, 80, 160, 320)):
        for i in range(2):
            normaliser = f"feature_normalizers.{i}.{level}"
            state[f"{normaliser}.running_mean"] = torch.full((width,), float(level))
            state[f"{normaliser}.running_var"] = torch.full((width,), 2.0)
            state[f"{normaliser}.num_batches_tracked"] = torch.tensor(7)
        state[f"feature_fusion.{level}.weight"] = torch.randn(9, 3 * width, 1, 1)
        state[f"feature_fusion.{level}.bias"] = torch.randn(9)
    inside = {prefix + key: value for key, value in state.items()}
    return {**inside, "model.decoder.conv.weight": torch.randn(2, 2)}


def test_an_ensemble_file_keeps_its_order_and_gives_its_encoders(tmp_path: Path) -> None:
    source = write_pth(tmp_path / "eosfm.pth", (13, 3))
    imported = import_ensemble([source], tmp_path / "out", S2)
    assert [s.name for s in imported.spec.specialists] == ["encoder_1", "encoder_2"]
    assert "mean 0 and variance 1" in imported.notes[0]
    ensemble = load_ensemble(tmp_path / "out")
    alone = build_encoder("convnextv2_atto", 13).eval()
    alone.load_state_dict(encoder_state(13, seed=0))
    image = torch.rand(1, 13, 64, 64)
    with torch.inference_mode():
        for level, expected in zip(ensemble(image), alone(image), strict=True):
            # Fresh statistics still divide by sqrt(1 + eps).
            mine = level[:, : expected.shape[1]] * (1 + 1e-5) ** 0.5
            torch.testing.assert_close(mine, expected)


def test_names_in_the_file_are_kept_and_made_into_file_names(tmp_path: Path) -> None:
    entries = [
        (3, encoder_state(3), {"backbone": "timm_convnextv2_atto.fcmae", "encoder_name": name})
        for name in ("../../Big Earth/Net", "plain", "plain")
    ]
    torch.save(entries, tmp_path / "e.pth")
    spec = import_ensemble([tmp_path / "e.pth"], tmp_path / "out", S2).spec
    assert [s.name for s in spec.specialists] == ["Big_Earth_Net", "plain", "plain_2"]
    written = sorted(path.name for path in (tmp_path / "out" / "specialists").iterdir())
    assert written == ["Big_Earth_Net.safetensors", "plain.safetensors", "plain_2.safetensors"]


@pytest.mark.parametrize("prefix", ["model.encoder.", "module.backbone.", ""])
def test_a_whole_encoder_comes_with_all_that_specialists_share(tmp_path: Path, prefix: str) -> None:
    state = whole_encoder(prefix)
    if not prefix:
        del state["model.decoder.conv.weight"]
    torch.save(
        {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 1e-3}}, tmp_path / "a.ckpt"
    )
    imported = import_ensemble([tmp_path / "a.ckpt"], tmp_path / "out", S2)
    assert (imported.spec.normalisation, imported.spec.fusion) == ("batch", "conv1x1")
    assert imported.notes == ()
    loaded = load_ensemble(tmp_path / "out").state_dict()
    for key, value in state.items():
        name = key.removeprefix(prefix)
        if not name.endswith("num_batches_tracked") and "decoder" not in name:
            assert torch.equal(loaded[name], value), name


def test_an_imported_encoder_computes_bit_for_bit_what_its_tensors_do(tmp_path: Path) -> None:
    state = whole_encoder("model.encoder.")
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    selection = SelectionSpec(mode="topk", k=1, scale_features=True)
    options = ImportOptions(input=S2_INPUT, selection=selection)
    spec = import_ensemble([tmp_path / "a.ckpt"], tmp_path / "out", options).spec
    source = {k.removeprefix("model.encoder."): v for k, v in state.items() if ".encoder." in k}
    image = torch.rand(1, 13, 64, 64)
    with torch.inference_mode():
        levels = load_ensemble(tmp_path / "out")(image)
        expected = build_from_state(spec, source)(image)
    assert all(torch.equal(a, b) for a, b in zip(levels, expected, strict=True))


def test_selection_weights_may_have_any_shape(tmp_path: Path) -> None:
    state = whole_encoder("")
    del state["model.decoder.conv.weight"]
    state["encoder_selector.specialists_weights"] = torch.tensor([[0.25], [0.75]])
    torch.save(state, tmp_path / "a.ckpt")
    import_ensemble([tmp_path / "a.ckpt"], tmp_path / "out", S2)
    assert load_ensemble(tmp_path / "out").encoder_selector().tolist() == [1, 1]


def test_projections_and_mlp_fusion_come_along(tmp_path: Path) -> None:
    state = {f"encoders.0.{k}": v for k, v in encoder_state(13).items()}
    state["encoder_selector.specialists_weights"] = torch.ones(1)
    for level, width in enumerate((40, 80, 160, 320)):
        state[f"feature_projections.0.{level}.0.weight"] = torch.randn(8, width, 1, 1)
        state[f"feature_projections.0.{level}.0.bias"] = torch.randn(8)
        state[f"feature_fusion.{level}.0.weight"] = torch.randn(10, 8, 1, 1)
        state[f"feature_fusion.{level}.0.bias"] = torch.randn(10)
        state[f"feature_fusion.{level}.2.weight"] = torch.randn(5, 10, 1, 1)
        state[f"feature_fusion.{level}.2.bias"] = torch.randn(5)
    torch.save(state, tmp_path / "e.pth")
    spec = import_ensemble([tmp_path / "e.pth"], tmp_path / "out", S2).spec
    assert (spec.projection, spec.fusion, spec.normalisation) == (True, "mlp", "none")
    levels = load_ensemble(tmp_path / "out")(torch.rand(1, 13, 32, 32))
    assert [level.shape[1] for level in levels] == [5, 5, 5, 5]


def test_single_specialists_are_put_together_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "clouds").mkdir()
    terms = {"bands": "B02,B03,B04,B08,B11,B12", "licence": "MIT", "citation": "Somebody 2020"}
    save_file(encoder_state(6), tmp_path / "clouds" / "model.safetensors", terms)
    beside_a_head = {f"model.encoder.{k}": v for k, v in encoder_state(3).items()}
    beside_a_head["model.head.weight"] = torch.randn(3, 3)
    torch.save({"state_dict": beside_a_head}, tmp_path / "eurosat.ckpt")
    sources = [tmp_path / "eurosat.ckpt", tmp_path / "clouds" / "model.safetensors"]
    spec = import_ensemble(sources, tmp_path / "out", S2).spec
    rgb, clouds = spec.specialists
    assert (rgb.name, clouds.name) == ("eurosat", "clouds")
    assert tuple(band.name for band in rgb.bands) == RGB
    assert (clouds.provenance.licence, clouds.provenance.citation) == ("MIT", "Somebody 2020")
    assert spec.feature_sets() == (((3, 2, 1), (7, 3, 2)), ((1, 2, 3, 7, 11, 12),))


def test_half_precision_weights_stay_half_on_disk_and_compute_in_single(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in encoder_state(13).items()}
    save_file(state, tmp_path / "half.safetensors")
    import_ensemble([tmp_path / "half.safetensors"], tmp_path / "out", S2)
    weights = tmp_path / "out" / "specialists" / "half.safetensors"
    assert weights.stat().st_size < 2.1 * sum(v.numel() for v in state.values()) + 50_000
    loaded = load_ensemble(tmp_path / "out").state_dict()["encoders.0.stem_0.weight"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, state["stem_0.weight"].float())


def test_a_header_says_what_options_would(tmp_path: Path) -> None:
    save_file(encoder_state(13), tmp_path / "all.safetensors")
    shared = {"encoder_selector.specialists_weights": torch.ones(1)}
    header = {
        "specialists": "all",
        "input": INPUT_ADAPTER.dump_json(S2_INPUT).decode(),
        "selection": SelectionSpec(mode="smooth").model_dump_json(),
        "normalisation": "layer",
        "fusion": "none",
    }
    save_file(shared, tmp_path / "shared.safetensors", header)
    import_ensemble(
        [tmp_path / "all.safetensors", tmp_path / "shared.safetensors"], tmp_path / "out"
    )
    spec = read_spec(tmp_path / "out")
    assert (spec.input, spec.normalisation, spec.selection.mode) == (S2_INPUT, "layer", "smooth")


def test_bands_of_a_specialist_can_be_given(tmp_path: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (3,))
    swir = tuple(Band(name=name) for name in ("B12", "B11", "B04"))
    options = ImportOptions(input=S2_INPUT, specialist_bands={"e": swir})
    spec = import_ensemble([source], tmp_path / "out", options).spec
    assert spec.feature_sets() == (((12, 11, 3),),)


def test_other_sizes_are_known_by_their_tensors(tmp_path: Path) -> None:
    torch.save(encoder_state(13, backbone="convnextv2_femto"), tmp_path / "femto.pth")
    spec = import_ensemble([tmp_path / "femto.pth"], tmp_path / "out", S2).spec
    assert spec.specialists[0].backbone == "convnextv2_femto"
