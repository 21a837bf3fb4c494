"""Pruning on too few cells: nothing is believed to be free, and nothing ends without a word."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from support.command import exit_code
from support.scenes import scene_pixels
from support.specimens import encoder_of, ensemble_of, tiles_of, write_ensemble

from eosfm_edge.calibration.calibrate import CalibrateOptions
from eosfm_edge.ensemble.specialist import shape_of
from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.formats.recipe import Recipe, load_recipe, shipped
from eosfm_edge.network.cells import CELLS_PER_CHANNEL, FewTilesWarning, tiles_needed, warn_if_few
from eosfm_edge.network.fidelity import Closeness, least_cosine
from eosfm_edge.network.regression import ridge_regression
from eosfm_edge.pruning.encoder import study
from eosfm_edge.pruning.promise import promised_db, require_promise

LAST = "stages_3.blocks.0"


# Enough tiles


@pytest.mark.parametrize(("size", "tiles"), [(64, 128), (96, 57), (224, 11), (1024, 1)])
def test_every_stage_gets_its_cells(size: int, tiles: int) -> None:
    """Of a mote, whose last stage has 128 hidden channels and (size / 32)^2 cells a tile."""
    ensemble = ensemble_of(backbone="mote")
    assert [max(hidden) for hidden in shape_of(ensemble.encoders[0]).hidden] == [64, 128, 192, 128]
    assert tiles_needed(ensemble, size) == tiles
    cells = [tiles * (size // stride) ** 2 for stride in (4, 8, 16, 32)]
    assert all(n >= CELLS_PER_CHANNEL * c for n, c in zip(cells, (64, 128, 192, 128), strict=True))


def test_only_too_few_are_warned_of() -> None:
    ensemble = ensemble_of(backbone="mote")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_few(ensemble, 128, 64, asked=128)
    with pytest.warns(FewTilesWarning, match=r"127 tiles .* 508 cells for its 128 .* --tiles 128"):
        warn_if_few(ensemble, 127, 64, asked=127)
    with pytest.warns(FewTilesWarning, match=r"give more --data, enough for --tiles 128"):
        warn_if_few(ensemble, 12, 64, asked=None)


def test_by_default_the_unknowns_say_how_many() -> None:
    assert [load_recipe(name).tiles for name in shipped()] == [None] * len(shipped())
    assert Recipe().tiles is CalibrateOptions().tiles is None


# Ranking and repair


def test_a_stage_with_few_cells_is_not_believed_to_be_free() -> None:
    """Eight tiles give the last stage 32 cells, and 128 channels go through all of them."""
    encoder, tiles = encoder_of(backbone="mote"), tiles_of(8)
    gone = 64
    few = study(encoder, tiles, Recipe()).hidden[LAST].spent(gone)
    many = study(encoder, tiles_of(300, seed=1), Recipe()).hidden[LAST].spent(gone)
    assert few > 0.5 * many


def test_a_repair_on_few_cells_does_no_harm() -> None:
    """Least squares through 40 rows of 60 channels; the prior is nearly right."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(5, 60, generator=generator)
    prior = truth + 0.1 * torch.randn(5, 60, generator=generator)

    def rows(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(count, 60, generator=generator)
        return x, x @ truth.T + 2 * torch.randn(count, 5, generator=generator)

    weight, bias = ridge_regression([rows(40)], prior)
    x, _ = rows(1000)
    left = (x @ (weight - truth).T + bias).square().mean()
    assert left < 2 * (x @ (prior - truth).T).square().mean()


def test_a_repair_on_many_cells_is_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 20, generator=generator)
    y = x @ torch.randn(20, 3, generator=generator) + torch.randn(4000, 3, generator=generator) + 7
    weight, bias = ridge_regression(
        [(x[:1000], y[:1000]), (x[1000:], y[1000:])], torch.zeros(3, 20)
    )
    fit, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(4000)]), y.numpy(), rcond=None)
    assert np.allclose(weight.numpy(), fit[:20].T, atol=2e-3)
    assert np.allclose(bias.numpy(), fit[20], atol=2e-3)


# The verdict


def closeness(decibels: float) -> Closeness:
    level = Closeness()
    signal = torch.ones(10, 4)
    level.add(signal, signal * (1 + 10 ** (-decibels / 20)))
    return level


def test_promises_are_those_of_the_documentation() -> None:
    found = [promised_db(share) for share in (0.1, 0.25, 0.5, 0.625, 0.75, 0.9)]
    assert found == [25, 25, 20, 16, 12, None]
    text = (Path(__file__).parents[2] / "docs" / "pruning.md").read_text()
    assert "25 dB, 20 dB and 12 dB" in " ".join(text.split())


@pytest.mark.parametrize("worst", [19.9, float("nan"), float("-inf")])
def test_a_level_below_the_promise_fails(worst: float) -> None:
    levels = [closeness(30), closeness(worst)]
    with pytest.raises(CheckFailedError, match="level2 keeps") as error:
        require_promise(levels, 20.0, "half")
    assert "--tiles" in str(error.value) and "level1" not in str(error.value)
    require_promise([closeness(30), closeness(20.1)], 20.0, "half")


@pytest.mark.parametrize("order", [(0.9, float("nan")), (float("nan"), 0.9)])
def test_a_cosine_that_is_not_a_number_is_the_least(order: tuple[float, float]) -> None:
    levels: list[Any] = [type("Level", (), {"cosine": value}) for value in order]
    assert least_cosine(levels) == -1


def test_activations_that_are_not_finite_are_not_ranked() -> None:
    encoder = encoder_of(backbone="mote")
    with torch.no_grad():
        encoder.get_submodule("stages_2.blocks.1.mlp.fc1").bias[3] = float("nan")
    with pytest.raises(UserError, match=r"block stages_2\.blocks\.1 are not finite"):
        study(encoder, tiles_of(8), Recipe())


def write_chips(folder: Path, count: int) -> Path:
    folder.mkdir()
    pixels = scene_pixels(3, 64, 64 * count)
    for index in range(count):
        with rasterio.open(
            folder / f"{index}.tif", "w", "GTiff", 64, 64, 3, dtype="uint16"
        ) as chip:
            chip.write(pixels[:, :, 64 * index : 64 * index + 64])
            chip.descriptions = ("B04", "B03", "B02")
    return folder


def test_half_of_a_model_on_a_few_chips_is_not_given_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The literal `prune E --data CHIPS --tile 64 --ratio 0.5`."""
    ensemble = write_ensemble(tmp_path / "e", ensemble_of(backbone="mote"))
    chips = write_chips(tmp_path / "chips", 10)
    arguments = ("prune", ensemble, "--data", chips, "--tile", 64, "--ratio", 0.5)
    code = exit_code(*arguments, "-o", tmp_path / "half")
    printed = capsys.readouterr()
    said = " ".join((printed.out + printed.err).split())
    assert "fewer than 4 for each: give more --data, enough for --tiles 128" in said
    assert "promised at this ratio:" in said
    assert code == ExitCode.CHECK_FAILED
    assert "does not keep the fidelity that is promised" in said
