"""A specialist's network as the native engine computes it: affine parts folded into what follows.

- A layer norm's weight and bias go into the convolution or linear layer behind it.
- The bias of global response normalisation goes into fc2's bias.

Matrices are (inputs, outputs): the engine multiplies rows of activations by them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FloatArray = NDArray[np.float32]

STAGES = 4


@dataclass(frozen=True)
class Matrix:
    """Weights (inputs, outputs) and bias (outputs), float32."""

    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class Block:
    """One ConvNeXtV2 block.

    Attributes:
        depthwise: (49, width), the 7x7 kernel row by row.
        depthwise_bias: (width,).
        fc1: (width, hidden).
        grn: (hidden,), the weight of global response normalisation.
        fc2: (hidden, width).
    """

    depthwise: FloatArray
    depthwise_bias: FloatArray
    fc1: Matrix
    grn: FloatArray
    fc2: Matrix


@dataclass(frozen=True)
class Stage:
    """The stem or downsampling convolution that begins a stage, and its blocks."""

    entry: Matrix
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Network:
    """A folded specialist; ``stem_norm`` is weight and bias of the layer norm after the stem."""

    bands: int
    stem_norm: tuple[FloatArray, FloatArray]
    stages: tuple[Stage, ...]

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return [stage.entry.weight.shape[1] for stage in self.stages]

    @property
    def hidden(self) -> list[int]:
        """Hidden channels of every block in turn."""
        return [block.fc1.weight.shape[1] for stage in self.stages for block in stage.blocks]


def fold(encoder: nn.Module) -> Network:
    """Fold a timm ConvNeXtV2 feature encoder, in double precision."""
    state = {key: value.detach().double() for key, value in encoder.state_dict().items()}
    stem = state["stem_0.weight"]
    stages = []
    for index in range(STAGES):
        prefix = f"stages_{index}"
        if index == 0:
            weight = stem.permute(1, 2, 3, 0).reshape(-1, stem.shape[0])
            entry = _matrix(weight, state["stem_0.bias"])
        else:
            entry = _downsample(state, f"{prefix}.downsample")
        blocks = tuple(_block(state, name) for name in _block_names(state, prefix))
        stages.append(Stage(entry, blocks))
    norm = (_array(state["stem_1.weight"]), _array(state["stem_1.bias"]))
    return Network(stem.shape[1], norm, tuple(stages))


def _block_names(state: dict[str, Tensor], prefix: str) -> Iterator[str]:
    index = 0
    while f"{prefix}.blocks.{index}.conv_dw.weight" in state:
        yield f"{prefix}.blocks.{index}"
        index += 1


def _downsample(state: dict[str, Tensor], name: str) -> Matrix:
    gamma, beta = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
    weight = state[f"{name}.1.weight"]
    folded = (weight * gamma[:, None, None]).permute(2, 3, 1, 0).reshape(-1, weight.shape[0])
    bias = state[f"{name}.1.bias"] + torch.einsum("ochw,c->o", weight, beta)
    return _matrix(folded, bias)


def _block(state: dict[str, Tensor], name: str) -> Block:
    depthwise = state[f"{name}.conv_dw.weight"]
    gamma, beta = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
    # Linear layers of the larger models are 1x1 convolutions in the smaller ones.
    fc1 = state[f"{name}.mlp.fc1.weight"].flatten(1)
    fc2 = state[f"{name}.mlp.fc2.weight"].flatten(1)
    grn_bias = state[f"{name}.mlp.grn.bias"].flatten()
    return Block(
        depthwise=_array(depthwise.flatten(1).T),
        depthwise_bias=_array(state[f"{name}.conv_dw.bias"]),
        fc1=_matrix((fc1 * gamma).T, state[f"{name}.mlp.fc1.bias"] + fc1 @ beta),
        grn=_array(state[f"{name}.mlp.grn.weight"].flatten()),
        fc2=_matrix(fc2.T, state[f"{name}.mlp.fc2.bias"] + fc2 @ grn_bias),
    )


def _matrix(weight: Tensor, bias: Tensor) -> Matrix:
    return Matrix(_array(weight), _array(bias))


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.numpy(), dtype=np.float32)
