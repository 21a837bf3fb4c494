"""Weight files that cannot be used: a message that names file and key, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.weights import BACKBONE, S2_INPUT, State, encoder_state, refusal, write_pth

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import SelectionSpec

S2 = ImportOptions(input=S2_INPUT)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(encoder_state(3), path)
    else:
        save_file(encoder_state(3), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert f"cut{suffix} is not a whole" in refusal(tmp_path, [path])


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.ckpt"
    path.write_text("epoch 1: loss 0.3\n" * 50)
    assert "notes.ckpt is not a whole PyTorch file" in refusal(tmp_path, [path])


@pytest.mark.parametrize(
    "content", [b"epoch 1\n", b"{}", b"GIF89a", b"# Notes\n", b"PK\3\4" + b"0" * 60, b"\x80\x02}q"]
)
def test_nobody_is_told_to_load_it_without_care(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.ckpt").write_bytes(content)
    message = refusal(tmp_path, [tmp_path / "odd.ckpt"])
    assert "odd.ckpt is not a whole PyTorch file" in message
    assert "weights_only" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.pth" in refusal(tmp_path, [tmp_path / "nowhere.pth"])


def without(key: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if k != key}


def with_(key: str, value: torch.Tensor) -> Callable[[State], State]:
    return lambda state: {**state, key: value}


FC2 = "stages_2.blocks.5.mlp.fc2.weight"
LAST_DW = "stages_3.blocks.1.conv_dw.weight"


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (without(FC2), f"key {FC2} is missing"),
        (without("stem_1.bias"), "key stem_1.bias is missing"),
        (with_("head.fc.weight", torch.zeros(3)), "key head.fc.weight does not belong"),
        (with_(FC2, torch.zeros(24, 10, 1, 1)), f"{FC2} has shape (24, 10, 1, 1)"),
        (with_(FC2, torch.full((24, 96, 1, 1), torch.nan)), f"{FC2} has values that are not"),
        (with_(FC2, torch.ones(24, 96, 1, 1, dtype=torch.int8)), f"{FC2} is torch.int8"),
        (with_("stem_0.weight", torch.zeros(9, 3, 4, 4)), "stem_0.weight has shape (9, 3, 4, 4)"),
        (without(LAST_DW), f"key {LAST_DW} is missing"),
        (with_(LAST_DW, torch.zeros(9, 1, 7, 7)), f"{LAST_DW} has shape (9, 1, 7, 7)"),
        (with_(LAST_DW, torch.zeros(3)), f"{LAST_DW} has shape (3,)"),
        (
            without("stages_0.blocks.0.conv_dw.weight"),
            "stages_0.blocks.0.conv_dw.weight is missing",
        ),
        (with_("stem_0.weight", torch.zeros(8)), "stem_0.weight has shape (8,)"),
    ],
)
@pytest.mark.parametrize("kind", ["single", "ensemble"])
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, spoil: Callable[[State], State], complaint: str, kind: str
) -> None:
    state = spoil(encoder_state(3))
    path = tmp_path / "spoilt.pth"
    config = {"backbone": f"timm_{BACKBONE}"}
    torch.save(state if kind == "single" else [(3, state, config)], path)
    message = refusal(tmp_path, [path])
    assert "spoilt.pth" in message
    assert complaint in message


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([], "empty list"),
        ([(3, {})], "is a tuple"),
        ([(0, {}, {"backbone": f"timm_{BACKBONE}"})], "in_chans is 0"),
        ([(3, {}, {})], "config has no 'backbone'"),
        ([(3, {}, {"backbone": "timm_resnet50"})], "'timm_resnet50' is not supported"),
        ([(3, {"a": 1}, {"backbone": f"timm_{BACKBONE}"})], "a is a int"),
        ({"weights": torch.zeros(3)}, "holds no specialist"),
        (torch.zeros(3), "is a Tensor"),
    ],
)
def test_content_of_another_form_is_refused(
    tmp_path: Path, content: object, complaint: str
) -> None:
    torch.save(content, tmp_path / "other.pth")
    message = refusal(tmp_path, [tmp_path / "other.pth"])
    assert "other.pth" in message
    assert complaint in message


def test_encoders_must_be_numbered_from_0_without_gaps(tmp_path: Path) -> None:
    state = {f"encoders.{i}.{k}": v for i in (0, 2) for k, v in encoder_state(3).items()}
    torch.save(state, tmp_path / "gap.ckpt")
    assert "gap.ckpt: encoders.1 is missing" in refusal(tmp_path, [tmp_path / "gap.ckpt"])


def test_an_encoder_without_a_stem_is_named(tmp_path: Path) -> None:
    state = {f"encoders.{i}.{k}": v for i in (0, 1) for k, v in encoder_state(3).items()}
    del state["encoders.1.stem_0.weight"]
    torch.save(state, tmp_path / "e.ckpt")
    message = refusal(tmp_path, [tmp_path / "e.ckpt"])
    assert "e.ckpt encoders.1: key stem_0.weight is missing" in message


def test_what_is_no_convnextv2_is_not_compared_with_one(tmp_path: Path) -> None:
    torch.save({"stem_0.weight": torch.zeros(40, 3, 4, 4)}, tmp_path / "e.pth")
    message = refusal(tmp_path, [tmp_path / "e.pth"])
    assert "e.pth is no ConvNeXtV2 that timm knows" in message


def test_a_key_that_does_not_belong_beside_a_single_encoder_is_named(tmp_path: Path) -> None:
    state = {f"model.encoder.{k}": v for k, v in encoder_state(3).items()}
    state["model.encoder.surplus.weight"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "one.ckpt")
    message = refusal(tmp_path, [tmp_path / "one.ckpt"])
    assert "one.ckpt model.encoder: key surplus.weight does not belong" in message


def test_what_is_kept_must_be_tensors(tmp_path: Path) -> None:
    state: dict[str, object] = {f"model.encoder.{k}": v for k, v in encoder_state(3).items()}
    state["model.encoder._extra_state"] = None
    torch.save({"state_dict": state}, tmp_path / "one.ckpt")
    message = refusal(tmp_path, [tmp_path / "one.ckpt"])
    assert "one.ckpt: model.encoder._extra_state is a NoneType" in message


def test_two_encoders_in_one_checkpoint_are_ambiguous(tmp_path: Path) -> None:
    state = {
        f"{prefix}.{key}": value
        for seed, prefix in enumerate(("model", "ema"))
        for key, value in encoder_state(3, seed).items()
    }
    torch.save(state, tmp_path / "both.ckpt")
    message = refusal(tmp_path, [tmp_path / "both.ckpt"])
    assert "several encoders, under ema., model." in message
    assert "add --prefix model." in message


def shared_file(path: Path, **tensors: torch.Tensor) -> Path:
    weights = {"encoder_selector.specialists_weights": torch.ones(1), **tensors}
    selection = SelectionSpec().model_dump_json()
    header = {"specialists": "one", "normalisation": "none", "selection": selection}
    save_file(weights, path, header)
    return path


def test_what_specialists_share_belongs_to_them_in_their_order(tmp_path: Path) -> None:
    save_file(encoder_state(13), tmp_path / "two.safetensors")
    shared = shared_file(tmp_path / "shared.safetensors")
    message = refusal(tmp_path, [tmp_path / "two.safetensors", shared])
    assert "specialists are given as two" in message


def test_a_shared_key_that_does_not_belong_is_named(tmp_path: Path) -> None:
    save_file(encoder_state(13), tmp_path / "one.safetensors")
    shared = shared_file(
        tmp_path / "shared.safetensors", **{"feature_normalizers.0.0.running_mean": torch.ones(40)}
    )
    message = refusal(tmp_path, [tmp_path / "one.safetensors", shared])
    assert "shared.safetensors: key feature_normalizers.0.0.running_mean does not belong" in message


def test_a_fusion_for_another_input_is_refused(tmp_path: Path) -> None:
    save_file(encoder_state(13), tmp_path / "one.safetensors")
    fusion = {f"feature_fusion.{i}.weight": torch.ones(5, 41, 1, 1) for i in range(4)}
    shared = shared_file(tmp_path / "shared.safetensors", **fusion)
    message = refusal(tmp_path, [tmp_path / "one.safetensors", shared])
    assert "feature_fusion.0.weight has shape (5, 41, 1, 1)" in message
    assert "(5, 8, 1, 1)" in message


def test_only_one_file_may_say_what_is_shared(tmp_path: Path) -> None:
    save_file(encoder_state(13), tmp_path / "one.safetensors")
    shared = [shared_file(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    assert "both hold" in refusal(tmp_path, [tmp_path / "one.safetensors", *shared])


def test_the_largest_weights_cannot_be_taken_where_there_are_none(tmp_path: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (13, 3))
    options = ImportOptions(input=S2_INPUT, selection=SelectionSpec(k=1))
    assert "no selection weights" in refusal(tmp_path, [source], options)


def test_more_specialists_cannot_be_selected_than_there_are(tmp_path: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (13,))
    options = ImportOptions(input=S2_INPUT, selection=SelectionSpec(k=2))
    assert "selection.k is 2" in refusal(tmp_path, [source], options)


def test_the_input_s_bands_must_be_known(tmp_path: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (13,))
    assert "add --bands" in refusal(tmp_path, [source], ImportOptions())


def test_sums_need_sets_of_one_width(tmp_path: Path) -> None:
    state = [encoder_state(13), encoder_state(3, backbone="convnextv2_femto")]
    for name, tensors in zip(("slim", "femto"), state, strict=True):
        torch.save(tensors, tmp_path / f"{name}.pth")
    options = ImportOptions(input=S2_INPUT, fusion="addition")
    message = refusal(tmp_path, [tmp_path / "slim.pth", tmp_path / "femto.pth"], options)
    assert "fusion 'addition' over feature sets of [8, 48] channels" in message


def test_an_output_that_is_there_is_kept(ensemble: Path, tmp_path: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (13,))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    assert "add --overwrite" in refusal(tmp_path, [source])
    with pytest.raises(UserError, match=r"holds thesis.tex, which eosfm-edge did not write"):
        import_ensemble([source], tmp_path / "out", S2, overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("surprise", 1, "surprise: Extra inputs"),
        ("schema_version", 2, "schema_version"),
        ("shared_sha256", "f" * 64, "not the file that ensemble.json was written with"),
        ("input", [], "input: Tuple should have at least 1 item"),
    ],
)
def test_a_tampered_ensemble_is_refused(
    tmp_path: Path, field: str, value: object, complaint: str
) -> None:
    import_ensemble([write_pth(tmp_path / "e.pth", (13,))], tmp_path / "out", S2)
    path = tmp_path / "out" / "ensemble.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(UserError, match=complaint):
        load_ensemble(tmp_path / "out")


def test_weights_cannot_lie_outside_the_ensemble(tmp_path: Path) -> None:
    import_ensemble([write_pth(tmp_path / "e.pth", (13,))], tmp_path / "out", S2)
    path = tmp_path / "out" / "ensemble.json"
    path.write_text(path.read_text().replace("specialists/e.safe", "../e.safe"))
    with pytest.raises(UserError, match="relative path inside"):
        load_ensemble(tmp_path / "out")
