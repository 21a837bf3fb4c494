"""A specialist's network as the native engine computes it: affine parts folded into what follows.

- A layer norm's weight and bias go into the convolution or linear layer behind it.
- The bias of global response normalisation goes into fc2's bias.

Matrices are (inputs, outputs): the engine multiplies rows of activations by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eosfm_edge.ensemble.specialist import view_of
from eosfm_edge.ensemble.view import EncoderView
from eosfm_edge.formats.ensemble import LEVELS

FloatArray = NDArray[np.float32]


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

    view: EncoderView
    stem_norm: tuple[FloatArray, FloatArray]
    stages: tuple[Stage, ...]


def fold(encoder: nn.Module) -> Network:
    """Fold a timm ConvNeXtV2 feature encoder, in double precision."""
    state = {key: value.detach().double() for key, value in encoder.state_dict().items()}
    view = view_of(encoder)
    entries: list[Matrix] = []
    blocks: tuple[list[Block], ...] = tuple([] for _ in LEVELS)
    for step in view.steps:
        name = step.modules[0]
        if step.kind == "stem":
            weight = state[f"{name}.weight"].permute(1, 2, 3, 0).reshape(-1, step.width)
            entries.append(_matrix(weight, state[f"{name}.bias"]))
        elif step.kind == "downsample":
            entries.append(_downsample(state, name))
        else:
            blocks[step.stage].append(_block(state, name))
    norm = (_array(state["stem_1.weight"]), _array(state["stem_1.bias"]))
    stages = tuple(Stage(e, tuple(b)) for e, b in zip(entries, blocks, strict=True))
    return Network(view, norm, stages)


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
