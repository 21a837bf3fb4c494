"""Importing trained weights: what comes in comes out unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.weights import BACKBONE, S2_INPUT, WIDTHS, State, encoder_state, refusal, write_pth

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.model import build_from_state
from eosfm_edge.ensemble.specialist import build_encoder
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.bands import PRESETS, RGB, S2_L1C, Band
from eosfm_edge.formats.ensemble import INPUT_ADAPTER, InputBand, SelectionSpec, read_spec

S2 = ImportOptions(input=S2_INPUT)
# EuroSAT's order
B8A_LAST = tuple(InputBand(name=name) for name in (*(n for n in S2_L1C if n != "B8A"), "B8A"))


def named_bands(*names: str) -> tuple[Band, ...]:
    return tuple(Band(name=name) for name in names)


def whole_encoder(prefix: str) -> State:
    """Return what a downstream checkpoint holds: an encoder of two specialists, and a decoder."""
    state = {f"encoders.{i}.{k}": v for i, n in enumerate((3, 13))
             for k, v in encoder_state(n, seed=i).items()}  # fmt: skip
    state["encoder_selector.specialists_weights"] = torch.tensor([0.25, 0.75])
    for level, width in enumerate(WIDTHS):
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
    source = write_pth(tmp_path / "eosfm.pth", (13, 3), "convnextv2_atto")
    imported = import_ensemble([source], tmp_path / "out", S2)
    assert [s.name for s in imported.spec.specialists] == ["encoder_1", "encoder_2"]
    assert "mean 0 and variance 1" in imported.notes[0]
    ensemble = load_ensemble(tmp_path / "out")
    alone = build_encoder("convnextv2_atto", 13).eval()
    alone.load_state_dict(encoder_state(13, seed=0, backbone="convnextv2_atto"))
    image = torch.rand(1, 13, 64, 64)
    with torch.inference_mode():
        for level, expected in zip(ensemble(image), alone(image), strict=True):
            # Fresh statistics still divide by sqrt(1 + eps).
            mine = level[:, : expected.shape[1]] * (1 + 1e-5) ** 0.5
            torch.testing.assert_close(mine, expected)


def test_names_in_the_file_are_kept_and_made_into_file_names(tmp_path: Path) -> None:
    entries = [
        (3, encoder_state(3), {"backbone": f"timm_{BACKBONE}.fcmae", "encoder_name": name})
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
    all_of_them = ImportOptions(input=S2_INPUT, selection=SelectionSpec(k=2))
    imported = import_ensemble([tmp_path / "a.ckpt"], tmp_path / "out", all_of_them)
    assert (imported.spec.normalisation, imported.spec.fusion) == ("batch", "conv1x1")
    assert not any("statistics" in note or "fusion" in note for note in imported.notes)
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
    options = ImportOptions(input=S2_INPUT, selection=SelectionSpec(k=1))
    import_ensemble([tmp_path / "a.ckpt"], tmp_path / "out", options)
    assert load_ensemble(tmp_path / "out").encoder_selector().tolist() == [0, 1]


def test_projections_and_mlp_fusion_come_along(tmp_path: Path) -> None:
    state = {f"encoders.0.{k}": v for k, v in encoder_state(13).items()}
    for level, width in enumerate(WIDTHS):
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


def reference_checkpoint(path: Path, fused: bool) -> Path:
    """Write what the reference makes of specialists of 13, 12 and 3 bands over a 13-band input.

    It has no rule for 12 of 13, so that the fusion sees the first specialist once and the last
    one twice.
    """
    state: State = {}
    for i, wanted in enumerate((13, 12, 3)):
        state |= {f"encoders.{i}.{k}": v for k, v in encoder_state(wanted, seed=i).items()}
        for level, width in enumerate(WIDTHS):
            state[f"feature_normalizers.{i}.{level}.running_mean"] = torch.full((width,), 0.5)
            state[f"feature_normalizers.{i}.{level}.running_var"] = torch.full((width,), 2.0)
    if fused:
        for level, width in enumerate(WIDTHS):
            state[f"feature_fusion.{level}.weight"] = torch.randn(width, 3 * width, 1, 1)
            state[f"feature_fusion.{level}.bias"] = torch.randn(width)
    torch.save({"state_dict": {f"model.encoder.{k}": v for k, v in state.items()}}, path)
    return path


skipped_is_expected = pytest.mark.filterwarnings(
    "ignore::eosfm_edge.ensemble.model.SpecialistSkippedWarning"
)
ALL_13 = tuple(range(13))
TRUE_COLOUR_AND_INFRARED = ((3, 2, 1), (7, 3, 2))


@skipped_is_expected
@pytest.mark.parametrize("fused", [True, False], ids=["conv1x1", "none"])
def test_a_reference_checkpoint_is_run_as_the_reference_runs_it(
    tmp_path: Path, fused: bool
) -> None:
    source = reference_checkpoint(tmp_path / "a.ckpt", fused)
    imported = import_ensemble([source], tmp_path / "out", S2)
    assert imported.spec.adaptation == "count"
    assert imported.spec.feature_sets() == ((ALL_13,), (), TRUE_COLOUR_AND_INFRARED)
    assert any("--adaptation name" in note and "encoder_2" in note for note in imported.notes)
    image = torch.rand(1, 13, 32, 32)
    with torch.inference_mode():
        (level, *_) = load_ensemble(tmp_path / "out")(image)
    assert level.shape[1] == (8 if fused else 24)


@skipped_is_expected
@pytest.mark.parametrize(("wants", "available"), [(4, 12), (4, 13), (4, 14), (2, 5)])
def test_an_ensemble_file_skips_what_the_reference_skips(
    tmp_path: Path, wants: int, available: int
) -> None:
    source = write_pth(tmp_path / "e.pth", (3, wants))
    names = next(names for names in PRESETS.values() if len(names) == available)
    options = ImportOptions(input=tuple(InputBand(name=name) for name in names))
    assert import_ensemble([source], tmp_path / "out", options).spec.feature_sets()[1] == ()


def test_adaptation_by_name_can_be_asked_for(tmp_path: Path) -> None:
    source = reference_checkpoint(tmp_path / "a.ckpt", fused=False)
    options = ImportOptions(input=S2_INPUT, adaptation="name")
    imported = import_ensemble([source], tmp_path / "out", options)
    l2a = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12)
    assert imported.spec.feature_sets() == ((ALL_13,), (l2a,), TRUE_COLOUR_AND_INFRARED)
    assert not any("--adaptation" in note for note in imported.notes)


def test_bands_that_the_user_names_are_matched_by_name(tmp_path: Path) -> None:
    source = reference_checkpoint(tmp_path / "a.ckpt", fused=False)
    imported = import_ensemble([source], tmp_path / "out", ImportOptions(input=B8A_LAST))
    assert imported.spec.adaptation == "name"
    assert imported.spec.feature_sets()[0] == ((0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11),)
    assert any("--adaptation count" in note and "encoder_1" in note for note in imported.notes)


def test_a_fusion_that_fits_by_count_only_says_so(tmp_path: Path) -> None:
    source = reference_checkpoint(tmp_path / "a.ckpt", fused=True)
    message = refusal(tmp_path, [source], ImportOptions(input=B8A_LAST))
    assert "feature_fusion.0.weight has shape (8, 24, 1, 1)" in message
    assert "--adaptation count" in message


@skipped_is_expected
def test_by_count_an_input_in_eurosats_order_goes_in_as_it_is(tmp_path: Path) -> None:
    source = reference_checkpoint(tmp_path / "a.ckpt", fused=True)
    options = ImportOptions(input=B8A_LAST, adaptation="count")
    imported = import_ensemble([source], tmp_path / "out", options)
    assert imported.spec.feature_sets()[0] == (ALL_13,)
    assert not any("B8A" in note for note in imported.notes)


def test_specialists_that_come_one_by_one_go_by_name(tmp_path: Path) -> None:
    save_file(encoder_state(12), tmp_path / "l2a.safetensors")
    imported = import_ensemble([tmp_path / "l2a.safetensors"], tmp_path / "out", S2)
    assert imported.spec.adaptation == "name"
    assert len(imported.spec.feature_sets()[0]) == 1


@skipped_is_expected
def test_an_encoder_without_a_fusion_may_have_had_one_without_tensors(tmp_path: Path) -> None:
    source = reference_checkpoint(tmp_path / "a.ckpt", fused=False)
    notes = import_ensemble([source], tmp_path / "out", S2).notes
    assert any("--fusion addition" in note for note in notes)
    chosen = ImportOptions(input=S2_INPUT, fusion="none")
    notes = import_ensemble([source], tmp_path / "out", chosen, overwrite=True).notes
    assert not any("--fusion" in note for note in notes)


def test_the_place_of_b8a_is_a_guess_that_is_told(tmp_path: Path) -> None:
    save_file(encoder_state(13), tmp_path / "silent.safetensors")
    save_file(encoder_state(13), tmp_path / "named.safetensors", {"bands": "S2L1C"})
    sources = [tmp_path / "silent.safetensors", tmp_path / "named.safetensors"]
    notes = import_ensemble(sources, tmp_path / "out", S2).notes
    (note,) = [note for note in notes if "B8A" in note]
    assert note.startswith("silent: ")
    assert "--specialist-bands" in note
    options = ImportOptions(input=S2_INPUT, specialist_bands={"silent": named_bands(*S2_L1C)})
    notes = import_ensemble(sources, tmp_path / "out", options, overwrite=True).notes
    assert not any("B8A" in note for note in notes)


def test_what_a_checkpoint_leaves_behind_need_not_be_tensors(tmp_path: Path) -> None:
    state: dict[str, object] = {f"model.encoder.{k}": v for k, v in encoder_state(3).items()}
    state |= {"metric._extra_state": None, "model.head.weight": torch.zeros(3, 3)}
    torch.save({"state_dict": state}, tmp_path / "one.ckpt")
    import_ensemble([tmp_path / "one.ckpt"], tmp_path / "out", S2)
    assert len(load_ensemble(tmp_path / "out").sets) == 1
