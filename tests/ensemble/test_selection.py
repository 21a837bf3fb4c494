"""Encoder selection, worked by hand."""

from __future__ import annotations

import pytest
import torch

from eosfm_edge.ensemble.selection import EncoderSelector
from eosfm_edge.formats.ensemble import SelectionSpec


@pytest.mark.parametrize(
    ("spec", "factors"),
    [
        (SelectionSpec(mode="topk", k=2), [0, 1, 0, 1]),
        (SelectionSpec(mode="topk"), [1, 1, 1, 1]),
        (SelectionSpec(mode="topk", k=2, scale_features=True), [0, 2, 0, 0.5]),
        # sigmoid(ln 3) = 3/4, and so on
        (SelectionSpec(mode="smooth"), [0.25, 0.880797, 0.5, 0.622459]),
        (SelectionSpec(mode="smooth", scale_features=True), [-1.098612, 2, 0, 0.5]),
    ],
)
def test_factors(spec: SelectionSpec, factors: list[float]) -> None:
    selector = EncoderSelector(spec, 4)
    selector.specialists_weights[:] = torch.tensor([-1.098612, 2, 0, 0.5])
    assert selector().tolist() == pytest.approx(factors, abs=1e-6)


def test_weights_have_the_name_of_the_reference() -> None:
    assert list(EncoderSelector(SelectionSpec(), 3).state_dict()) == ["specialists_weights"]
