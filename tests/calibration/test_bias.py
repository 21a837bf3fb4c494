"""Bias correction: by the means that it brings back."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from support.specimens import encoder_of, tiles_of
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.calibration import encoder as encoder_module
from eosfm_edge.calibration.bias import correct_biases
from eosfm_edge.calibration.encoder import Recipe, calibrate_encoder
from eosfm_edge.calibration.mixed import Budget
from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.network.deployed import NATIVE, Dense, DeployedEncoder
from eosfm_edge.network.rounding import Quantisation

TILES = tiles_of(8)
BATCHES = [torch.stack(TILES[:5]), torch.stack(TILES[5:])]
COARSER = 16


def coarse(seed: int) -> tuple[DeployedEncoder, DeployedEncoder]:
    """Return an encoder and the same in int8 with ranges that are much too wide."""
    exact, rounded = (DeployedEncoder(encoder_of(seed)) for _ in range(2))
    for name, choice in set_scales(rounded, BATCHES, "minmax", 0).items():
        layer = rounded.layers()[name]
        assert layer.rounding is not None
        if isinstance(layer, Dense):
            inputs = Quantisation.over(COARSER * choice.clip.low, COARSER * choice.clip.high)
            layer.rounding = replace(layer.rounding, inputs=inputs)
            layer.precision = "int8"
    rounded.form = NATIVE
    return exact, rounded


def shifts(exact: DeployedEncoder, rounded: DeployedEncoder) -> list[float]:
    """Return how far the mean of each level is from the exact one's."""
    found = []
    with torch.inference_mode():
        levels = [[encoder(batch) for batch in BATCHES] for encoder in (exact, rounded)]
        for a, b in zip(zip(*levels[0], strict=True), zip(*levels[1], strict=True), strict=True):
            found.append(float((torch.cat(a) - torch.cat(b)).mean((0, 2, 3)).norm()))
    return found


@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
def test_means_that_rounding_shifts_are_brought_back(seed: int) -> None:
    exact, rounded = coarse(seed)
    before = shifts(exact, rounded)
    correct_biases(exact, rounded, BATCHES)
    after = shifts(exact, rounded)
    assert all(5 * b <= a for a, b in zip(before, after, strict=True)), (before, after)


def test_the_first_layer_of_a_block_is_corrected_by_itself() -> None:
    """The mean of what goes into GELU is right, and not only of what comes out of the block."""
    exact, rounded = coarse(0)

    def fc1_means(encoder: DeployedEncoder) -> list[Tensor]:
        means = []
        for block in encoder.blocks().values():
            seen: list[Tensor] = []
            block.fc1.watch = lambda rows, seen=seen: seen.append(rows)  # type: ignore[misc]
            with torch.inference_mode():
                for batch in BATCHES:
                    encoder(batch)
                block.fc1.watch = None
                outputs = [block.fc1(rows, encoder.form).float() for rows in seen]
            means.append(torch.cat([x.flatten(0, 2) for x in outputs]).mean(0))
        return means

    def distances(encoder: DeployedEncoder) -> list[float]:
        wanted = fc1_means(exact)
        return [float((a - b).norm()) for a, b in zip(wanted, fc1_means(encoder), strict=True)]

    before = distances(rounded)
    correct_biases(exact, rounded, BATCHES)
    after = distances(rounded)
    assert all(5 * b <= a for a, b in zip(before, after, strict=True)), (before, after)


def test_only_biases_of_matrices_are_changed() -> None:
    exact, rounded = coarse(1)
    state, original = copy.deepcopy(rounded.state_dict()), copy.deepcopy(exact.state_dict())
    precisions = {name: layer.precision for name, layer in rounded.layers().items()}
    correct_biases(exact, rounded, BATCHES)
    changed = {key for key, v in rounded.state_dict().items() if not torch.equal(v, state[key])}
    matrices = [
        key
        for key, module in rounded.named_modules()
        if isinstance(module, Dense)
    ]  # fmt: skip
    assert changed == {f"{key}.bias" for key in matrices}
    assert all(torch.equal(v, original[key]) for key, v in exact.state_dict().items())
    assert {name: layer.precision for name, layer in rounded.layers().items()} == precisions
    assert rounded.form is NATIVE


def test_what_is_not_rounded_is_not_corrected() -> None:
    exact, same = (DeployedEncoder(encoder_of(0)) for _ in range(2))
    before = copy.deepcopy(same.state_dict())
    correct_biases(exact, same, BATCHES)
    for key, value in same.state_dict().items():
        assert torch.allclose(value, before[key], rtol=0, atol=1e-5)


def test_every_cell_of_every_batch_counts_alike() -> None:
    """Batches of different numbers of tiles, or one of all: the same correction."""
    corrected = []
    for batches in (BATCHES, [torch.stack(TILES)], [tile[None] for tile in TILES]):
        exact, rounded = coarse(2)
        correct_biases(exact, rounded, batches)
        corrected.append(torch.cat([layer.bias for layer in rounded.layers().values()]))
    assert torch.allclose(corrected[0], corrected[1], atol=1e-3)
    assert torch.allclose(corrected[0], corrected[2], atol=1e-3)


def test_a_correction_that_would_miss_a_budget_kept_without_it_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Recipe("minmax", budget=Budget(0.99))
    corrected: list[bool] = []

    def spoil(exact: DeployedEncoder, encoder: DeployedEncoder, batches: object) -> None:
        corrected.append(True)
        for layer in encoder.layers().values():
            layer.bias += 10

    monkeypatch.setattr(encoder_module, "correct_biases", lambda *arguments: None)
    as_it_was = calibrate_encoder(encoder_of(0), TILES, TILES[:2], recipe)
    monkeypatch.setattr(encoder_module, "correct_biases", spoil)
    found = calibrate_encoder(encoder_of(0), TILES, TILES[:2], recipe)
    assert corrected and not recipe.budget.failing(found.native)
    assert found.native == as_it_was.native
    for mine, other in zip(
        found.encoder.layers().values(), as_it_was.encoder.layers().values(), strict=True
    ):
        assert torch.equal(mine.bias, other.bias)
