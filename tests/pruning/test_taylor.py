"""Taylor scores against what the levels really do when a channel is turned down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.specimens import encoder_of, tiles_of
from torch import Tensor

from eosfm_edge.pruning import taylor
from eosfm_edge.pruning.taylor import taylor_scores

BLOCK = "stages_2.blocks.1"
PROBES = 150
STEP = 1e-2


@torch.no_grad()
def slopes(encoder: Any, batch: Tensor) -> Tensor:
    """|J h|² for every hidden channel of a block, by turning its column in fc2 down a little."""
    weight = encoder.get_submodule(f"{BLOCK}.mlp.fc2").weight
    levels = encoder(batch)
    found = []
    for channel in range(weight.shape[1]):
        column = weight[:, channel].clone()
        change = []
        for sign in (1, -1):
            weight[:, channel] = column * (1 + sign * STEP)
            change.append(encoder(batch))
        weight[:, channel] = column
        found.append(
            sum(
                float(((up - down) / (2 * STEP)).square().sum() / level.square().sum())
                for up, down, level in zip(*change, levels, strict=True)
            )
        )
    return torch.tensor(found)


def test_scores_are_the_slopes_of_the_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taylor, "_PROBES", PROBES)
    encoder, batch = encoder_of(0), torch.stack(tiles_of(1, size=32))
    scores, _ = taylor_scores(encoder, [batch], seed=0)
    ratio = scores[BLOCK].square() / PROBES / slopes(encoder, batch)
    # A mean of squares over so many signs is off by a tenth or so.
    assert float(ratio.min()) > 0.5 and float(ratio.max()) < 2
    assert float(ratio.mean()) == pytest.approx(1, abs=0.15)


def test_a_channel_that_nobody_reads_scores_nothing() -> None:
    encoder = encoder_of(0)
    encoder.get_submodule(f"{BLOCK}.mlp.fc2").weight.data[:, [3, 60]] = 0
    scores, _ = taylor_scores(encoder, [torch.stack(tiles_of(2))], seed=0)
    assert (scores[BLOCK] == 0).nonzero().flatten().tolist() == [3, 60]


def test_every_block_and_every_channel_of_a_level_has_a_score() -> None:
    encoder = encoder_of(0)
    batches = [torch.stack(tiles_of(2, seed=i)) for i in range(2)]
    hidden, width = taylor_scores(encoder, batches, seed=0)
    assert {name: len(score) for name, score in hidden.items()} == {
        "stages_0.blocks.0": 32, "stages_1.blocks.0": 64, "stages_2.blocks.0": 96,
        "stages_2.blocks.1": 96, "stages_3.blocks.0": 64,
    }  # fmt: skip
    assert [len(score) for score in width] == [8, 16, 24, 16]
    again, _ = taylor_scores(encoder, batches, seed=0)
    other, _ = taylor_scores(encoder, batches, seed=1)
    assert torch.equal(hidden[BLOCK], again[BLOCK])
    assert not torch.equal(hidden[BLOCK], other[BLOCK])
    assert all(p.grad is None for p in encoder.parameters())


def test_a_linear_mlp_is_scored_by_its_last_dimension() -> None:
    encoder = encoder_of(0, backbone="nano")
    hidden, _ = taylor_scores(encoder, [torch.stack(tiles_of(1, size=32))], seed=0)
    assert len(hidden["stages_0.blocks.0"]) == 320
