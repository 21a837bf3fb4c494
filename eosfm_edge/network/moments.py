"""Moments of activations over calibration tiles, streamed: memory does not grow with the tiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eosfm_edge.errors import UserError
from eosfm_edge.network.steps import as_rows, blocks, channels_last, watching_inputs


@dataclass
class Moments:
    """Sums of rows (cells, C), in float64.

    Rows of one batch are multiplied in float32 and added up in float64: the relative error of a
    batch's sum is about 1e-6, below every ridge used here.
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def empty(cls, channels: int) -> Moments:
        """Return the moments of nothing."""
        zeros = torch.zeros(channels, channels, dtype=torch.float64)
        return cls(0, torch.zeros(channels, dtype=torch.float64), zeros)

    def add(self, rows: Tensor) -> None:
        """Add rows (cells, C), float32."""
        self.count += rows.shape[0]
        self.total += rows.sum(0).double()
        self.outer += (rows.T @ rows).double()

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the rows of both."""
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> Tensor:
        """The mean, (C,)."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """The covariance, (C, C)."""
        return self.outer / self.count - torch.outer(self.mean, self.mean)

    @property
    def energy(self) -> Tensor:
        """The mean square of each channel, (C,)."""
        return self.outer.diagonal() / self.count


@torch.inference_mode()
def hidden_moments(encoder: nn.Module, batches: Iterable[Tensor]) -> dict[str, Moments]:
    """Return the moments of what every block's fc2 gets, by the block's name.

    Args:
        encoder: timm's feature encoder.
        batches: images (N, bands, H, W) in physical units.

    Raises:
        UserError: a block's activations are not finite.
    """
    layers = {block.name: block.module.mlp.fc2 for block in blocks(encoder)}
    moments = {name: Moments.empty(layer.weight.shape[1]) for name, layer in layers.items()}

    def see(name: str, hidden: Tensor) -> None:
        moments[name].add(as_rows(hidden, last=channels_last(layers[name])))

    with watching_inputs(layers, see):
        for batch in batches:
            encoder(batch)
    for name, found in moments.items():
        # A NaN would cost nothing: it is greater than no other cost.
        if not bool(found.outer.isfinite().all()):
            raise UserError(
                f"the activations of block {name} are not finite on the calibration tiles",
                remedy="look for a specialist that is damaged, or for imagery of other units",
            )
    return moments


@torch.inference_mode()
def level_moments(encoder: nn.Module, batches: Iterable[Tensor]) -> list[Moments]:
    """Return the moments of the four levels."""
    moments: list[Moments] = []
    for batch in batches:
        for level, features in enumerate(encoder(batch)):
            if level == len(moments):
                moments.append(Moments.empty(features.shape[1]))
            moments[level].add(as_rows(features, last=False))
    return moments
