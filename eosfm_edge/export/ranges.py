"""The ranges of activations over real tiles, from which int8 scales are made.

A plain minimum and maximum over everything seen, for the inputs of every matrix that the native
engine computes in int8: after layer norms without their affine part, and after global response
normalisation without its bias (both are folded into the weights).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from eosfm_edge.export.chain import Chain

LAYER_NORM_EPSILON = 1e-6
GRN_EPSILON = 1e-6


Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]


@dataclass
class Range:
    """The smallest and largest value seen; zero always counts, since padding is zero."""

    low: float = 0.0
    high: float = 0.0

    def include(self, values: Tensor) -> None:
        """Widen to hold these values."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def quantisation(self) -> tuple[float, float]:
        """Return scale and zero point: value = (q - zero) * scale for q in 0 ... 255."""
        scale = max((self.high - self.low) / 255, 1e-12)
        return scale, float(round(-self.low / scale))


@dataclass
class Ranges:
    """Ranges of the inputs of a specialist's matrices, by their names in its file."""

    by_matrix: dict[str, Range] = field(default_factory=dict)

    def of(self, name: str) -> Range:
        """Return a matrix's range, to be widened."""
        return self.by_matrix.setdefault(name, Range())


@torch.inference_mode()
def measure_ranges(chain: Chain, tiles: Sequence[NDArray[np.float32]]) -> dict[int, Ranges]:
    """Run tiles of stored values, each (bands, H, W); returns each specialist's ranges."""
    owners = sorted({owner for owner, _ in chain.runs})
    ranges = {owner: Ranges() for owner in owners}
    with _watched(chain, ranges):
        for tile in tiles:
            chain(torch.from_numpy(tile[np.newaxis]))
    return ranges


@contextmanager
def _watched(chain: Chain, ranges: dict[int, Ranges]) -> Iterator[None]:
    hooks = [
        hook
        for owner, mine in ranges.items()
        for hook in _watch_encoder(chain.ensemble.encoders[owner], mine)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _watch_encoder(encoder: nn.Module, ranges: Ranges) -> Iterator[RemovableHandle]:
    modules = dict(encoder.named_modules())
    for name, module in modules.items():
        stage, _, rest = name.partition(".")
        file_name = f"stages.{stage.removeprefix('stages_')}.{rest}"
        if rest == "downsample.0":
            file_name = file_name.removesuffix(".0")
            yield module.register_forward_hook(
                _watch_norm(ranges.of(file_name), channels_last=False)
            )
        elif rest.endswith(".norm"):
            last = isinstance(modules[name.removesuffix("norm") + "mlp.fc1"], nn.Linear)
            matrix = ranges.of(file_name.removesuffix("norm") + "fc1")
            yield module.register_forward_hook(_watch_norm(matrix, channels_last=last))
        elif rest.endswith(".mlp.grn"):
            matrix = ranges.of(file_name.removesuffix("mlp.grn") + "fc2")
            last = isinstance(modules[name.removesuffix("grn") + "fc1"], nn.Linear)
            yield module.register_forward_hook(_watch_grn(matrix, channels_last=last))


def _watch_norm(seen: Range, *, channels_last: bool) -> Hook:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0] if channels_last else inputs[0].permute(0, 2, 3, 1)
        seen.include(functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPSILON))

    return hook


def _watch_grn(seen: Range, *, channels_last: bool) -> Hook:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        bias = module.bias
        assert isinstance(bias, Tensor)
        seen.include(output - (bias.flatten() if channels_last else bias.flatten()[:, None, None]))

    return hook
