"""From an ensemble directory and imagery to a calibration, and what stands in the way."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.specimens import SCALE, encoder_of, ensemble_of, tiles_of, write_ensemble
from support.tiers import thorough

from eosfm_edge.calibration import calibrate, encoder
from eosfm_edge.calibration.calibrate import CalibrateOptions, calibrate_ensemble
from eosfm_edge.calibration.encoder import Recipe, calibrate_encoder
from eosfm_edge.calibration.judge import Judge
from eosfm_edge.calibration.mixed import Budget
from eosfm_edge.calibration.report import sensitivity_plot
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.calibration import (
    CONTENTS,
    PLOT_NAME,
    TABLE_NAME,
    TENSORS_NAME,
    Calibration,
    Grn,
)
from eosfm_edge.network import distill
from eosfm_edge.network.calibration import deploy, read_calibration, require_fits, with_encoders
from eosfm_edge.network.deployed import NATIVE, TENSORRT
from eosfm_edge.network.tiles import inputs_of
from eosfm_edge.scene.tiles import load_tiles

QUICK = Recipe("minmax")
LEVEL_NAMES = [f"level{number}" for number in (1, 2, 3, 4)]
Progress = Callable[[str, int, int], None]


def run(
    ensemble: Path,
    scene: Path,
    output: Path,
    recipe: Recipe = QUICK,
    progress: Progress = lambda what, done, total: None,
    **options: Any,
) -> Calibration:
    chosen = CalibrateOptions(recipe=recipe, **{"tiles": 8, "tile": 32, **options})
    return calibrate_ensemble(ensemble, [scene], output, chosen, progress)


def content(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir() if path.suffix != ".png"}


@pytest.fixture(scope="module")
def made(specks: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of the specks."""
    folder = tmp_path_factory.mktemp("made") / "made"
    run(specks, imagery, folder)
    return folder


@pytest.fixture(autouse=True)
def quick_plot(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no plots but that of ``made``: they take half of the time."""
    monkeypatch.setattr(calibrate, "sensitivity_plot", lambda calibration: b"a plot")


# What is written


@pytest.mark.thorough
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    specks: Path, imagery: Path, made: Path, tmp_path: Path
) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    run(specks, imagery, again)
    run(specks, imagery, other, replace(QUICK, seed=1))
    assert sorted(path.name for path in again.iterdir()) == sorted(CONTENTS)
    assert content(again) == content(made)
    assert all(content(other)[name] != digest for name, digest in content(made).items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]


@torch.inference_mode()
def test_what_is_written_is_as_faithful_as_it_says(specks: Path, imagery: Path, made: Path) -> None:
    calibration, tensors = read_calibration(made)
    ensemble: Any = load_ensemble(specks)
    require_fits(calibration, ensemble.spec, made)
    tiles = load_tiles([imagery], ensemble.spec.input, 32, 8, 0)
    images = [torch.from_numpy(tile[None]) * SCALE for tile in tiles.held_out]
    assert [one.name for one in calibration.specialists] == ["s0", "s1"]
    deployed = {}
    for owner, one in enumerate(calibration.specialists):
        normalisers = ensemble.feature_normalizers[owner]

        def normalise(levels: Any, of: Any = normalisers) -> list[Any]:
            return [layer(x) for layer, x in zip(of, levels, strict=True)]

        exact = ensemble.encoders[owner]
        encoder = deployed[owner] = deploy(exact, one, tensors, calibration.grn)
        judge = Judge([exact(image) for image in images], normalise)
        for form, levels in ((TENSORRT, one.tensorrt), (NATIVE, one.native)):
            encoder.form = form
            for mine, theirs in zip(
                judge.compare([encoder(image) for image in images]), levels, strict=True
            ):
                assert mine.cosine == pytest.approx(theirs.cosine, abs=1e-5)
                assert mine.sqnr_db == pytest.approx(theirs.sqnr_db, abs=0.1)
        assert min(level.sqnr_db or 0 for level in one.native) > 25
    judge = Judge([ensemble(image) for image in images])
    fused = judge.compare([with_encoders(ensemble, deployed)(image) for image in images])
    for mine, theirs in zip(fused, calibration.fused, strict=True):
        assert mine.sqnr_db == pytest.approx(theirs.sqnr_db, abs=0.1)


def test_the_data_is_written_down(specks: Path, imagery: Path, made: Path) -> None:
    calibration, _ = read_calibration(made)
    spec = load_ensemble(specks).spec
    tiles = load_tiles([imagery], spec.input, 32, 8, 0)
    data = calibration.data
    assert (data.tiles, data.held_out) == (len(tiles.calibration), len(tiles.held_out)) == (8, 1)
    assert (data.size, data.seed) == (32, 0)
    assert (data.sha256, data.source) == (tiles.sha256, tiles.source)
    for one in calibration.specialists:
        for index, band in enumerate(one.bands):
            seen = [tile[index] * SCALE for tile in tiles.calibration]
            assert band.low == pytest.approx(min(x.min() for x in seen), rel=1e-5)
            assert band.high == pytest.approx(max(x.max() for x in seen), rel=1e-5)
            assert 0 == band.percentiles[0] < band.percentiles[1] <= band.high
    assert calibration.ensemble == spec.name and calibration.grn == "exact"
    assert (calibration.min_cosine, calibration.max_drop) == (0.995, None)


def test_the_original_is_not_changed(specks: Path, imagery: Path, tmp_path: Path) -> None:
    before = {path: sha256_file(path) for path in specks.rglob("*") if path.is_file()}
    run(specks, imagery, tmp_path / "out")
    assert {path: sha256_file(path) for path in specks.rglob("*") if path.is_file()} == before


def test_the_plot_is_a_picture_of_every_specialist(made: Path) -> None:
    with Image.open(made / PLOT_NAME) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
        assert width > height > 500 and len(picture.convert("RGB").getcolors(1 << 24)) > 10
    calibration, _ = read_calibration(made)
    one = calibration.specialists[0]
    odd = one.layers[0].model_copy(update={"sensitivity_db": (200.0, math.nan, -math.inf, 5.0)})
    single = one.model_copy(update={"layers": (odd, *one.layers[1:])})
    smaller = sensitivity_plot(calibration.model_copy(update={"specialists": (single,)}))
    with Image.open(io.BytesIO(smaller)) as picture:
        assert picture.size == (width, height // 2)


def test_the_table_has_a_row_for_every_layer(made: Path) -> None:
    calibration, _ = read_calibration(made)
    with (made / TABLE_NAME).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = [(one.name, layer) for one in calibration.specialists for layer in one.layers]
    assert len(rows) == len(expected) == 2 * 18
    for row, (name, layer) in zip(rows, expected, strict=True):
        assert (row["specialist"], row["layer"]) == (name, layer.name)
        assert (row["precision"], row["method"]) == (layer.precision, layer.method)
        figures = [float(row[f"{level}_db"]) for level in LEVEL_NAMES]
        assert figures == pytest.approx(layer.sensitivity_db, abs=0.006)


def test_specialists_that_no_rule_can_run_are_left_out(imagery: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="s0 is skipped"):
        source = write_ensemble(tmp_path / "e", ensemble_of((5, 3)))
        calibration = run(source, imagery, tmp_path / "out")
        spec = load_ensemble(source).spec
    assert [one.name for one in calibration.specialists] == ["s1"]
    assert not [key for key in load_file(tmp_path / "out" / TENSORS_NAME) if "s0" in key]
    require_fits(calibration, spec, tmp_path / "out")


def test_a_specialist_of_several_runs_sees_the_bands_of_each_in_turn() -> None:
    ensemble: Any = SimpleNamespace(sets=[(), ((0, 1), (2, 0))])
    tiles = [torch.arange(3.0)[:, None, None] + 10 * i for i in range(3)]
    seen = [tile.flatten().tolist() for tile in inputs_of(ensemble, 1, tiles)]
    assert seen == [[0, 1], [12, 10], [20, 21]]


# Recipes


def test_distillation_gives_weights_of_its_own(
    specks: Path, imagery: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "PIXELS_PER_STEP", 2 * 32 * 32)
    plain = load_file(made / TENSORS_NAME)
    assert not [key for key in plain if key.endswith(":weight")]
    calibration = run(specks, imagery, tmp_path / "out", replace(QUICK, distill=5))
    tensors = load_file(tmp_path / "out" / TENSORS_NAME)
    assert {key for key in tensors if not key.endswith(":weight")} == set(plain)
    assert len(tensors) == len(plain) * 4 // 3
    original = deploy(load_ensemble(specks).encoders[0], calibration.specialists[0], plain, "exact")
    name = "stages.2.blocks.0.fc1"
    assert not torch.equal(original.layers()[name].weight, tensors[f"s0:{name}:weight"])
    assert min(level.cosine for level in calibration.fused) >= 0.995


def test_biases_are_corrected_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """On calibration tiles, the means of levels are those of the exact ones."""
    tiles, exact = tiles_of(10, 32), encoder_of(0)
    shifts = []
    for correct in (True, False):
        if not correct:
            monkeypatch.setattr(encoder, "correct_biases", lambda *arguments: None)
        found = calibrate_encoder(exact, tiles[:8], tiles[8:], QUICK).encoder
        images = torch.stack(tiles[:8])
        with torch.inference_mode():
            pairs = zip(exact(images), found(images), strict=True)
            shifts.append([float((a - b).mean((0, 2, 3)).norm()) for a, b in pairs])
    assert all(5 * a <= b for a, b in zip(*shifts, strict=True)), shifts


@pytest.mark.parametrize("grn", ["static", *thorough("exact")])
def test_distillation_brings_back_some_of_what_was_lost(
    grn: Grn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "PIXELS_PER_STEP", 4 * 64 * 64)
    tiles = tiles_of(28, 32)
    # int8 alone loses so little that on four other tiles, by how codes fall there, a level may gain
    # or lose a decibel. On the tiles that it learnt from it must gain.
    judged = tiles[24:] if grn == "static" else tiles[:24]
    plain, distilled = (
        calibrate_encoder(
            encoder_of(0), tiles[:24], judged, Recipe("minmax", grn, Budget(0.5), distill=steps)
        )
        for steps in (0, 60)
    )
    assert distilled.changed and plain.changed == (grn == "static")
    gains = [
        b.sqnr_db - a.sqnr_db  # type: ignore[operator]
        for a, b in zip(plain.native, distilled.native, strict=True)
    ]
    assert sum(gains) > 2, gains


def test_static_grn_says_what_it_alone_costs(specks: Path, imagery: Path, tmp_path: Path) -> None:
    recipe = replace(QUICK, grn="static", budget=Budget(0.5))
    calibration = run(specks, imagery, tmp_path / "out", recipe, tiles=16)
    assert read_calibration(tmp_path / "out")[0] == calibration and calibration.grn == "static"
    for one in calibration.specialists:
        assert one.static_grn is not None
        for alone, rounded in zip(one.static_grn, one.native, strict=True):
            assert alone.sqnr_db is not None and rounded.sqnr_db is not None
            assert 3 < alone.sqnr_db < 60
            # Int8 adds little to that.
            assert abs(alone.sqnr_db - rounded.sqnr_db) < 3


@pytest.mark.parametrize("drop", [0.0, 3.0])
def test_a_budget_of_labels_is_kept(
    drop: float, specks: Path, imagery: Path, tmp_path: Path
) -> None:
    recipe = replace(QUICK, budget=Budget(0.9, drop))
    calibration = run(specks, imagery, tmp_path / "out", recipe, tiles=24)
    assert calibration.max_drop == drop
    every = [calibration.fused, *(one.native for one in calibration.specialists)]
    assert max(level.drop for levels in every for level in levels) <= drop
    layers = [layer for one in calibration.specialists for layer in one.layers]
    assert any(layer.precision != "int8" for layer in layers if layer.output is None) == (not drop)


def test_what_overflows_fp16_is_written_as_it_is(
    imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's half is fp16: its levels may have no cosine, and libeosfm's are right."""
    ensemble: Any = ensemble_of()
    with torch.no_grad():
        mlp = ensemble.encoders[0].stages_2.blocks[0].mlp
        mlp.fc1.weight *= 1e5
        mlp.fc1.bias *= 1e5
        mlp.fc2.weight *= 1e-5
    source = write_ensemble(tmp_path / "e", ensemble)
    # So strict that what overflows is half, and written down all the same.
    recipe = replace(QUICK, budget=Budget(0.99998))
    monkeypatch.setattr(calibrate, "_require_budget", lambda *arguments: None)
    calibration = run(source, imagery, tmp_path / "out", recipe)
    hurt = calibration.specialists[0]
    assert min(level.cosine for level in hurt.native) > 0.9999
    assert math.isnan(hurt.tensorrt[2].cosine) and hurt.tensorrt[2].sqnr_db == -math.inf
    again, _ = read_calibration(tmp_path / "out")
    assert str(again) == str(calibration)  # NaN is not itself


# Budgets that cannot be kept


def test_what_cannot_be_kept_is_said_and_not_written(
    specks: Path, imagery: Path, tmp_path: Path
) -> None:
    recipe = replace(QUICK, grn="static", budget=Budget(0.99999, 0.5))
    with pytest.raises(CheckFailedError) as error:
        run(specks, imagery, tmp_path / "out", recipe)
    assert error.value.exit_code == ExitCode.CHECK_FAILED
    message = str(error.value)
    for level in LEVEL_NAMES:
        for of in ("s0", "s1", "the fused levels"):
            assert f"{level} of {of} has a cosine of 0." in message
    assert "a cosine of 0.99999 and a drop of at most 0.5 %" in message
    assert "use --grn exact" in message
    assert not (tmp_path / "out").exists()


# Work in progress


def stopping(at: str, done: int) -> Progress:
    def progress(what: str, now: int, total: int) -> None:
        assert total == 2 and what.startswith("calibrate: s")
        if (what, now) == (at, done):
            raise KeyboardInterrupt

    return progress


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The encoders that are calibrated from here on."""
    encoders: list[object] = []
    original = calibrate.calibrate_encoder

    def counted(encoder: Any, *arguments: Any, **options: Any) -> Any:
        encoders.append(encoder.stem_0.weight.detach().clone())
        return original(encoder, *arguments, **options)

    monkeypatch.setattr(calibrate, "calibrate_encoder", counted)
    return encoders


@pytest.mark.parametrize(
    ("at", "done", "left"),
    [("calibrate: s0", 1, 1), ("calibrate: s1, biases", 1, 1)],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    specks: Path,
    imagery: Path,
    made: Path,
    tmp_path: Path,
    calibrated: list[Any],
    at: str,
    done: int,
    left: int,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(specks, imagery, tmp_path / "out", progress=stopping(at, done))
    assert [path.name for path in tmp_path.iterdir()] == ["out.work"]
    calibrated.clear()
    run(specks, imagery, tmp_path / "out")
    assert len(calibrated) == left
    last: Any = load_ensemble(specks).encoders[1]
    assert torch.equal(calibrated[-1], last.stem_0.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert content(tmp_path / "out") == content(made)


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": replace(QUICK, seed=5)},
        {"recipe": replace(QUICK, budget=Budget(0.99))},
        {"tile": 64},
    ],
    ids=["seed", "budget", "tile"],
)
def test_the_work_of_another_wish_is_not_gone_on_with(
    specks: Path,
    imagery: Path,
    made: Path,
    tmp_path: Path,
    calibrated: list[Any],
    other: dict[str, Any],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(specks, imagery, tmp_path / "out", progress=stopping("calibrate: s0", 1), **other)
    calibrated.clear()
    run(specks, imagery, tmp_path / "out")
    assert len(calibrated) == 2
    assert content(tmp_path / "out") == content(made)


def test_the_work_on_another_ensemble_is_not_gone_on_with(
    specks: Path, imagery: Path, made: Path, tmp_path: Path
) -> None:
    source = write_ensemble(tmp_path / "e", ensemble_of(seed=1))
    with pytest.raises(KeyboardInterrupt):
        run(source, imagery, tmp_path / "out", progress=stopping("calibrate: s0", 1))
    run(specks, imagery, tmp_path / "out")
    assert content(tmp_path / "out") == content(made)


@pytest.mark.thorough
def test_interrupted_distillation_goes_on_to_the_same_bytes(
    specks: Path, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "PIXELS_PER_STEP", 2 * 32 * 32)
    monkeypatch.setattr(distill, "_SAVE_EVERY", 3)
    recipe = replace(QUICK, distill=7)
    run(specks, imagery, tmp_path / "whole", recipe)
    drawn: list[int] = []
    draw = distill._draw

    def until_fifth(*arguments: Any) -> Any:
        drawn.append(arguments[-1])
        if len(drawn) == 5:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(distill, "_draw", until_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(specks, imagery, tmp_path / "out", recipe)
    drawn[:] = [-1] * 5
    run(specks, imagery, tmp_path / "out", recipe)
    assert drawn[5:9] == [3, 4, 5, 6]
    assert content(tmp_path / "out") == content(tmp_path / "whole")


# Outputs that are there


def test_an_output_that_is_there_is_replaced_only_when_asked(
    specks: Path, imagery: Path, made: Path, tmp_path: Path, calibrated: list[Any]
) -> None:
    run(specks, imagery, tmp_path / "out", replace(QUICK, seed=3), tiles=2)
    before = content(tmp_path / "out")
    calibrated.clear()
    with pytest.raises(UserError, match="add --overwrite"):
        run(specks, imagery, tmp_path / "out")
    assert content(tmp_path / "out") == before and not calibrated
    run(specks, imagery, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == content(made)


def test_somebody_elses_directory_is_never_replaced(
    specks: Path, imagery: Path, tmp_path: Path, calibrated: list[Any]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis\.tex, which eosfm-edge did not write"):
        run(specks, imagery, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not calibrated


@pytest.mark.parametrize("tile", [0, 31, 100, 1056, -32])
def test_tiles_that_cannot_be(specks: Path, imagery: Path, tmp_path: Path, tile: int) -> None:
    with pytest.raises(UserError, match="a multiple of 32 from 32 to 1024"):
        run(specks, imagery, tmp_path / "out", tile=tile)
    assert list(tmp_path.iterdir()) == []
