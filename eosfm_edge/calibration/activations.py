"""Gather the inputs of an encoder's layers over calibration tiles, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eosfm_edge.network.deployed import DeployedEncoder, Layer

ROWS = 2048  # of each layer's inputs that are kept, on which candidates are compared


@dataclass
class Inputs:
    """Inputs of one layer: a peak for each channel, and a sample of rows.

    Attributes:
        peak: (inputs,), the largest absolute value.
        energy: (inputs,), the mean square.
        rows: (up to ROWS, inputs), drawn evenly from all batches.
    """

    peak: Tensor
    energy: Tensor
    rows: Tensor


@dataclass
class _Gathering:
    batches: int
    generator: torch.Generator
    peak: Tensor | None = None
    squares: Tensor | None = None
    count: int = 0
    rows: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor) -> None:
        rows = values.reshape(-1, values.shape[-1])
        peak, squares = rows.abs().amax(0), rows.square().sum(0, dtype=torch.float64)
        self.peak = peak if self.peak is None else torch.maximum(self.peak, peak)
        self.squares = squares if self.squares is None else self.squares + squares
        self.count += len(rows)
        share = min(len(rows), -(-ROWS // self.batches))
        picked = torch.randint(len(rows), (share,), generator=self.generator)
        self.rows.append(rows[picked].clone())

    def inputs(self) -> Inputs:
        assert self.peak is not None and self.squares is not None
        return Inputs(self.peak, (self.squares / self.count).float(), torch.cat(self.rows)[:ROWS])


@torch.inference_mode()
def gather_inputs(
    encoder: DeployedEncoder, batches: Sequence[Tensor], seed: int
) -> dict[str, Inputs]:
    """Run an encoder over batches (N, bands, H, W); returns every layer's inputs by its name."""
    layers = encoder.layers()
    found = {name: _Gathering(len(batches), torch.Generator().manual_seed(seed)) for name in layers}
    with watching(layers, {name: one.add for name, one in found.items()}):
        for batch in batches:
            encoder(batch)
    return {name: one.inputs() for name, one in found.items()}


@contextmanager
def watching(
    layers: Mapping[str, Layer],
    inputs: Mapping[str, Callable[[Tensor], None]],
    outputs: Mapping[str, Callable[[Tensor], None]] | None = None,
) -> Iterator[None]:
    """Call what is given for a layer's name with its inputs, and with its outputs."""
    for name, watch in inputs.items():
        layers[name].watch = watch
    for name, watch in (outputs or {}).items():
        layers[name].watch_output = watch
    try:
        yield
    finally:
        for layer in layers.values():
            layer.watch = layer.watch_output = None
