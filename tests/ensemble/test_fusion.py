"""Fusion of feature sets, worked by hand, and its slicing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosfm_edge.ensemble.fusion import Conv1x1, Mlp, build_fusion, slice_inputs
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import FusionMode


def cell(*channels: float) -> Tensor:
    """One cell of one image: (1, C, 1, 1)."""
    return torch.tensor(channels, dtype=torch.float32).reshape(1, -1, 1, 1)


def values(fused: Tensor) -> list[float]:
    return [round(value, 6) for value in fused.flatten().tolist()]


def test_none_concatenates_in_order() -> None:
    fusion = build_fusion("none", [2, 1], 0)
    assert values(fusion([cell(1, 2), cell(3)])) == [1, 2, 3]


def test_addition_and_multiplication_go_channel_by_channel() -> None:
    sets = [cell(1, 2), cell(3, 4), cell(5, 6)]
    assert values(build_fusion("addition", [2, 2, 2], 0)(sets)) == [9, 12]
    assert values(build_fusion("multiplication", [2, 2, 2], 0)(sets)) == [15, 48]


def test_conv1x1_mixes_all_channels_and_adds_a_bias() -> None:
    fusion = build_fusion("conv1x1", [2, 1], 2)
    state = {
        "weight": torch.tensor([[1.0, 0, 2], [0, -1, 0.5]])[..., None, None],
        "bias": torch.tensor([10.0, 20]),
    }
    fusion.load_state_dict(state)
    # 1*1 + 0*2 + 2*3 + 10 = 17; -1*2 + 0.5*3 + 20 = 19.5
    assert values(fusion([cell(1, 2), cell(3)])) == [17, 19.5]


def test_mlp_has_a_relu_between_two_convolutions() -> None:
    fusion = build_fusion("mlp", [2, 2], 1)
    assert isinstance(fusion, Mlp)
    assert fusion[0].out_channels == 5  # int(1.25 * 4)
    first = torch.zeros(5, 4)
    first[0, 0], first[1, 1], first[2, 3] = 1, -1, 2
    state = {
        "0.weight": first[..., None, None],
        "0.bias": torch.tensor([0.0, 0, -1, 0, 4]),
        "2.weight": torch.tensor([[1.0, 10, 100, 1000, -1]])[..., None, None],
        "2.bias": torch.tensor([0.5]),
    }
    fusion.load_state_dict(state)
    # hidden: 1, relu(-2) = 0, 2*4 - 1 = 7, 0, 4; out: 1 + 0 + 700 + 0 - 4 + 0.5
    assert values(fusion([cell(1, 2), cell(3, 4)])) == [697.5]


@pytest.mark.parametrize("mode", ["addition", "multiplication"])
def test_widths_must_agree_to_be_added_or_multiplied(mode: FusionMode) -> None:
    with pytest.raises(UserError, match="2, 3"):
        build_fusion(mode, [2, 3], 0)


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["none", "conv1x1", "mlp", "addition"]),
    kept=st.lists(st.booleans(), min_size=1, max_size=5).filter(any),
    width=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_slicing_gives_what_zeros_give(
    mode: FusionMode, kept: list[bool], width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    widths = [width] * len(kept)
    fusion = build_fusion(mode, widths, 3)
    sets = [torch.randn(2, width, 3, 3) for _ in kept]
    full = fusion([features * keep for features, keep in zip(sets, kept, strict=True)])
    sliced = slice_inputs(fusion, widths, kept)
    part = sliced([features for features, keep in zip(sets, kept, strict=True) if keep])
    torch.testing.assert_close(part, full)


def test_slicing_a_convolution_makes_it_smaller() -> None:
    sliced = slice_inputs(build_fusion("conv1x1", [2, 3, 4], 5), [2, 3, 4], [True, False, True])
    assert isinstance(sliced, Conv1x1)
    assert sliced.in_channels == 6


def test_a_product_with_a_set_left_out_is_refused() -> None:
    with pytest.raises(UserError, match="zero everywhere"):
        slice_inputs(build_fusion("multiplication", [2, 2], 0), [2, 2], [True, False])
