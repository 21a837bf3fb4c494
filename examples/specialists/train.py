"""Train one of the example specialists: ``python examples/specialists/train.py NAME --data DIR``.

A ConvNeXtV2-Atto encoder (Woo et al., CVPR 2023, https://arxiv.org/abs/2301.00808) and a small
head learn one task from scratch on the CPU. What is written to ``NAME/``:

- ``model.safetensors``: the encoder, fp16, its input standardisation folded into the stem, so
  that it takes physical units (reflectance or dB) directly;
- ``head.safetensors``: the head, for measuring the specialist's own task later;
- ``README.md``: the model card, with test figures measured on exactly the weights written.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from cards import CARDS, write_card
from specialist import BACKBONE, Model, load, save, score
from tasks import IGNORE, TASKS, Chips, Region, Task
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

HERE = Path(__file__).parent
Batches = Callable[[np.random.Generator], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Recipe:
    """The settings of training that differ between tasks."""

    epochs: int
    batch: int = 64
    learning_rate: float = 1e-3
    drop_path: float = 0.1
    ema_decay: float = 0.999
    crop: int = 64  # of regions; chips are used whole
    crops_per_epoch: int = 2048  # of regions


RECIPES = {
    "eurosat_rgb": Recipe(epochs=36),
    "mining_rgb": Recipe(epochs=60, drop_path=0.2, ema_decay=0.998),
    "landuse_s2": Recipe(epochs=30, drop_path=0.2, ema_decay=0.995),
    "landcover_l2a": Recipe(epochs=15, ema_decay=0.99),
    "landcover_sar": Recipe(epochs=20, ema_decay=0.99),
    "clouds_6band": Recipe(epochs=20, ema_decay=0.99),
}


def chip_batches(chips: Chips, batch: int) -> Batches:
    """Shuffled, augmented batches of chips: shifts, the eight symmetries of the square."""

    def batches(rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = rng.permutation(len(chips.images))
        for start in range(0, len(order) - batch + 1, batch):
            picked = order[start : start + batch]
            x = np.stack([_symmetry(_shift(chips.images[i], rng), rng) for i in picked])
            x = x.astype(np.float32) * chips.scale + chips.offset
            yield torch.from_numpy(x.astype(np.float32)), torch.from_numpy(chips.labels[picked])

    return batches


def region_batches(regions: list[Region], recipe: Recipe) -> Batches:
    """Batches of random crops that have some labelled pixel, in the symmetries of the square."""
    area = np.array([region.labels.size for region in regions], float)
    size = recipe.crop

    def crop(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        while True:
            region = regions[rng.choice(len(regions), p=area / area.sum())]
            height, width = region.labels.shape
            top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
            rows, columns = slice(top, top + size), slice(left, left + size)
            if np.any(region.labels[rows, columns] != IGNORE):
                both = np.concatenate([region.image, region.labels[None].astype(np.float32)])
                turned = _symmetry(both[:, rows, columns], rng)
                return turned[:-1], turned[-1].astype(np.int64)

    def batches(rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(recipe.crops_per_epoch // recipe.batch):
            images, labels = zip(*(crop(rng) for _ in range(recipe.batch)), strict=True)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    return batches


def _shift(image: np.ndarray, rng: np.random.Generator, by: int = 4) -> np.ndarray:
    padded = np.pad(image, ((0, 0), (by, by), (by, by)), mode="reflect")
    top, left = rng.integers(2 * by + 1, size=2)
    return padded[:, top : top + image.shape[1], left : left + image.shape[2]]


def _symmetry(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turned = np.rot90(image, rng.integers(4), axes=(1, 2))
    return turned[:, :, ::-1] if rng.random() < 0.5 else turned


def moments(task: Task) -> tuple[Tensor, Tensor]:
    """Per-band mean and standard deviation of the training pixels, in physical units."""
    if isinstance(task.train, Chips):
        stored = task.train.images[::8].astype(np.float64)
        pixels = stored.transpose(1, 0, 2, 3).reshape(len(task.bands), -1)
        pixels = pixels * task.train.scale + task.train.offset
    else:
        pixels = np.concatenate([r.image.reshape(len(task.bands), -1) for r in task.train], axis=1)
    mean, std = pixels.mean(axis=1), pixels.std(axis=1)
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)


def train(task: Task, recipe: Recipe, seed: int) -> Model:
    """Train from scratch; returns the exponential moving average of the weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Model(task, *moments(task), recipe.drop_path)
    model.to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    batches = (
        chip_batches(task.train, recipe.batch)
        if isinstance(task.train, Chips)
        else region_batches(task.train, recipe)
    )
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
    )
    per_epoch = (
        len(task.train.images) if isinstance(task.train, Chips) else recipe.crops_per_epoch
    ) // recipe.batch
    steps = recipe.epochs * per_epoch
    warmup = steps // 20

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    started = time.monotonic()
    for epoch in range(recipe.epochs):
        model.train()
        total = 0.0
        for images, labels in batches(rng):
            # Exposure and haze differ between acquisitions: scale and shift each sample.
            gain = 1 + 0.1 * torch.randn(len(images), 1, 1, 1)
            shift = 0.1 * torch.randn(len(images), 1, 1, 1) * model.std[:, None, None]
            with torch.autocast("cpu", torch.bfloat16):
                x = images * gain + shift
                logits = model(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(
                logits.float(), labels, ignore_index=IGNORE, label_smoothing=0.05
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            total += loss.item()
        seconds = time.monotonic() - started
        print(f"epoch {epoch + 1:3d}  loss {total / per_epoch:.4f}  {seconds:.0f} s", flush=True)
        if epoch % 4 == 3:
            for name, test in task.tests.items():
                print(f"  {name}: {json.dumps(score(average.module, test))}", flush=True)
    result: Model = average.module
    return result


def write(name: str, task: Task, model: Model, recipe: Recipe, seed: int) -> None:
    """Write the weights, measure what will be read back, and write the card."""
    folder = HERE / name
    metadata = {
        "backbone": BACKBONE,
        "bands": ",".join(task.bands),
        "units": task.units,
        "classes": ",".join(task.classes),
        "licence": CARDS[name].weights_licence,
        "citation": CARDS[name].citation,
    }
    save(model, folder, metadata)
    written = load(task, folder)
    scores = {test: score(written, data) for test, data in task.tests.items()}
    command = f"python examples/specialists/train.py {name} --data DATA --seed {seed}"
    size = (
        f"{len(task.train.images)} chips"
        if isinstance(task.train, Chips)
        else f"{sum(r.labels.size for r in task.train)} pixels, crops of {recipe.crop}"
    )
    write_card(
        folder / "README.md", name, metadata, scores, command, f"{size}, {recipe.epochs} epochs"
    )
    print(json.dumps(scores, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task, recipe = TASKS[options.name](options.data), RECIPES[options.name]
    model = train(task, recipe, options.seed)
    write(options.name, task, model, recipe, options.seed)


if __name__ == "__main__":
    main()
