"""A calibration on disk: what is read is what was written, and nothing else is taken for one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.specimens import encoder_of, ensemble_of, same_state, tiles_of
from torch import Tensor

from eosfm_edge.calibration.encoder import CalibratedEncoder, Recipe, calibrate_encoder
from eosfm_edge.errors import ExitCode, UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.calibration import (
    CALIBRATION_NAME,
    PLOT_NAME,
    TENSORS_NAME,
    Calibration,
    CalibrationData,
    Grn,
    LevelFidelity,
    SpecialistScales,
)
from eosfm_edge.formats.ensemble import EnsembleSpec
from eosfm_edge.network.calibration import (
    deploy,
    read_calibration,
    require_fits,
    save_calibration,
    scales_of,
    tensors_of,
    with_encoders,
)
from eosfm_edge.network.deployed import NATIVE, TENSORRT, DeployedEncoder, Form

TILES = tiles_of(6, 32)
WEIGHTS = "5" * 64


def calibrated(grn: Grn = "exact", seed: int = 0) -> CalibratedEncoder:
    return calibrate_encoder(encoder_of(seed), TILES[:4], TILES[4:], Recipe("minmax", grn=grn))


def calibration_of(found: CalibratedEncoder, grn: Grn = "exact") -> Calibration:
    return Calibration(
        ensemble="test",
        created_with="these tests",
        grn=grn,
        min_cosine=0.995,
        max_drop=None,
        data=CalibrationData(tiles=4, held_out=2, size=32, seed=0, sha256="1" * 64, source="-"),
        specialists=(
            SpecialistScales(
                name="s0",
                weights_sha256=WEIGHTS,
                bands=(),
                layers=found.layers,
                static_grn=found.static_grn,
                native=found.native,
                tensorrt=found.tensorrt,
            ),
        ),
        fused=found.native,
        tensors_sha256="0" * 64,
    )


@pytest.fixture(scope="module")
def found() -> CalibratedEncoder:
    """A calibrated encoder."""
    return calibrated()


@pytest.fixture
def folder(found: CalibratedEncoder, tmp_path: Path) -> Path:
    """Its calibration, to be tampered with."""
    tensors = tensors_of("s0", found.encoder, weights=False)
    save_calibration(tmp_path / "c", calibration_of(found), tensors, overwrite=False)
    return tmp_path / "c"


def read_and_deploy(folder: Path, seed: int = 0) -> DeployedEncoder:
    calibration, tensors = read_calibration(folder)
    scales = calibration.specialists[0]
    return deploy(encoder_of(seed), scales, tensors, calibration.grn)


@torch.inference_mode()
def levels_of(encoder: DeployedEncoder, form: Form) -> list[Tensor]:
    encoder.form = form
    return encoder(torch.stack(TILES))


@pytest.mark.parametrize("grn", ["exact", "static"])
def test_what_was_calibrated_is_what_is_deployed(grn: Grn, tmp_path: Path) -> None:
    found = calibrated(grn, seed=3)
    assert found.changed == (grn == "static")
    written = save_calibration(
        tmp_path / "c",
        calibration_of(found, grn),
        tensors_of("s0", found.encoder, weights=found.changed),
        overwrite=False,
        plot=b"a picture",
    )
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        CALIBRATION_NAME, TENSORS_NAME, PLOT_NAME
    ]  # fmt: skip
    assert (tmp_path / "c" / PLOT_NAME).read_bytes() == b"a picture"
    calibration, tensors = read_calibration(tmp_path / "c")
    assert calibration == written
    assert calibration.tensors_sha256 == sha256_file(tmp_path / "c" / TENSORS_NAME)
    assert any(key.endswith(":weight") for key in tensors) == found.changed
    deployed = read_and_deploy(tmp_path / "c", seed=3)
    for form in (NATIVE, TENSORRT, Form(symmetric=True)):
        before, after = levels_of(found.encoder, form), levels_of(deployed, form)
        assert all(map(torch.equal, before, after))
    exact = levels_of(DeployedEncoder(encoder_of(3)), Form())
    assert not any(map(torch.equal, before, exact))


def test_figures_that_are_not_finite_come_back(found: CalibratedEncoder, tmp_path: Path) -> None:
    """Levels that overflow fp16 have no cosine. The file is JSON, which has no such numbers."""
    nan = LevelFidelity(cosine=float("nan"), sqnr_db=float("-inf"), drop=75.0)
    none = LevelFidelity(cosine=1.0, sqnr_db=None, drop=0.0)
    calibration = calibration_of(found).model_copy(update={"fused": (nan, none)})
    tensors = tensors_of("s0", found.encoder, weights=False)
    save_calibration(tmp_path / "c", calibration, tensors, overwrite=False)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    json.loads((tmp_path / "c" / CALIBRATION_NAME).read_text(), parse_constant=refuse)
    first, second = read_calibration(tmp_path / "c")[0].fused
    assert first.cosine != first.cosine and first.sqnr_db == float("-inf")
    assert second == none


# Overwriting


def test_a_calibration_is_replaced_only_when_asked(found: CalibratedEncoder, folder: Path) -> None:
    before = {path.name: sha256_file(path) for path in folder.iterdir()}
    calibration = calibration_of(found).model_copy(update={"ensemble": "other"})
    tensors = tensors_of("s0", found.encoder, weights=False)
    with pytest.raises(UserError, match="add --overwrite"):
        save_calibration(folder, calibration, tensors, overwrite=False)
    assert {path.name: sha256_file(path) for path in folder.iterdir()} == before
    save_calibration(folder, calibration, tensors, overwrite=True)
    assert read_calibration(folder)[0].ensemble == "other"
    assert [path.name for path in folder.parent.iterdir()] == ["c"]


def test_a_folder_of_something_else_is_never_replaced(
    found: CalibratedEncoder, folder: Path
) -> None:
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.tex, which eosfm-edge did not write"):
        save_calibration(folder, calibration_of(found), {}, overwrite=True)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert (folder / TENSORS_NAME).stat().st_size > 1000


# What was tampered with


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read_and_deploy(folder)
    assert error.value.exit_code == ExitCode.WRONG_USE
    return str(error.value)


def test_what_is_not_there_is_said(folder: Path) -> None:
    assert "eosfm-edge calibrate makes one" in refused(folder.parent)
    (folder / TENSORS_NAME).unlink()
    assert f"cannot read {folder / TENSORS_NAME}" in refused(folder)


def test_other_tensors_than_were_written_are_refused(folder: Path) -> None:
    path = folder / TENSORS_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert f"is not the file that {CALIBRATION_NAME} was written with" in refused(folder)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / CALIBRATION_NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_tensors(folder: Path, content: bytes) -> None:
    """Replace the tensors, with their digest."""
    (folder / TENSORS_NAME).write_bytes(content)
    digest = sha256_file(folder / TENSORS_NAME)
    rewrite(folder, lambda content: content.update(tensors_sha256=digest))


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"not tensors at all"])
def test_a_file_that_holds_no_tensors_is_refused(folder: Path, content: bytes) -> None:
    replace_tensors(folder, content)
    assert "is not a safetensors file" in refused(folder)


def layer(content: dict[str, Any], index: int) -> dict[str, Any]:
    one: dict[str, Any] = content["specialists"][0]["layers"][index]
    return one


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(format="something"), "format: Input should be 'eosfm-calibration'"),
        (lambda c: c.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda c: c.update(more=1), "more: Extra inputs are not permitted"),
        (lambda c: c.pop("grn"), "grn: Field required"),
        (lambda c: c.update(grn="frozen"), "grn: Input should be 'exact' or 'static'"),
        (lambda c: c.update(specialists=[]), "specialists: Tuple should have at least 1 item"),
        (lambda c: c["data"].update(size=100), "data.size: Input should be a multiple of 32"),
        (lambda c: layer(c, 1).update(precision="int4"), "layers.1.precision: Input should be"),
        (lambda c: layer(c, 1).update(range=[float("nan"), 1]), "range.0: Input should be"),
        (lambda c: layer(c, 1).update(range=[0, float("inf")]), "range.1: Input should be"),
        (lambda c: layer(c, 1).update(range=[2, 1]), "range: Value error"),
        (lambda c: layer(c, 0).update(output=None), "no range of the outputs of s0, stages.0"),
        (lambda c: layer(c, 1).update(output=[0, 1]), "a range of the outputs of s0, stages.0"),
        (lambda c: c["specialists"][0]["layers"].pop(), "scales of s0 are not those of its layers"),
        (lambda c: c["specialists"][0]["layers"].reverse(), "are not those of its layers"),
    ],
)  # fmt: skip
def test_json_that_was_tampered_with_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    rewrite(folder, change)
    assert sentence in refused(folder)


def test_what_is_no_json_is_refused(folder: Path) -> None:
    (folder / CALIBRATION_NAME).write_text("int8: all")
    assert f"{folder / CALIBRATION_NAME} is not valid" in refused(folder)


KEY = "s0:stages.1.downsample:"


@pytest.mark.parametrize("part", ["equaliser", "weight_scale", "bias"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: None,
        lambda x: x.clone().fill_(float("nan")),
        lambda x: torch.cat([x[:-1], torch.tensor([float("inf")])]),
        lambda x: x[1:],
        lambda x: x[:, None],
        lambda x: x[:1].reshape(()),
    ],
    ids=["missing", "nan", "infinite", "short", "column", "scalar"],
)
def test_tensors_that_cannot_be_used_are_named(
    folder: Path, part: str, spoil: Callable[[Tensor], Tensor | None]
) -> None:
    tensors = load_file(folder / TENSORS_NAME)
    spoiled = spoil(tensors.pop(KEY + part))
    save(folder, tensors if spoiled is None else {**tensors, KEY + part: spoiled})
    message = refused(folder)
    assert f"{TENSORS_NAME} has no usable {KEY + part}" in message
    # Four pixels of 8 channels to 16.
    assert f"finite numbers of shape ({32 if part == 'equaliser' else 16},)" in message


def save(folder: Path, tensors: dict[str, Tensor]) -> None:
    path = folder.parent / "spoiled"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    replace_tensors(folder, path.read_bytes())


@pytest.mark.parametrize("value", [0.0, -1e-3])
@pytest.mark.parametrize("part", ["equaliser", "weight_scale"])
def test_scales_that_are_not_above_0_are_refused(folder: Path, part: str, value: float) -> None:
    tensors = load_file(folder / TENSORS_NAME)
    tensors[KEY + part][3] = value
    save(folder, tensors)
    assert "scales of s0, stages.1.downsample are not above 0" in refused(folder)


def test_a_calibration_of_another_width_is_refused(folder: Path) -> None:
    calibration, tensors = read_calibration(folder)
    with pytest.raises(UserError, match="has no usable"):
        deploy(encoder_of(0, "mote"), calibration.specialists[0], tensors, "exact")


# Whose it is


def spec_with(*digests: str) -> EnsembleSpec:
    spec = ensemble_of((3,) * len(digests)).spec
    specialists = tuple(
        one.model_copy(update={"weights_sha256": digest})
        for one, digest in zip(spec.specialists, digests, strict=True)
    )
    return spec.model_copy(update={"specialists": specialists})


def test_only_the_ensemble_it_was_made_for_fits(folder: Path) -> None:
    calibration, _ = read_calibration(folder)
    spec = spec_with(WEIGHTS)
    require_fits(calibration, spec, folder)
    assert scales_of(calibration, spec.specialists[0]) is calibration.specialists[0]
    with pytest.raises(UserError, match=r"no scales for specialist s0: .* another one of that"):
        require_fits(calibration, spec_with("6" * 64), folder)
    with pytest.raises(UserError, match=r"no scales for specialist s1: .* none of that name"):
        require_fits(calibration, spec_with(WEIGHTS, "6" * 64), folder)


def test_specialists_that_are_not_run_need_no_scales(folder: Path) -> None:
    calibration, _ = read_calibration(folder)
    spec = spec_with(WEIGHTS, "6" * 64)
    first, second = spec.specialists
    unfit = second.model_copy(update={"bands": (*second.bands, second.bands[0], second.bands[0])})
    require_fits(calibration, spec.model_copy(update={"specialists": (first, unfit)}), folder)


def test_the_ensemble_whose_encoders_are_replaced_stays_as_it_is() -> None:
    ensemble = ensemble_of()
    reference = copy.deepcopy(ensemble)
    image = torch.stack(TILES)
    other = DeployedEncoder(encoder_of(9))
    with torch.inference_mode():
        before = ensemble(image)
        replaced = with_encoders(ensemble, {1: other})
        assert replaced.encoders[1] is other and replaced.encoders[0] is ensemble.encoders[0]
        assert same_state(ensemble, reference)
        assert all(map(torch.equal, ensemble(image), before))
        assert not any(map(torch.equal, replaced(image), before))
        same = with_encoders(ensemble, {1: DeployedEncoder(ensemble.encoders[1])})
        for one, expected in zip(same(image), before, strict=True):
            assert torch.allclose(one, expected, rtol=1e-4, atol=1e-4)
