"""The ONNX graphs of a bundle: one of the whole chain, one a specialist, or one of stacks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.exporting.onnx import INPUT_NAME, write_graph, write_onnx
from eosfm_edge.formats.bundle import FUSION_NAME, MODEL_NAME, SPECIALISTS_FOLDER, Layout
from eosfm_edge.formats.ensemble import LEVEL_NAMES, LEVELS


def write_graphs(
    chain: nn.Module,
    layout: Layout,
    image: Tensor,
    folder: Path,
    *,
    dynamic_batch: bool,
    integer_biases: bool,
) -> tuple[str, ...]:
    """Write a chain as ONNX; returns the graphs' paths in the folder, in the order they run.

    Args:
        chain: takes one image tensor, returns a tuple of levels; a `Chain`, if it is to be split.
        layout: ``split`` is a graph for each specialist, and one that fuses what they give: a small
            board builds and holds one at a time, and a new specialist changes one.
        image: an example (1, bands, H, W).
        folder: the bundle's.
        dynamic_batch: let the graphs take any number of images.
        integer_biases: give int8 products the biases that ONNX Runtime's CPU provider wants.
    """
    options = {"dynamic_batch": dynamic_batch, "integer_biases": integer_biases}
    if layout == "split":
        assert isinstance(chain, Chain)
        return _write_split(chain, image, folder, **options)
    write_onnx(chain, image, folder / MODEL_NAME, **options)
    return (MODEL_NAME,)


@torch.inference_mode()
def _write_split(
    chain: Chain, image: Tensor, folder: Path, *, dynamic_batch: bool, integer_biases: bool
) -> tuple[str, ...]:
    graphs: list[str] = []
    given: dict[str, Tensor] = {}
    levels: list[int] = []
    (folder / SPECIALISTS_FOLDER).mkdir(exist_ok=True)
    for owner in chain.owners:
        name = chain.ensemble.spec.specialists[owner].name
        gives: dict[str, Tensor] = {}
        for level, sets in enumerate(chain.features(image, owner)):
            gives |= {f"{name}.level{level + 1}.{run}": one for run, one in enumerate(sets)}
            levels += [level] * len(sets)
        given |= gives
        graphs.append(f"{SPECIALISTS_FOLDER}/{name}.onnx")
        write_graph(
            _Specialist(chain, owner),
            {INPUT_NAME: image},
            list(gives),
            folder / graphs[-1],
            dynamic_batch=dynamic_batch,
            integer_biases=integer_biases,
        )
    write_graph(
        _Fusion(chain, levels),
        given,
        LEVEL_NAMES,
        folder / FUSION_NAME,
        dynamic_batch=dynamic_batch,
    )
    return (*graphs, FUSION_NAME)


class _Specialist(nn.Module):
    """From stored values (N, bands, H, W) to what a specialist gives the fusion."""

    def __init__(self, chain: Chain, owner: int) -> None:
        super().__init__()
        self.chain, self.owner = chain, owner
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the sets of the finest level first, (N, C, H/s, W/s)."""
        levels = self.chain.features(image, self.owner)
        return tuple(one for sets in levels for one in sets)


class _Fusion(nn.Module):
    """From what all specialists give to the levels. ``levels`` says of which each is."""

    def __init__(self, chain: Chain, levels: list[int]) -> None:
        super().__init__()
        self.chain, self.levels = chain, levels
        self.eval()

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the four levels (N, C, H/s, W/s)."""
        pairs = list(zip(self.levels, given, strict=True))
        return self.chain.fuse([[one for at, one in pairs if at == level] for level in LEVELS])
