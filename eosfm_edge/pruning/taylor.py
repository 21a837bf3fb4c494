"""The second-order Taylor term of a self-distillation loss for every channel.

The loss is half the squared distance between the levels and what they were, each level relative to
its energy. Its Gauss-Newton matrix is J^T J; of a channel h that is scaled to nothing, the diagonal
term is |J h|^2, estimated with random signs v as E[(h . grad_h (v . levels))^2] (Hutchinson, 1989).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from eosfm_edge.network.steps import as_rows, blocks, channels_last, watching_inputs

_PROBES = 4  # vectors of random signs for each batch


def taylor_scores(
    encoder: nn.Module, batches: Iterable[Tensor], seed: int
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the root of the term, for hidden channels by block and for the levels' channels.

    Args:
        encoder: timm's feature encoder.
        batches: images (N, bands, H, W) in physical units.
        seed: of the random signs.
    """
    layers = {block.name: block.module.mlp.fc2 for block in blocks(encoder)}
    random = torch.Generator().manual_seed(seed)
    hidden: dict[str, Tensor] = {}
    width: list[Tensor] = []
    seen: dict[str, Tensor] = {}
    for batch in batches:
        seen.clear()
        with torch.enable_grad(), watching_inputs(layers, seen.__setitem__):
            levels = encoder(batch.requires_grad_(False))
        for _ in range(_PROBES):
            loss = torch.zeros(())
            for level in levels:
                signs = torch.randint(0, 2, level.shape, generator=random) * 2.0 - 1.0
                loss = loss + (signs * level).sum() / level.detach().norm()
            leaves = [*seen.values(), *levels]
            grads = torch.autograd.grad(loss, leaves, retain_graph=True)
            for name, grad in zip(seen, grads, strict=False):
                last = channels_last(layers[name])
                term = _per_channel(seen[name], grad, last=last)
                hidden[name] = hidden.get(name, torch.zeros_like(term)) + term
            for i, (level, grad) in enumerate(zip(levels, grads[len(seen) :], strict=True)):
                term = _per_channel(level, grad, last=False)
                if i == len(width):
                    width.append(torch.zeros_like(term))
                width[i] += term
    return {name: term.sqrt() for name, term in hidden.items()}, [term.sqrt() for term in width]


def _per_channel(values: Tensor, grad: Tensor, *, last: bool) -> Tensor:
    """Return (sum over cells of value times gradient)^2, added up over the images, (C,)."""
    product = values.detach() * grad
    rows = as_rows(product, last=last).reshape(
        values.shape[0], -1, as_rows(product, last=last).shape[1]
    )
    return rows.sum(1).square().sum(0).double()
