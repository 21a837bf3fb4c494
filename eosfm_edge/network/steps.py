"""An encoder as the sequence of steps that an image goes through, and what is inside a block.

The steps are those of :class:`~eosfm_edge.ensemble.view.EncoderView`; here they come with timm's
modules. The smaller models compute the MLP of a block as 1x1 convolutions over (N, C, H, W), the
larger ones as linear layers over (N, H, W, C); here both are seen as rows of cells by channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from eosfm_edge.ensemble.specialist import view_of


@dataclass(frozen=True)
class Step:
    """One module of an encoder.

    Attributes:
        name: its name in the encoder: ``stages_2.blocks.4``.
        module: from (N, C, H, W) to (N, C', H', W'); timm's, whose attributes no type says.
        stage: 0 ... 3.
        is_block: whether it is a ConvNeXtV2 block, which has an MLP.
        level: the level that its output is, if it ends a stage: 0 ... 3.
    """

    name: str
    module: Any
    stage: int
    is_block: bool
    level: int | None = None


def steps(encoder: nn.Module) -> list[Step]:
    """Return the steps of an encoder; each takes what the one before gives."""
    return [
        Step(
            name,
            encoder.get_submodule(name),
            step.stage,
            is_block=step.kind == "block",
            level=step.level,
        )
        for step in view_of(encoder).steps
        for name in step.modules
    ]


def blocks(encoder: nn.Module) -> list[Step]:
    """Return the blocks of an encoder, in order."""
    return [step for step in steps(encoder) if step.is_block]


def hidden_width(block: Any) -> int:
    """Return the number of hidden channels of a block."""
    return int(block.mlp.fc1.weight.shape[0])


def channels_last(linear: object) -> bool:
    """Return whether a layer of an MLP works on (N, H, W, C)."""
    return isinstance(linear, nn.Linear)


def as_rows(features: Tensor, *, last: bool) -> Tensor:
    """Return (N, C, H, W), or (N, H, W, C) if ``last``, as (cells, C)."""
    rows = features if last else features.permute(0, 2, 3, 1)
    return rows.reshape(-1, rows.shape[-1])


def weight_of(linear: Any) -> Tensor:
    """Return the weights (outputs, inputs) of a linear layer or a 1x1 convolution, as a view."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    return weight.detach().flatten(1)


@contextmanager
def watching_inputs(
    modules: dict[str, nn.Module], see: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``see(name, input)`` whenever one of the modules is called."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: see(name, inputs[0])

    handles: list[RemovableHandle] = [
        module.register_forward_pre_hook(hook(name)) for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
