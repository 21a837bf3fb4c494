"""Networks that tests make: the same whatever was drawn from torch's generator before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.specimens import MOTE, encoder_of, ensemble_of, same_state

from eosfm_edge.ensemble.specialist import build_encoder
from eosfm_edge.formats.ensemble import Shape

NARROW = Shape(widths=(16, 32, 48, 32), hidden=((16,), (8,), (40, 24), (8,)))


@pytest.mark.parametrize("make", [
    lambda: encoder_of(3, MOTE),
    lambda: encoder_of(3, MOTE, shape=NARROW),
    lambda: ensemble_of(),
    lambda: ensemble_of(fusion="mlp", projection=True),
], ids=["encoder", "pruned encoder", "conv1x1", "mlp and projection"])  # fmt: skip
def test_specimens_do_not_depend_on_the_tests_before(make: Any) -> None:
    torch.manual_seed(1)
    first = make()
    torch.manual_seed(2)
    assert same_state(first, make())


def test_a_pruned_encoder_starts_as_timm_starts_a_whole_one() -> None:
    whole, pruned = (build_encoder(f"convnextv2_{MOTE}", 3, shape) for shape in (None, NARROW))
    for (name, expected), found in zip(whole.named_parameters(), pruned.parameters(), strict=True):
        if expected.ndim == 1:
            assert set(found.tolist()) == set(expected.tolist()), name
        else:
            assert found.detach().std().item() == pytest.approx(
                expected.detach().std().item(), rel=0.3
            ), name
