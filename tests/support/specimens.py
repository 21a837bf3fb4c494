"""Tiny ensembles whose blocks all matter, and imagery for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import build_encoder
from eosfm_edge.ensemble.store import save_model
from eosfm_edge.formats.ensemble import InputBand, Shape
from eosfm_edge.formats.plan import GroupPlan
from eosfm_edge.network.steps import hidden_width, steps
from eosfm_edge.network.tiles import Tiles
from support.chains import spec_of
from support.scenes import scene_pixels, write_scene
from support.speck import SPECK, register

MOTE = register("mote", (1, 1, 2, 1), (16, 32, 48, 32))
SCALE = 1e-3
FUSED = (6, 8, 10, 8)
TILE = 64


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Make a network whose layers start the same whatever was drawn from torch before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


@torch.no_grad()
def enliven(module: nn.Module, seed: int) -> None:
    """Give every parameter random values of a size that lets signals through, GRN's too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.add_(0.3 * noise)


def encoder_of(
    seed: int = 0, backbone: str = SPECK, bands: int = 3, shape: Shape | None = None
) -> Any:
    encoder = seeded(seed, lambda: build_encoder(f"convnextv2_{backbone}", bands, shape)).eval()
    enliven(encoder, seed)
    return encoder


def ensemble_of(wants: Sequence[int] = (3, 3), seed: int = 0, **options: Any) -> Ensemble:
    """Return an ensemble whose normalisation has the statistics that features really have."""
    fusion = options.setdefault("fusion", "conv1x1")
    fused = {"fused": FUSED} if fusion in ("conv1x1", "mlp") else {}
    projected = {"projected": [(8, 8, 8, 8)] * len(wants)} if options.get("projection") else {}
    spec = spec_of(wants, 3, backbone=options.pop("backbone", SPECK), **options)
    specialists = tuple(
        one.model_copy(update={"weights": f"specialists/{one.weights}"}) for one in spec.specialists
    )
    bands = (InputBand(scale=SCALE),) * 3
    spec = spec.model_copy(update={"input": bands, "specialists": specialists})
    ensemble: Any = seeded(seed, lambda: Ensemble(spec, **fused, **projected))
    enliven(ensemble, seed)
    settle(ensemble)
    return ensemble


@torch.no_grad()
def settle(ensemble: Any) -> None:
    if ensemble.spec.normalisation != "batch":
        return
    images = torch.stack(tiles_of(8, seed=99))
    for owner, runs in enumerate(ensemble.sets):
        for level, features in enumerate(ensemble.encoders[owner](images) if runs else ()):
            normaliser = ensemble.feature_normalizers[owner][level]
            normaliser.running_mean.copy_(features.mean((0, 2, 3)))
            normaliser.running_var.copy_(features.var((0, 2, 3)) + 1e-3)


def tiles_of(count: int, size: int = TILE, seed: int = 0) -> list[Tensor]:
    """Return tiles (3, size, size) in physical units, side by side in one scene."""
    stored = scene_pixels(3, size, size * count, seed).astype("float32")
    return list(torch.from_numpy(stored * SCALE).split(size, dim=2))


def imagery_of(calibration: int = 24, held_out: int = 3, size: int = TILE) -> Tiles:
    tiles = tiles_of(calibration + held_out, size)
    return Tiles(tiles[:calibration], tiles[calibration:], "0" * 64, "made up")


def write_imagery(path: Path, height: int = 400, width: int = 600, seed: int = 0) -> Path:
    return write_scene(path, scene_pixels(3, height, width, seed))


def write_ensemble(folder: Path, ensemble: Ensemble) -> Path:
    save_model(folder, ensemble, ensemble.spec.name)
    return folder


def every_other(encoder: Any, *, first: int = 1) -> list[GroupPlan]:
    """Return the plan that takes every other hidden channel of every block."""
    return [
        GroupPlan(
            of=step.name,
            keeps=hidden_width(step.module) // 2,
            removes=tuple(range(first, hidden_width(step.module), 2)),
            error=0.0,
        )
        for step in steps(encoder)
        if step.is_block
    ]


def same_state(one: nn.Module, other: nn.Module) -> bool:
    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[k], others[k]) for k in mine)


@torch.no_grad()
def signal_to_noise(
    original: nn.Module, other: nn.Module, images: Sequence[Tensor], *, centred: bool = False
) -> list[float]:
    """Return decibels level by level over a batch of tiles."""
    batch = torch.stack(list(images))
    found = []
    for expected, got in zip(original(batch), other(batch), strict=True):
        mean = expected.mean((0, 2, 3), keepdim=True) if centred else 0.0
        noise = (expected - got).double().square().mean()
        found.append(float(10 * torch.log10((expected - mean).double().square().mean() / noise)))
    return found
