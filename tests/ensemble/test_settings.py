"""Settings that EoS-FM's trainer writes beside the weights: selection and fusion."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.hydra import config_of, omegaconf_in_place
from support.speck import SPECK
from support.weights import S2_INPUT, State, encoder_state, refusal

from eosfm_edge.ensemble.importer import Imported, ImportOptions, import_ensemble
from eosfm_edge.ensemble.model import build_from_state
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.bands import PRESETS
from eosfm_edge.formats.ensemble import InputBand, SelectionSpec

SMALL = f"convnextv2_{SPECK}"
WIDTHS = (8, 16, 24, 16)
S2 = ImportOptions(input=S2_INPUT)


def whole(*, normalised: bool = True, fused: bool = True, selection: object = None) -> State:
    """Return an encoder of two specialists of 3 and 13 bands: three sets of a 13-band input."""
    state = {f"encoders.{i}.{k}": v for i, bands in enumerate((3, 13))
             for k, v in encoder_state(bands, i, SMALL).items()}  # fmt: skip
    torch.manual_seed(0)
    for level, width in enumerate(WIDTHS):
        for i in range(2 if normalised else 0):
            name = f"feature_normalizers.{i}.{level}"
            state[f"{name}.running_mean"] = torch.randn(width)
            state[f"{name}.running_var"] = 0.5 + torch.rand(width)
        if fused:
            state[f"feature_fusion.{level}.weight"] = torch.randn(width, 3 * width, 1, 1)
            state[f"feature_fusion.{level}.bias"] = torch.randn(width)
    if selection is not None:
        state["encoder_selector.specialists_weights"] = torch.tensor(selection)
    return state


def checkpoint(path: Path, state: State, arguments: object) -> Path:
    content = {
        "state_dict": {f"model.encoder.{key}": value for key, value in state.items()},
        "hyper_parameters": {"model_args": arguments, "lr": 1e-4},
    }
    with omegaconf_in_place():
        torch.save(content, path)
    return path


def arguments(**more: object) -> dict[str, object]:
    return {"backbone": "EosFM", "backbone_in_chans": 13, "decoder": "UNet", **more}


def take(folder: Path, state: State, said: object, options: ImportOptions = S2) -> Imported:
    source = checkpoint(folder / "a.ckpt", state, said)
    return import_ensemble([source], folder / "out", options, overwrite=True)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 1.0]])
@pytest.mark.parametrize("wrap", [dict, config_of, lambda said: argparse.Namespace(**said)])
def test_one_of_two_encoders_is_selected_as_it_was_in_training(
    tmp_path: Path, weights: list[float], wrap: Callable[[Mapping[str, object]], Any]
) -> None:
    state = whole(selection=weights)
    said = wrap(arguments(backbone_max_encoders=1, backbone_feature_fusion="conv1x1"))
    imported = take(tmp_path, state, said)
    assert imported.spec.selection == SelectionSpec(mode="topk", k=1)
    assert any("selection topk of 1" in note for note in imported.notes)
    assert any("weights that are equal" in note for note in imported.notes) == (weights[1] == 1)
    image = torch.rand(1, 13, 32, 32)
    with torch.inference_mode():
        levels = load_ensemble(tmp_path / "out")(image)
        chosen = ImportOptions(input=S2_INPUT, selection=SelectionSpec(k=1))
        take(tmp_path, state, said, chosen)
        expected = load_ensemble(tmp_path / "out")(image)
    assert all(torch.equal(a, b) for a, b in zip(levels, expected, strict=True))


def test_all_that_the_trainer_says_is_taken(tmp_path: Path) -> None:
    said = arguments(
        backbone_max_encoders=np.int64(2),
        backbone_encoder_selection_mode="smooth",
        backbone_scale_features=True,
        backbone_normalization_type="layer",
        backbone_feature_fusion="multiplication",
    )
    spec = take(tmp_path, whole(normalised=False, fused=False, selection=[0.2, 0.4]), said).spec
    assert spec.selection == SelectionSpec(mode="smooth", scale_features=True)
    assert (spec.normalisation, spec.fusion) == ("layer", "multiplication")


def test_arguments_of_a_backbone_may_stand_in_a_dictionary_of_their_own(tmp_path: Path) -> None:
    said = {"backbone": "EosFM", "backbone_kwargs": {"max_encoders": 1,
                                                     "feature_fusion": "conv1x1"}}  # fmt: skip
    assert take(tmp_path, whole(selection=[1.0, 2.0]), said).spec.selection.k == 1


def test_normalisation_may_be_switched_off(tmp_path: Path) -> None:
    said = arguments(backbone_normalize_features=False, backbone_feature_fusion="conv1x1")
    assert take(tmp_path, whole(normalised=False), said).spec.normalisation == "none"


def test_what_is_not_said_is_the_references_default(tmp_path: Path) -> None:
    spec = take(tmp_path, whole(fused=False), arguments()).spec
    assert (spec.selection, spec.normalisation, spec.fusion) == (SelectionSpec(), "batch", "none")


def test_ablated_specialists_give_normalised_zeros(tmp_path: Path) -> None:
    state = whole()
    said = arguments(backbone_ablate_encoders=[0], backbone_feature_fusion="conv1x1")
    imported = take(tmp_path, state, said)
    assert any("ablated encoders (0,)" in note for note in imported.notes)
    model: Any = build_from_state(imported.spec, state)
    model.encoders[0].register_forward_hook(lambda *call: [torch.zeros_like(f) for f in call[2]])
    image = torch.rand(1, 13, 64, 64)
    with torch.inference_mode():
        levels, expected = load_ensemble(tmp_path / "out")(image), model(image)
    for level, wanted in zip(levels, expected, strict=True):
        torch.testing.assert_close(level, wanted)


def test_options_overrule_the_file_and_say_so(tmp_path: Path) -> None:
    said = arguments(backbone_max_encoders=1, backbone_feature_fusion="conv1x1")
    options = ImportOptions(input=S2_INPUT, selection=SelectionSpec(k=2))
    imported = take(tmp_path, whole(selection=[1.0, 2.0]), said, options)
    assert imported.spec.selection.k == 2
    assert any("--top-k" in note and "overrules" in note for note in imported.notes)


@pytest.mark.parametrize("said", [{}, {"backbone": "EosFM2"}, None])
def test_a_selection_that_nobody_describes_is_asked_for(tmp_path: Path, said: object) -> None:
    source = checkpoint(tmp_path / "a.ckpt", whole(selection=[0.25, 0.75]), said)
    message = refusal(tmp_path, [source], S2)
    assert "0.25, 0.75" in message
    assert "--top-k 2 takes all" in message
    assert "--selection smooth" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_encoders", "${k}"), ("max_encoders", 0), ("max_encoders", 1.5),
        ("encoder_selection_mode", "best"), ("scale_features", "yes"),
        ("normalization_type", "instance"), ("feature_fusion", "attention"),
        ("normalize_features", 1), ("ablate_encoders", "all"), ("ablate_encoders", [-1]),
        ("ablate_encoders", [7]), ("in_chans", True), ("max_encoders", True),
    ],
)  # fmt: skip
def test_a_setting_that_eosfm_does_not_have_is_refused(
    tmp_path: Path, key: str, value: object
) -> None:
    said = {"backbone_max_encoders": 1, "backbone_feature_fusion": "conv1x1",
            f"backbone_{key}": value}  # fmt: skip
    state = whole(selection=[1.0, 2.0])
    source = checkpoint(tmp_path / "a.ckpt", state, config_of(arguments(**said)))
    message = refusal(tmp_path, [source], S2)
    assert f"backbone_{key}" in message


def test_another_number_of_bands_than_in_training_is_told(tmp_path: Path) -> None:
    four = tuple(InputBand(name=name) for name in PRESETS["RGBN"])
    options = ImportOptions(input=four)
    imported = take(tmp_path, whole(fused=False), arguments(), options)
    assert any("had 13 input bands, and here there are 4" in note for note in imported.notes)
