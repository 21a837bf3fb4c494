"""The networks that the GPU benchmark times PyTorch by are ConvNeXtV2, as timm has it."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

GPU = Path(__file__).parents[2] / "benchmarks" / "gpu"


def test_peer_network_equals_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    from torch_peers import Encoder, Network

    theirs = timm.create_model("convnextv2_atto", features_only=True, in_chans=3).eval()
    with torch.no_grad():
        for tensor in theirs.parameters():
            tensor.add_(
                0.02 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
            )
    widths = [40, 80, 160, 320]
    hidden = [4 * w for w, depth in zip(widths, [2, 2, 6, 2], strict=True) for _ in range(depth)]
    ours = Encoder(Network([[0, 1, 2]], [2, 2, 6, 2], widths, hidden)).eval()
    # Where timm has 1x1 convolutions, these are linear layers.
    theirs_by_name = {
        name: tensor.flatten(1) if ".fc" in name and tensor.ndim == 4 else tensor
        for name, tensor in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs_by_name)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for mine, level in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(mine, level, rtol=1e-4, atol=1e-4)


def test_ensemble_gives_each_run_its_bands_and_the_bundles_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    from torch_peers import Ensemble, Network

    shape = {"depths": [1, 1, 1, 1], "widths": [8, 8, 16, 16], "hidden": [16, 16, 24, 24]}
    model = Ensemble([Network([[0, 2], [1, 3]], **shape), Network([[3]], **shape)], [20, 8, 4, 48])
    levels = model(torch.randn(1, 4, 64, 64))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (20, 16, 16), (8, 8, 8), (4, 4, 4), (48, 2, 2),
    ]  # fmt: skip


def test_roofline_takes_the_longer_of_arithmetic_and_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    from roofline import Board, Work, estimate_ms, floor_ms

    board = Board(fp16=2e12, int8=4e12, bandwidth=1e9, source="none")
    assert floor_ms(board, Work(10**9, 0, 0), "fp16", 1) == pytest.approx(1.0)
    assert floor_ms(board, Work(10**9, 0, 0), "int8", 1) == pytest.approx(0.5)
    assert floor_ms(board, Work(0, 8 * 10**6, 10**6), "fp16", 4) == pytest.approx(3.0)
    half = Board(fp16=1e12, int8=2e12, bandwidth=5e8, source="none")
    assert estimate_ms(1.5, board, half, Work(10**9, 0, 0), "fp16", 1) == pytest.approx(3.0)
