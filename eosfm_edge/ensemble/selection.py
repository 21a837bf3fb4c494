"""Encoder selection: one factor for each specialist, applied to all its feature sets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eosfm_edge.formats.ensemble import SelectionSpec


class EncoderSelector(nn.Module):
    """Turns the trained selection weights into factors; named as in the reference's state."""

    specialists_weights: Tensor

    def __init__(self, spec: SelectionSpec, specialists: int) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("specialists_weights", torch.ones(specialists))

    def forward(self) -> Tensor:
        """Return the factors, (specialists,); 0 means not selected."""
        weights = self.specialists_weights
        if self.spec.mode == "smooth":
            return weights if self.spec.scale_features else torch.sigmoid(weights)
        chosen = torch.topk(weights, self.spec.k or len(weights)).indices
        factors = torch.zeros_like(weights)
        factors[chosen] = weights[chosen] if self.spec.scale_features else 1.0
        return factors
