"""Parameters that go together with a channel, through Torch-Pruning's graph."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch_pruning as tp
from support.specimens import encoder_of, same_state

from eosfm_edge.ensemble.specialist import build_encoder, full_shape, shape_of
from eosfm_edge.pruning.groups import Dependencies

# A convolutional MLP over (N, C, H, W), and a linear one over (N, H, W, C).
BACKBONES = ["speck", "nano"]
BLOCK = "stages_2.blocks.1"


@pytest.fixture(scope="module", params=BACKBONES)
def encoder(request: pytest.FixtureRequest) -> Any:
    return encoder_of(backbone=request.param)


def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_no_parameter_is_left_for_torch_pruning_to_guess() -> None:
    encoder = encoder_of()
    with pytest.warns(UserWarning, match="Unwrapped parameters"):  # so it would be said
        tp.DependencyGraph().build_dependency(encoder, example_inputs=image())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Dependencies(encoder)


def test_the_graph_leaves_gradients_as_they_were_wanted(encoder: Any) -> None:
    frozen = copy.deepcopy(encoder).requires_grad_(False)
    Dependencies(frozen)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_a_hidden_channel_is_a_row_of_fc1_its_grn_and_a_column_of_fc2(encoder: Any) -> None:
    pruned = copy.deepcopy(encoder)
    hidden = pruned.get_submodule(f"{BLOCK}.mlp.fc1").weight.shape[0]
    gone = list(range(3, hidden, 4))
    Dependencies(pruned).remove_hidden(BLOCK, gone)
    kept = [c for c in range(hidden) if c not in gone]
    mlp = f"{BLOCK}.mlp"
    expected = encoder.state_dict()
    for name in ("fc1.weight", "fc1.bias", "grn.weight", "grn.bias"):
        expected[f"{mlp}.{name}"] = expected[f"{mlp}.{name}"][kept]
    expected[f"{mlp}.fc2.weight"] = expected[f"{mlp}.fc2.weight"][:, kept]
    found = pruned.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_channels_that_do_nothing_can_go(encoder: Any) -> None:
    """They are 0 before and after GRN; but its mean is then over fewer, which is made up for."""
    masked = copy.deepcopy(encoder).requires_grad_(False)
    mlp = masked.get_submodule(BLOCK).mlp
    hidden = mlp.fc1.weight.shape[0]
    gone = list(range(1, hidden, 2))
    for parameter in (mlp.fc1.weight, mlp.fc1.bias, mlp.grn.bias):
        parameter[gone] = 0
    pruned = copy.deepcopy(masked)
    Dependencies(pruned).remove_hidden(BLOCK, gone)
    pruned.get_submodule(BLOCK).mlp.grn.weight.data *= hidden / (hidden - len(gone))
    for expected, found in zip(masked(image()), pruned(image()), strict=True):
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_residual_channel_goes_wherever_it_is_written_or_read(encoder: Any, stage: int) -> None:
    pruned = copy.deepcopy(encoder)
    before = shape_of(encoder)
    kept = list(range(0, before.widths[stage], 2)) if stage else list(range(8, before.widths[0]))
    kept = kept or list(range(8))
    gone = [c for c in range(before.widths[stage]) if c not in kept]
    if gone:
        Dependencies(pruned).remove_width(stage, gone)
    widths = tuple(len(kept) if s == stage else w for s, w in enumerate(before.widths))
    assert tuple(x.shape[1] for x in pruned(image())) == widths
    for key, value in sliced(encoder, stage, kept).items():
        assert torch.equal(pruned.state_dict()[key], value), key


def sliced(encoder: Any, stage: int, kept: list[int]) -> dict[str, torch.Tensor]:
    """An encoder's state without some channels of a stage, worked out by name."""
    state = encoder.state_dict()
    writes = ("stem_0.", "stem_1.") if stage == 0 else (f"stages_{stage}.downsample.1.",)
    for key, value in state.items():
        inside = key.startswith(f"stages_{stage}.blocks.")
        if key.startswith(writes) or (inside and (".conv_dw." in key or ".norm." in key)):
            state[key] = value[kept]
        elif inside and ".fc1.weight" in key:
            state[key] = value[:, kept]
        elif (inside and ".fc2." in key) or key.startswith(f"stages_{stage + 1}.downsample.0."):
            state[key] = value[kept]
        elif key == f"stages_{stage + 1}.downsample.1.weight":
            state[key] = value[:, kept]
    return state


def test_what_is_left_is_what_its_shape_says(encoder: Any) -> None:
    pruned = copy.deepcopy(encoder)
    graph = Dependencies(pruned)
    graph.remove_width(1, range(8))
    graph.remove_width(3, range(0, 16, 2))
    graph.remove_hidden("stages_1.blocks.0", range(16))
    backbone = "convnextv2_nano" if shape_of(encoder).widths[0] == 80 else "convnextv2_speck"
    full = full_shape(backbone)
    shape = shape_of(pruned)
    assert shape.widths == tuple(
        w - gone for w, gone in zip(full.widths, (0, 8, 0, 8), strict=True)
    )
    assert shape.hidden[1][0] == full.hidden[1][0] - 16
    rebuilt = build_encoder(backbone, 3, shape)
    rebuilt.load_state_dict(pruned.state_dict())
    assert same_state(rebuilt, pruned)


def test_magnitudes_are_norms_of_the_rows_and_columns_of_a_channel(encoder: Any) -> None:
    mlp = encoder.get_submodule(BLOCK).mlp
    rows, columns = mlp.fc1.weight.detach().flatten(1), mlp.fc2.weight.detach().flatten(1)
    expected = (rows.square().sum(1) + columns.square().sum(0)).sqrt()
    found = Dependencies(encoder).magnitude_of_hidden(BLOCK)
    assert torch.allclose(found / found.norm(), expected / expected.norm(), rtol=1e-4)
