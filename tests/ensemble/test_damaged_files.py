"""Files that are hostile, damaged or odd: never more than a message, and never code that runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.speck import SPECK
from support.weights import BACKBONE, S2_INPUT, WIDTHS, Bomb, State, encoder_state, refusal
from torch import Tensor

from eosfm_edge.ensemble.checkpoint import read_checkpoint
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import UserError

CONFIG = {"backbone": f"timm_{BACKBONE}"}
SMALL = f"convnextv2_{SPECK}"
MKDIR = f"{os.mkdir.__module__}.mkdir"
FORMATS = ("zip.pth", "legacy.pth", "plain.safetensors")
NORM = "stages_0.blocks.0.norm.weight"


def save(path: Path, state: State) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=path.stem == "zip")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A file of each format, small enough to damage anywhere, with all that a reader parses."""
    folder = tmp_path_factory.mktemp("small")
    state = {f"stem_{i}.weight": torch.full((3, 2), float(i)) for i in range(4)}
    return {name: save(folder / name, state).read_bytes() for name in FORMATS}


def test_the_bomb_is_live(tmp_path: Path) -> None:
    # Else the tests below would show nothing.
    pickle.loads(pickle.dumps(Bomb(tmp_path / "crater")))
    assert (tmp_path / "crater").exists()


@pytest.mark.parametrize(
    ("wrap", "complaint"),
    [
        (lambda bomb: bomb, f"is a {MKDIR} object, which is not made"),
        (lambda bomb: [(3, {"stem_0.weight": bomb}, CONFIG)], f"stem_0.weight is a {MKDIR}"),
        (lambda bomb: {"state_dict": {"stem_0.weight": bomb}}, f"stem_0.weight is a {MKDIR}"),
        (lambda bomb: [(bomb, {}, CONFIG)], f"in_chans is a {MKDIR}"),
        (lambda bomb: [(3, {}, {"backbone": bomb})], "config has no 'backbone'"),
        (lambda bomb: {bomb: 1}, "holds no specialist"),
    ],
    ids=["bare", "tensor", "lightning", "bands", "config", "key"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_bomb_in_the_place_of_weights_is_named_and_does_not_go_off(
    tmp_path: Path, wrap: Callable[[Bomb], object], complaint: str, zipped: bool
) -> None:
    path = tmp_path / "bomb.ckpt"
    content = wrap(Bomb(tmp_path / "crater"))
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path, [path])
    assert "bomb.ckpt" in message
    assert complaint in message
    assert not (tmp_path / "crater").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_bomb_beside_the_weights_is_passed_over(tmp_path: Path, zipped: bool) -> None:
    bomb = Bomb(tmp_path / "crater")
    content = {
        "state_dict": {f"model.{k}": v for k, v in encoder_state(3, backbone=SMALL).items()},
        "hyper_parameters": {"model_args": bomb, bomb: 1},
        "callbacks": [{"deep": (bomb,)}],
    }
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=zipped)
    import_ensemble([tmp_path / "a.ckpt"], tmp_path / "out", ImportOptions(input=S2_INPUT))
    assert not (tmp_path / "crater").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["bomb.pth", "bomb.safetensors"])
def test_a_plain_pickle_is_not_run_either(tmp_path: Path, name: str, protocol: int) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "crater"), protocol))
    assert name in refusal(tmp_path, [tmp_path / name])
    assert not (tmp_path / "crater").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_may_end_anywhere(small: dict[str, bytes], name: str, tmp_path: Path) -> None:
    whole, path = small[name], tmp_path / name
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=name):
            read_checkpoint(path)


def test_a_name_that_is_cut_short_is_not_taken_for_code(
    small: dict[str, bytes], tmp_path: Path
) -> None:
    whole = small["legacy.pth"]
    for length in range(whole.index(b"ctorch._utils\n"), whole.index(b"OrderedDict") + 12):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.pth is not a whole PyTorch file"):
            read_checkpoint(tmp_path / "cut.pth")


@pytest.mark.parametrize("code", [b"cos\nsystem\n.", b"\x80\x02cos\nsystem\n)R."])
def test_a_pickle_by_hand_is_not_taken_for_torch_s(tmp_path: Path, code: bytes) -> None:
    (tmp_path / "bomb.pth").write_bytes(code)
    assert "a pickle that torch.save did not write" in refusal(tmp_path, [tmp_path / "bomb.pth"])


# A file of another pickle protocol than usual makes torch warn; here most such numbers are damage.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_bytes_may_be_wrong(
    small: dict[str, bytes],
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    damaged = bytearray(small[name])
    places = st.integers(0, len(damaged) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(damaged)
    try:
        read_checkpoint(path)  # damage to the numbers themselves cannot be seen
    except UserError as error:
        assert name in str(error)


def quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def infinite_in_single_precision(value: Tensor) -> Tensor:
    return torch.full_like(value, 1e300, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of prototypes and deprecations
@pytest.mark.parametrize(
    ("convert", "complaint"),
    [
        (lambda value: value.to(torch.float8_e4m3fn), "is torch.float8_e4m3fn"),
        (lambda value: value.to(torch.complex64), "is torch.complex64"),
        (lambda value: value > 0, "is torch.bool"),
        (quantised, "is not a plain tensor"),
        (lambda value: value.to_sparse(), "is not a plain tensor"),
        (lambda value: value.to("meta"), "is not a plain tensor"),
        (lambda value: torch.nested.nested_tensor([value]), "is not a plain tensor"),
        (infinite_in_single_precision, "has values that are not finite"),
    ],
    ids=["float8", "complex", "bool", "quantised", "sparse", "meta", "nested", "overflow"],
)
def test_tensors_of_odd_kinds_are_named(
    tmp_path: Path, convert: Callable[[Tensor], Tensor], complaint: str
) -> None:
    state = encoder_state(3)
    state[NORM] = convert(state[NORM])
    torch.save([(3, state, CONFIG)], tmp_path / "odd.pth")
    message = refusal(tmp_path, [tmp_path / "odd.pth"])
    assert "odd.pth [0]" in message
    assert f"{NORM} {complaint}" in message


def test_parameters_and_views_are_plain_tensors(tmp_path: Path) -> None:
    # Both are usual in checkpoints, and safetensors would not write views as they are.
    state: State = {key: torch.nn.Parameter(value) for key, value in encoder_state(13).items()}
    state[NORM] = torch.arange(16.0)[::2]
    state["stages_0.blocks.0.norm.bias"] = torch.zeros(()).expand(8)
    torch.save(state, tmp_path / "views.pth")
    import_ensemble([tmp_path / "views.pth"], tmp_path / "out", ImportOptions(input=S2_INPUT))
    loaded = load_ensemble(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[f"encoders.0.{key}"], value) for key, value in state.items())


@pytest.mark.parametrize("in_chans", [-1, 2**70, 3.0, "3", None])
def test_a_number_of_bands_must_be_one(tmp_path: Path, in_chans: object) -> None:
    torch.save([(in_chans, encoder_state(3), CONFIG)], tmp_path / "bands.pth")
    assert f"bands.pth [0]: in_chans is {in_chans!r}" in refusal(tmp_path, [tmp_path / "bands.pth"])


def test_a_variance_below_0_is_refused(tmp_path: Path) -> None:
    # Its square root would make every feature NaN.
    state = {f"encoders.0.{key}": value for key, value in encoder_state(13).items()}
    for level, width in enumerate(WIDTHS):
        state[f"feature_normalizers.0.{level}.running_mean"] = torch.zeros(width)
        state[f"feature_normalizers.0.{level}.running_var"] = torch.full((width,), -0.5)
    torch.save(state, tmp_path / "e.ckpt")
    message = refusal(tmp_path, [tmp_path / "e.ckpt"])
    assert "e.ckpt: feature_normalizers.0.0.running_var has values below 0" in message


@pytest.mark.parametrize(
    ("bands", "complaint"),
    [
        ("0nm,1nm,2nm", "a wavelength of 0nm"),
        ("B04,,B02", "an empty entry"),
        ("B04,B4,B02", "name a band twice"),
        ("B04,B03", "takes 3 bands"),
    ],
)
def test_bands_in_a_header_are_checked(tmp_path: Path, bands: str, complaint: str) -> None:
    save_file(encoder_state(3), tmp_path / "rgb.safetensors", {"bands": bands})
    message = refusal(tmp_path, [tmp_path / "rgb.safetensors"])
    assert "rgb.safetensors" in message
    assert complaint in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", "not JSON"),
        ("input", '[{"name": "B04", "scale": 0}]'),
        ("selection", '{"mode": "best"}'),
        ("fusion", "average"),
        ("normalisation", "instance"),
    ],
)
def test_what_a_header_says_is_checked(tmp_path: Path, field: str, value: str) -> None:
    save_file(encoder_state(13), tmp_path / "one.safetensors")
    weights = {"encoder_selector.specialists_weights": torch.ones(1)}
    save_file(weights, tmp_path / "shared.safetensors", {"normalisation": "none", field: value})
    sources = [tmp_path / "one.safetensors", tmp_path / "shared.safetensors"]
    assert f"shared.safetensors: '{field}' in its header" in refusal(tmp_path, sources)
