"""Self-distillation: a compressed encoder learns to say what its original says, without labels.

Hinton et al., Distilling the Knowledge in a Neural Network, 2015, with features instead of
classes (Romero et al., FitNets, ICLR 2015). The loss is the sum over levels of the squared
distance, relative to the level's variance. AdamW, cosine decay after a short warm-up. Every step
draws its tiles from the seed and its own number, so that a run that was interrupted goes on as if
it had not been. Where the tiles are not said better afterwards, the weights stay as they were.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from eosfm_edge.files import atomic_file

PIXELS_PER_STEP = 32 * 64 * 64
# The weights are as far from where they shall be as the error is large, so that small errors take
# small steps: the learning rate is the loss's root times this, and never more than the other.
_RATE = 2e-3
_MOST_RATE = 5e-4
_WARM_UP = 50  # steps
_SAVE_EVERY = 100  # steps


Teacher = Callable[[Tensor], Sequence[Tensor]]


def distill(
    teacher: Teacher,
    student: nn.Module,
    tiles: Sequence[Tensor],
    count: int,
    seed: int,
    *,
    parameters: Sequence[nn.Parameter] | None = None,
    checkpoint: Path | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Train a compressed encoder in place.

    Args:
        teacher: gives the levels that are wanted of a batch (N, bands, H, W).
        student: gives as many, of as many channels.
        tiles: images (bands, H, W) in physical units, all of one size.
        count: steps.
        seed: of tiles and symmetries.
        parameters: of the student, that are trained; None: all.
        checkpoint: where the state is kept meanwhile, and gone on from if it is there; removed by
            nobody.
        tick: called after each step.
    """
    size = max(1, round(PIXELS_PER_STEP / tiles[0][0].numel()))
    judge = torch.stack(list(tiles[: 2 * size]))
    before = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        loss_before = float(_loss(teacher, student, judge))
    rate = min(_MOST_RATE, _RATE * math.sqrt(loss_before))

    trained = list(student.parameters()) if parameters is None else list(parameters)
    for parameter in trained:
        parameter.requires_grad_(True)
    decayed = [p for p in trained if p.ndim > 1]
    plain = [p for p in trained if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 1e-4}, {"params": plain, "weight_decay": 0.0}]
    )
    done = _load(checkpoint, optimiser) if checkpoint else 0
    for step in range(count):
        if step >= done:
            loss = _loss(teacher, student, _draw(tiles, size, seed, step))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for group in optimiser.param_groups:
                group["lr"] = rate * _schedule(step, count)
            optimiser.step()
            if checkpoint and (step + 1) % _SAVE_EVERY == 0:
                _save(checkpoint, optimiser, step + 1)
        tick()
    student.requires_grad_(False)
    if not float(_loss(teacher, student, judge)) < loss_before:
        student.load_state_dict(before)


def _loss(teacher: Teacher, student: nn.Module, batch: Tensor) -> Tensor:
    """Return the sum over levels of the squared distance over the level's variance."""
    with torch.no_grad():
        targets = teacher(batch)
    loss = torch.zeros(())
    for mine, target in zip(student(batch), targets, strict=True):
        loss = loss + (mine - target).square().mean() / target.var(unbiased=False)
    return loss


def _schedule(step: int, count: int) -> float:
    warm_up = min(_WARM_UP, count // 10 + 1)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, count - warm_up)))


def _draw(tiles: Sequence[Tensor], size: int, seed: int, step: int) -> Tensor:
    """Return some tiles (size, bands, H, W), each in one of the symmetries of its shape."""
    random = np.random.default_rng([seed, step])
    picked = []
    for index in random.choice(len(tiles), size=size, replace=size > len(tiles)):
        tile = tiles[index]
        quarter_turns = random.integers(4)
        if tile.shape[1] != tile.shape[2]:
            quarter_turns = quarter_turns // 2 * 2
        tile = torch.rot90(tile, int(quarter_turns), dims=(1, 2))
        picked.append(tile.flip(2) if random.random() < 0.5 else tile)
    return torch.stack(picked)


def _save(path: Path, optimiser: torch.optim.Optimizer, done: int) -> None:
    tensors: dict[str, Tensor] = {}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for i, parameter in enumerate(parameters):
        state = optimiser.state[parameter]
        tensors[f"{i}.value"] = parameter.detach().clone()
        tensors[f"{i}.exp_avg"] = state["exp_avg"].clone()
        tensors[f"{i}.exp_avg_sq"] = state["exp_avg_sq"].clone()
    with atomic_file(path) as scratch:
        save_file(tensors, scratch, {"steps": str(done)})


@torch.no_grad()
def _load(path: Path, optimiser: torch.optim.Optimizer) -> int:
    """Restore what :func:`_save` wrote; returns the steps done, 0 if there is nothing usable."""
    if not path.exists():
        return 0
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    try:
        with safe_open(path, framework="pt") as file:
            done = int((file.metadata() or {})["steps"])
            for i, parameter in enumerate(parameters):
                parameter.copy_(file.get_tensor(f"{i}.value"))
                optimiser.state[parameter] = {
                    "step": torch.tensor(float(done)),
                    "exp_avg": file.get_tensor(f"{i}.exp_avg"),
                    "exp_avg_sq": file.get_tensor(f"{i}.exp_avg_sq"),
                }
    except (SafetensorError, KeyError, ValueError):
        return 0
    return done
