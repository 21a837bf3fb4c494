"""Weight files as their users have them: other trainers' names, nesting, kinds and contents."""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.hydra import config_of, omegaconf_in_place
from support.speck import SPECK
from support.weights import S2_INPUT, State, encoder_state, refusal
from timm.models.convnext import checkpoint_filter_fn
from torch import nn

from eosfm_edge.ensemble.importer import Imported, ImportOptions, import_ensemble
from eosfm_edge.formats.bands import RGB, Band
from eosfm_edge.formats.ensemble import InputBand

SMALL = f"convnextv2_{SPECK}"
RGB_INPUT = tuple(InputBand(name=name) for name in RGB)
S2 = ImportOptions(input=S2_INPUT)


def small(seed: int = 0, bands: int = 3) -> State:
    return encoder_state(bands, seed, SMALL)


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def take(folder: Path, source: Path, options: ImportOptions = S2) -> tuple[Imported, list[State]]:
    imported = import_ensemble([source], folder / "out", options, overwrite=True)
    return imported, [load_file(folder / "out" / s.weights) for s in imported.spec.specialists]


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def imports(folder: Path, content: object, *expected: State, name: str = "given.ckpt") -> Imported:
    """Save what a trainer would, and check that the specialists' tensors come out."""
    torch.save(content, folder / name)
    imported, states = take(folder, folder / name)
    assert len(states) == len(expected)
    assert all(map(same, states, expected))
    return imported


# ------------------------------------------------------------------- pickled beside the weights


def test_a_specialist_of_eosfms_own_recipe_imports(tmp_path: Path) -> None:
    arguments = {"backbone": "timm_convnextv2_atto", "backbone_pretrained": True, "num_classes": 10}
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": under("model.encoder.", small()) | {"model.head.weight": torch.zeros(10, 16)},
        "hparams_name": "kwargs",
        "hyper_parameters": {"model_args": config_of(arguments), "loss": "ce"},
    }
    with omegaconf_in_place():
        imports(tmp_path, content, small())


@pytest.mark.parametrize(
    "beside",
    [
        np.float64(0.91), np.ones(3), PurePosixPath("data/chips"), argparse.Namespace(lr=1e-3),
        defaultdict(list, a=[1]), partial(torch.optim.SGD, lr=0.1), UUID(int=3), {1, 2},
        nn.CrossEntropyLoss(weight=torch.ones(3)), torch.device("cpu"), torch.Generator, 3 + 4j,
        torch.float32, torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch.ones(2).to_sparse(), torch.zeros(2, device="meta"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of prototypes
def test_anything_may_be_pickled_beside_the_weights(
    tmp_path: Path, beside: object, zipped: bool
) -> None:
    content = {"state_dict": under("model.", small()), "hyper_parameters": {"x": beside}}
    content["callbacks"] = {"best": beside}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    assert same(take(tmp_path, tmp_path / "a.ckpt")[1][0], small())


# ---------------------------------------------------------------------------- names and nesting


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"^(stages_\d\.blocks\.\d+)\.", r"\1._orig_mod."),
        (r"^", "_orig_mod."),
        (r"^", "module._orig_mod.encoder."),
        (r"\.(mlp)\.", r"._checkpoint_wrapped_module.\1."),
        (r"^(stages_\d)\.", r"\1._fsdp_wrapped_module."),
    ],
)
def test_wrappers_are_taken_out_wherever_they_stand(
    tmp_path: Path, pattern: str, replacement: str
) -> None:
    imports(tmp_path, {re.sub(pattern, replacement, k): v for k, v in small().items()}, small())


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module."])
def test_encoders_may_be_wrapped_one_by_one(tmp_path: Path, wrapper: str) -> None:
    states = small(0, 3), small(1, 13)
    whole = {}
    for i, state in enumerate(states):
        whole |= under(f"model.encoder.encoders.{i}.{wrapper}", state)
    imports(tmp_path, {"state_dict": whole}, *states)


def classifier(state: State) -> State:
    """Return timm's classifier: ``stem.0``, ``stages.0``, and a head."""
    renamed = {re.sub(r"^(stem|stages)_", r"\1.", key): value for key, value in state.items()}
    head = {"head.norm.weight": torch.ones(16), "head.fc.weight": torch.zeros(10, 16)}
    return renamed | head


def of_the_authors(state: State) -> State:
    """Return the names and shapes of ConvNeXt-V2's authors."""
    names = (
        (r"^stem_(\d)", r"downsample_layers.0.\1"),
        (r"^stages_(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2"),
        (r"^stages_(\d)\.blocks\.(\d+)", r"stages.\1.\2"),
        (r"conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"),
        (r"mlp\.grn\.weight", "grn.gamma"), (r"mlp\.grn\.bias", "grn.beta"),
    )  # fmt: skip
    renamed = {}
    for name, value in state.items():
        if ".grn." in name:
            value = value.reshape(1, 1, 1, -1)
        elif re.search(r"fc\d\.weight", name):
            value = value.flatten(1)
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed | {"norm.weight": torch.ones(16), "head.weight": torch.zeros(10, 16)}


def of_transformers(state: State) -> State:
    """Return the names and shapes of the transformers library."""
    renamed = {}
    for name, value in of_the_authors(state).items():
        name = re.sub(r"^downsample_layers\.0\.0", "convnextv2.embeddings.patch_embeddings", name)
        name = re.sub(r"^downsample_layers\.0\.1", "convnextv2.embeddings.layernorm", name)
        name = re.sub(
            r"^downsample_layers\.(\d)", r"convnextv2.encoder.stages.\1.downsampling_layer", name
        )
        name = re.sub(r"^stages\.(\d)\.", r"convnextv2.encoder.stages.\1.layers.", name)
        name = re.sub(r"\.norm\.", ".layernorm.", name)
        name = name.replace("grn.gamma", "grn.weight").replace("grn.beta", "grn.bias")
        name = re.sub(r"^norm\.", "convnextv2.layernorm.", name)
        renamed[re.sub(r"^head\.", "classifier.", name)] = value
    return renamed


def test_the_authors_names_above_are_those_that_timm_reads() -> None:
    # An oracle that we did not write: timm's own reader of such files gives timm's names.
    import timm

    model = timm.create_model("convnextv2_atto", in_chans=3)
    state = encoder_state(3, backbone="convnextv2_atto")
    theirs = checkpoint_filter_fn(of_the_authors(state), model)
    assert set(theirs) == {k for k in model.state_dict() if k not in ("head.norm.bias",
                                                                     "head.fc.bias")}  # fmt: skip
    assert all(theirs[k].shape == v.shape for k, v in model.state_dict().items() if k in theirs
               and not k.startswith("head."))  # fmt: skip


@pytest.mark.parametrize("names", [classifier, of_the_authors, of_transformers])
@pytest.mark.parametrize("prefix", ["", "model.", "model.encoder.model."])
def test_a_classifiers_names_import_and_its_head_is_left_out(
    tmp_path: Path, names: Callable[[State], State], prefix: str
) -> None:
    imported = imports(tmp_path, under(prefix, names(small())), small())
    assert names is of_transformers or any("classifier is left out" in n for n in imported.notes)
    save_file(under(prefix, names(small())), tmp_path / "given.safetensors")
    assert same(take(tmp_path, tmp_path / "given.safetensors")[1][0], small())


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: {"epoch": 3, "model": state},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {0: 1}}},
        lambda state: {"ema_state_dict": state},
        lambda state: {"network": {"encoder": state}},
        lambda state: {"teacher": under("module.backbone.", state)},
        lambda state: {"state_dict": {"module": state}},
        lambda state: {"module": argparse.Namespace(x=1), "net": state},
    ],
    ids=["model", "model_state_dict", "ema", "network", "teacher", "module", "net"],
)
def test_weights_may_lie_some_levels_down(tmp_path: Path, nest: Callable[[State], Any]) -> None:
    imports(tmp_path, nest(small()), small())


# ----------------------------------------------------------------- two encoders, one is wanted


@pytest.mark.parametrize(
    ("content", "prefixes"),
    [
        (lambda a, b: {"state_dict": under("model.encoder.", a) | under("ema_model.encoder.", b)},
         ("model.encoder.", "ema_model.encoder.")),
        (lambda a, b: {"state_dict": a, "state_dict_ema": b}, ("", "state_dict_ema.")),
        (lambda a, b: {"student": under("backbone.", a), "teacher": under("backbone.", b)},
         ("student.backbone.", "teacher.backbone")),
        (lambda a, b: {**a, "teacher": b}, ("", "teacher")),
    ],
    ids=["lightning", "timm", "distillation", "top level"],
)  # fmt: skip
def test_one_of_two_encoders_is_chosen_by_its_prefix(
    tmp_path: Path, content: Callable[[State, State], Any], prefixes: tuple[str, str]
) -> None:
    states = small(0), small(1)
    torch.save(content(*states), tmp_path / "both.ckpt")
    message = refusal(tmp_path, [tmp_path / "both.ckpt"], S2)
    assert "--prefix" in message
    assert all(prefix in message for prefix in prefixes)
    for prefix, state in zip(prefixes, states, strict=True):
        options = ImportOptions(input=S2_INPUT, prefix=prefix)
        assert same(take(tmp_path, tmp_path / "both.ckpt", options)[1][0], state)


def test_a_prefix_that_is_not_there_is_refused(tmp_path: Path) -> None:
    torch.save(under("a.", small(0)) | under("b.", small(1)), tmp_path / "both.pth")
    options = ImportOptions(input=S2_INPUT, prefix="ema.")
    assert "under a., b." in refusal(tmp_path, [tmp_path / "both.pth"], options)


def test_a_prefix_where_there_is_no_choice_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "one.pth")
    options = ImportOptions(input=S2_INPUT, prefix="ema.")
    message = refusal(tmp_path, [tmp_path / "one.pth"], options)
    assert "--prefix 'ema.'" in message
    assert "leave --prefix out" in message


@pytest.mark.parametrize("copied", [False, True], ids=["one tensor", "equal tensors"])
def test_an_encoder_under_two_names_imports_once(tmp_path: Path, copied: bool) -> None:
    state = small()
    again = {key: value.clone() if copied else value for key, value in state.items()}
    imports(tmp_path, {"state_dict": under("model.e.", state) | under("e.", again)}, state)


def test_one_name_with_two_values_is_refused(tmp_path: Path) -> None:
    state = small() | under("_orig_mod.", small(1))
    torch.save(state, tmp_path / "e.pth")
    assert "the same tensor's names" in refusal(tmp_path, [tmp_path / "e.pth"])


def test_many_encoders_are_told_in_a_short_message(tmp_path: Path) -> None:
    stems = {f"m{i}.stem_0.weight": torch.zeros(1) for i in range(2000)}
    torch.save(stems, tmp_path / "many.pth")
    message = refusal(tmp_path, [tmp_path / "many.pth"])
    assert "and 1992 more" in message
    assert len(message) < 600


# -------------------------------------------------------------------------- files of other kinds


def test_a_folder_of_a_hub_imports_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "clouds").mkdir()
    save_file(classifier(small()), tmp_path / "clouds" / "model.safetensors", {"format": "pt"})
    (tmp_path / "clouds" / "config.json").write_text("{}")
    imported, states = take(tmp_path, tmp_path / "clouds")
    assert imported.spec.specialists[0].name == "clouds"
    assert same(states[0], small())


def test_a_folder_without_one_weight_file_is_told_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    assert "a folder with no weight files" in refusal(tmp_path, [tmp_path / "f"])
    for name in ("a.pth", "b.pth"):
        torch.save(small(), tmp_path / "f" / name)
    assert "a.pth, b.pth" in refusal(tmp_path, [tmp_path / "f"])


@pytest.mark.parametrize("name", ["e.bin", "e.safetensors", "e.ckpt", "e"])
def test_a_kind_is_known_by_its_bytes_and_not_by_its_name(tmp_path: Path, name: str) -> None:
    imports(tmp_path, small(), small(), name=name)
    save_file(small(), tmp_path / name)
    assert same(take(tmp_path, tmp_path / name)[1][0], small())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n" + b"0" * 99, "an HDF5 file"),
        (b"\x1f\x8b" + b"0" * 99, "compressed by gzip"),
        (b"", "it is empty"),
    ],
)
@pytest.mark.parametrize("name", ["e.pth", "e.safetensors"])
def test_files_that_hold_no_weights_are_told_apart(
    tmp_path: Path, content: bytes, words: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, [tmp_path / name])
    assert name in message
    assert words in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_told_as_such(tmp_path: Path) -> None:
    scripted = torch.jit.trace(nn.Conv2d(3, 8, 4, 4), torch.zeros(1, 3, 64, 64))
    scripted.save(str(tmp_path / "given.pt"))
    message = refusal(tmp_path, [tmp_path / "given.pt"])
    assert "TorchScript" in message
    assert "state_dict" in message
    assert "damaged" not in message


def test_a_whole_module_is_told_to_be_saved_as_a_state_dict(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(3, 8, 4), tmp_path / "module.pth")
    message = refusal(tmp_path, [tmp_path / "module.pth"])
    assert "torch.nn.modules.conv.Conv2d object" in message
    assert "state_dict()" in message


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight"], "a ResNet's"),
        (["cls_token", "blocks.0.attn.qkv.weight"], "a vision transformer's"),
        (["layers.0.blocks.0.attn.relative_position_bias_table"], "a Swin transformer's"),
        (["conv_stem.weight", "blocks.0.0.conv_pw.weight"], "an EfficientNet's"),
    ],
)
def test_what_is_no_convnextv2_is_told_what_it_looks_like(
    tmp_path: Path, names: list[str], kind: str
) -> None:
    torch.save({f"model.{name}": torch.zeros(2) for name in names}, tmp_path / "other.pth")
    assert f"it looks like {kind}" in refusal(tmp_path, [tmp_path / "other.pth"])


def test_the_first_convnext_is_told_from_the_second(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("convnext_atto", features_only=True)
    torch.save(model.state_dict(), tmp_path / "one.pth")
    assert "ConvNeXt of the first version" in refusal(tmp_path, [tmp_path / "one.pth"])


# ---------------------------------------------------------------------------------------- bands


def test_six_bands_without_names_are_told_how_to_be_named(tmp_path: Path) -> None:
    torch.save(small(bands=6), tmp_path / "clouds.pth")
    message = refusal(tmp_path, [tmp_path / "clouds.pth"])
    assert "--specialist-bands clouds=" in message
    six = tuple(Band(name=name) for name in ("B02", "B03", "B04", "B08", "B11", "B12"))
    options = ImportOptions(input=S2_INPUT, specialist_bands={"clouds": six})
    assert take(tmp_path, tmp_path / "clouds.pth", options)[0].spec.feature_sets() == (
        ((1, 2, 3, 7, 11, 12),),
    )
