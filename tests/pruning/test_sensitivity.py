"""The effect of a block's error on the levels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.specimens import encoder_of, same_state, tiles_of

from eosfm_edge.network.moments import Moments, hidden_moments
from eosfm_edge.network.steps import blocks, hidden_width
from eosfm_edge.pruning.elimination import Elimination, by_score
from eosfm_edge.pruning.sensitivity import level_gains

BATCHES = [torch.stack(tiles_of(8, seed=seed)) for seed in range(2)]


@pytest.fixture
def encoder() -> Any:
    return encoder_of(0)


def eliminations(encoder: Any) -> dict[str, Elimination]:
    return {
        block.name: by_score(torch.arange(1.0, hidden_width(block.module) + 1), 1e-4)
        for block in blocks(encoder)
    }


def gains_of(encoder: Any, moments: dict[str, Moments] | None = None) -> dict[str, Any]:
    moments = moments or hidden_moments(encoder, BATCHES)
    return level_gains(encoder, BATCHES, moments, eliminations(encoder))


def test_a_block_shows_at_its_own_level_and_after_but_not_before(encoder: Any) -> None:
    gains = gains_of(encoder)
    for block in blocks(encoder):
        own = gains[block.name]
        assert own[: block.stage] == (0.0,) * block.stage
        assert all(gain > 0 for gain in own[block.stage :])


def test_the_encoder_is_as_it_was(encoder: Any) -> None:
    before = copy.deepcopy(encoder)
    gains_of(encoder)
    assert same_state(encoder, before)


def test_the_encoder_is_as_it_was_when_it_is_interrupted(encoder: Any) -> None:
    before, moments = copy.deepcopy(encoder), hidden_moments(encoder, BATCHES)

    def interrupt(*_: object) -> None:
        if not same_state(encoder, before):  # in the middle of a measurement
            raise KeyboardInterrupt

    hook = encoder.stages_3.blocks[0].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        gains_of(encoder, moments)
    hook.remove()
    assert same_state(encoder, before)


@torch.no_grad()
def test_gains_are_errors_of_the_levels_for_a_unit_of_cost(encoder: Any) -> None:
    """By hand, for a block whose removed channels are not read: nothing changes, nothing shows."""
    weight = encoder.get_submodule("stages_1.blocks.0.mlp.fc2").weight
    gone = list(eliminations(encoder)["stages_1.blocks.0"].first(int(0.6 * 64)))
    weight[:, gone] = 0
    # With a ridge the solved weights are the old ones, but for about its size.
    assert max(gains_of(encoder)["stages_1.blocks.0"]) < 1e-6


def test_dearer_channels_have_smaller_gains(encoder: Any) -> None:
    """The same error for twice the cost."""
    moments = hidden_moments(encoder, BATCHES)
    cheap = eliminations(encoder)
    dear = {n: Elimination(e.order, tuple(2 * c for c in e.cost)) for n, e in cheap.items()}
    one, two = (level_gains(encoder, BATCHES, moments, e) for e in (cheap, dear))
    for name, gains in one.items():
        assert two[name] == pytest.approx([gain / 2 for gain in gains], rel=1e-4)
