"""A specialist with the head of its own task: the model, its weights on disk, its score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from tasks import IGNORE, Chips, Region, Task
from torch import Tensor, nn
from torch.nn import functional as F

BACKBONE = "convnextv2_atto"


class SceneHead(nn.Module):
    """One class per chip, from the mean of the last level."""

    def __init__(self, widths: list[int], classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(widths[-1])
        self.classify = nn.Linear(widths[-1], classes)

    def forward(self, levels: list[Tensor], size: torch.Size) -> Tensor:
        logits: Tensor = self.classify(self.norm(levels[-1].mean(dim=(2, 3))))
        return logits


class PixelHead(nn.Module):
    """One class per pixel: a linear classifier on each level, upsampled and added."""

    def __init__(self, widths: list[int], classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(1, width) for width in widths])
        self.classify = nn.ModuleList([nn.Conv2d(width, classes, 1) for width in widths])

    def forward(self, levels: list[Tensor], size: torch.Size) -> Tensor:
        scores = [
            F.interpolate(classify(norm(level)), size=size, mode="bilinear")
            for norm, classify, level in zip(self.norms, self.classify, levels, strict=True)
        ]
        return torch.stack(scores).sum(dim=0)


class Model(nn.Module):
    """Standardisation, encoder and head; takes physical units (N, C, H, W)."""

    def __init__(self, task: Task, mean: Tensor, std: Tensor, drop_path: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.encoder = timm.create_model(
            BACKBONE, features_only=True, in_chans=len(task.bands), drop_path_rate=drop_path
        )
        head = SceneHead if isinstance(task.train, Chips) else PixelHead
        self.head = head(self.encoder.feature_info.channels(), len(task.classes))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean[:, None, None]) / self.std[:, None, None]
        logits: Tensor = self.head(self.encoder(x), x.shape[-2:])
        return logits

    def fold_standardisation(self) -> None:
        """Move mean and deviation into the stem: exact, since the stem has no padding."""
        stem = self.encoder.stem_0
        weight = stem.weight.data / self.std[:, None, None]
        stem.bias.data -= torch.einsum("ocij,c->o", weight, self.mean)
        stem.weight.data = weight
        self.mean.zero_()
        self.std.fill_(1.0)


def save(model: Model, folder: Path, metadata: dict[str, str]) -> None:
    """Write encoder and head as fp16, with the standardisation folded into the stem."""
    model.fold_standardisation()
    folder.mkdir(exist_ok=True)
    for part, file in ((model.encoder, "model"), (model.head, "head")):
        state = {key: value.half().contiguous() for key, value in part.state_dict().items()}
        save_file(state, folder / f"{file}.safetensors", metadata)


def load(task: Task, folder: Path) -> Model:
    """Read what :func:`save` wrote, computing in fp32; takes physical units."""
    bands = len(task.bands)
    model = Model(task, torch.zeros(bands), torch.ones(bands), drop_path=0.0)
    for part, file in ((model.encoder, "model"), (model.head, "head")):
        state = load_file(folder / f"{file}.safetensors")
        part.load_state_dict({key: value.float() for key, value in state.items()})
    return model.eval()


@torch.inference_mode()
def score(model: Model, test: Chips | list[Region]) -> dict[str, float]:
    """Accuracy, mean accuracy over classes, and the share of the commonest class (percent)."""
    model.eval()
    if isinstance(test, Chips):
        x = torch.from_numpy(test.images.astype(np.float32) * test.scale + test.offset)
        truth = torch.from_numpy(test.labels)
        guess = torch.cat([model(part.float()).argmax(1) for part in x.split(250)])
    else:
        guess = torch.cat(
            [model(torch.from_numpy(r.image)[None]).argmax(1).flatten() for r in test]
        )
        truth = torch.cat([torch.from_numpy(r.labels.astype(np.int64)).flatten() for r in test])
        guess, truth = guess[truth != IGNORE], truth[truth != IGNORE]
    counts = torch.bincount(truth)
    hits = torch.bincount(truth[guess == truth], minlength=len(counts))
    present = counts > 0
    return {
        "accuracy": round(100 * float(hits.sum() / counts.sum()), 2),
        "mean class accuracy": round(100 * float((hits[present] / counts[present]).mean()), 2),
        "commonest class": round(100 * float(counts.max() / counts.sum()), 2),
    }
