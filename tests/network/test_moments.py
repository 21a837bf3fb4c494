"""Moments of activations that come in batches, against numpy."""

from __future__ import annotations

import numpy as np
import torch
from support.specimens import encoder_of, tiles_of
from torch import Tensor

from eosfm_edge.network.moments import Moments, hidden_moments, level_moments

TILES = tiles_of(32)


def test_moments_are_those_of_what_fc2_is_given() -> None:
    encoder = encoder_of(0)
    name = "stages_2.blocks.1"
    seen: list[Tensor] = []
    hook = encoder.get_submodule(f"{name}.mlp.fc2").register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    moments = hidden_moments(encoder, [torch.stack(TILES[:5]), torch.stack(TILES[5:12])])[name]
    hook.remove()
    rows = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in seen]).double().numpy()
    assert moments.count == len(rows) == 12 * 16
    np.testing.assert_allclose(moments.mean.numpy(), rows.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        moments.covariance.numpy(), np.cov(rows.T, bias=True), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(moments.energy.numpy(), (rows**2).mean(0), rtol=1e-4)


@torch.no_grad()
def test_moments_of_the_levels_are_those_of_all_cells() -> None:
    encoder = encoder_of(0)
    batch = torch.stack(TILES[:4])
    moments = level_moments(encoder, batch.split(3))
    for level, features in zip(moments, encoder(batch), strict=True):
        rows = features.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
        assert level.count == len(rows)
        np.testing.assert_allclose(
            level.covariance.numpy(), np.cov(rows.T, bias=True), rtol=1e-3, atol=1e-5
        )


def test_empty_moments_hold_nothing() -> None:
    moments = Moments.empty(3)
    assert moments.count == 0
    moments.add(torch.ones(4, 3))
    assert torch.equal(moments.mean, torch.ones(3, dtype=torch.float64))
    assert torch.equal(moments.covariance, torch.zeros(3, 3, dtype=torch.float64))
