"""Costs from shapes alone are what PyTorch counts when the networks are run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.specimens import SPECK, ensemble_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.cost import ensemble_cost, runs_of
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import build_encoder, full_shape, shape_of
from eosfm_edge.ensemble.view import EncoderView
from eosfm_edge.formats.ensemble import LEVELS, SelectionSpec, Shape
from eosfm_edge.network.steps import hidden_width

BACKBONE = f"convnextv2_{SPECK}"
SIDE = 64

aten = torch.ops.aten


@torch.no_grad()
def counted_macs(module: nn.Module, bands: int) -> float:
    """MACs for one pixel of the input: the counter's flops are two for each."""
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, bands, SIDE, SIDE))
    counts = counter.get_flop_counts()["Global"]
    return sum(counts.get(op, 0) for op in (aten.convolution, aten.addmm)) / 2 / SIDE**2


def size(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def eights(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most // 8).map(lambda n: 8 * n)


pruned_shapes = st.builds(
    Shape,
    widths=st.tuples(eights(8), eights(16), eights(24), eights(16)),
    hidden=st.tuples(
        st.tuples(eights(32)), st.tuples(eights(64)), st.tuples(eights(96), eights(96)),
        st.tuples(eights(64)),
    ),
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(pruned_shapes, st.integers(1, 5))
def test_an_encoder_costs_what_is_counted_when_it_runs(shape: Shape, bands: int) -> None:
    encoder = build_encoder(BACKBONE, bands, shape)
    cost = EncoderView(bands, shape).cost
    assert cost.macs == counted_macs(encoder, bands)
    assert cost.params == size(encoder)
    assert cost.bytes == 4 * cost.params


def test_a_linear_mlp_costs_the_same_as_a_convolutional_one() -> None:
    encoder = build_encoder("convnextv2_nano", 3)
    cost = EncoderView(3, full_shape("convnextv2_nano")).cost
    assert cost.macs == counted_macs(encoder, 3)
    assert cost.params == size(encoder)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_hidden_channel_costs_its_price(stage: int) -> None:
    full = full_shape(BACKBONE)
    hidden = [list(channels) for channels in full.hidden]
    hidden[stage][0] -= 8
    less = EncoderView(3, Shape(widths=full.widths, hidden=hidden)).cost
    whole = EncoderView(3, full)
    more, price = whole.cost, whole.hidden_price(stage)
    assert more.macs - less.macs == pytest.approx(8 * price.macs)
    assert more.params - less.params == 8 * price.params


def used_parts(ensemble: Any, chain: Any) -> list[nn.Module]:
    """Return the parts of an exported ensemble."""
    owners = sorted({owner for owner, _ in chain.runs})
    projections = ensemble.feature_projections
    return [
        *(ensemble.encoders[owner] for owner in owners),
        *(projections[owner][level] for owner in owners if projections for level in LEVELS),
        *chain.fusions,
    ]


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["none", "conv1x1", "mlp", "addition"]),
    st.booleans(),
    st.sampled_from([None, 1, 2]),
    st.permutations([1.0, 2.0]),
)
@pytest.mark.filterwarnings("ignore:specialist:UserWarning")
def test_an_ensemble_costs_what_its_exported_chain_does(
    fusion: str, projection: bool, k: int | None, weights: list[float]
) -> None:
    # Thirteen bands out of three are taken in turn; for five there is no rule.
    ensemble: Any = ensemble_of(
        (3, 13, 5), fusion=fusion, projection=projection, normalisation="layer",
        selection=SelectionSpec(k=k),
    )  # fmt: skip
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor([*weights, 0.5]))
    chain = Chain(ensemble)
    cost = ensemble_cost(ensemble)
    assert cost.macs == pytest.approx(counted_macs(chain, 3), rel=1e-12)
    assert cost.params == size(*used_parts(ensemble, chain))
    assert len(chain.runs) == sum(runs_of(ensemble))


def test_runs_are_paid_one_by_one_and_parameters_once() -> None:
    """A specialist of three bands has two runs on thirteen."""
    one = ensemble_of((3,), fusion="none")
    spec = one.spec.model_copy(update={"input": one.spec.input[:1] * 13})
    twice = Ensemble(spec)
    assert runs_of(twice) == [2]
    assert ensemble_cost(twice).macs == 2 * ensemble_cost(one).macs
    assert ensemble_cost(twice).params == ensemble_cost(one).params


def test_the_cost_of_other_shapes_is_that_of_the_ensemble_that_has_them() -> None:
    full = ensemble_of()
    shape = full_shape(BACKBONE)
    fewer = Shape(widths=shape.widths, hidden=((8,), (16,), (24, 96), (64,)))
    specialists = full.spec.specialists
    spec = full.spec.model_copy(
        update={"specialists": (specialists[0].model_copy(update={"shape": fewer}), specialists[1])}
    )
    pruned = Ensemble(spec, fused=(6, 8, 10, 8))
    assert [hidden_width(pruned.encoders[0].stages_0.blocks[0])] == [8]
    assert shape_of(pruned.encoders[0]) == fewer
    assert ensemble_cost(pruned) == ensemble_cost(
        full, [EncoderView(3, fewer), EncoderView(3, shape)]
    )
    assert ensemble_cost(pruned).macs < ensemble_cost(full).macs
