"""Find which parameters go together: Torch-Pruning's dependency graph, with GRN declared to it.

Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023. Torch-Pruning does not know timm's
global response normalisation, whose weight and bias it would call "unwrapped parameters" and guess
the pruned dimension of; :class:`_GrnPruner` says what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch_pruning as tp
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

_SIDE = 64  # of the image that the graph is traced with


class _GrnPruner(tp.BasePruningFunc):  # type: ignore[misc]
    """Global response normalisation: one weight and one bias for each channel."""

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
        kept = sorted(set(range(self.get_out_channels(layer))) - set(idxs))
        layer.weight = self._prune_parameter_and_grad(layer.weight, kept, 0)
        layer.bias = self._prune_parameter_and_grad(layer.bias, kept, 0)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: Any) -> int:
        return int(layer.weight.shape[0])

    get_in_channels = get_out_channels


class Dependencies:
    """The dependency graph of an encoder, through which its channels are removed."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        bands = encoder.stem_0.weight.shape[1]
        frozen = [p for p in encoder.parameters() if not p.requires_grad]
        encoder.requires_grad_(True)  # the graph is read off autograd's
        self._graph: Any = tp.DependencyGraph().build_dependency(
            encoder,
            example_inputs=torch.zeros(1, bands, _SIDE, _SIDE),
            customized_pruners={GlobalResponseNorm: _GrnPruner()},
        )
        for parameter in frozen:
            parameter.requires_grad_(False)

    def remove_hidden(self, block: str, channels: Sequence[int]) -> None:
        """Remove hidden channels of a block: fc1's rows, GRN's values, fc2's columns."""
        self._group(self._encoder.get_submodule(f"{block}.mlp.fc1"), channels).prune()

    def remove_width(self, stage: int, channels: Sequence[int]) -> None:
        """Remove channels of a stage's residual stream, in every layer that writes or reads it."""
        self._group(self._entry(stage), channels).prune()

    def magnitude_of_hidden(self, block: str) -> Tensor:
        """Return the L2 norm of each hidden channel's weights, over its whole group."""
        return self._magnitude(self._encoder.get_submodule(f"{block}.mlp.fc1"))

    def magnitude_of_width(self, stage: int) -> Tensor:
        """Return the L2 norm of each residual channel's weights, over its whole group."""
        return self._magnitude(self._entry(stage))

    def _entry(self, stage: int) -> Any:
        """Return the layer that makes a stage's channels."""
        name = "stem_0" if stage == 0 else f"stages_{stage}.downsample.1"
        return self._encoder.get_submodule(name)

    def _group(self, layer: Any, channels: Sequence[int]) -> Any:
        remove = (
            tp.prune_linear_out_channels
            if isinstance(layer, nn.Linear)
            else (tp.prune_conv_out_channels)
        )
        return self._graph.get_pruning_group(layer, remove, idxs=list(channels))

    def _magnitude(self, layer: Any) -> Tensor:
        group = self._group(layer, range(layer.weight.shape[0]))
        importance = tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
        score: Tensor = importance(group)
        return score.detach().sqrt()
