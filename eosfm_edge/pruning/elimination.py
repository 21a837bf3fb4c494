"""In which order the channels of a group go, and what each costs.

Four criteria, none of which needs labels:

- ``magnitude``: the L2 norm of a channel's weights, over all layers that it is in (Li et al.,
  Pruning
  Filters for Efficient ConvNets, ICLR 2017), as Torch-Pruning computes it.
- ``activation``: the root mean square of a channel times the norm of the weights that read it
  (Sun et al., Wanda, ICLR 2024, summed over a structure).
- ``taylor``: the change of a self-distillation loss when the channel goes. That loss, the squared
  distance between the network's features and its own original ones, is at its minimum, so that its
  first-order term vanishes; this is the second-order one, the diagonal of the Gauss-Newton matrix
  (Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018).
- ``reconstruction``: the squared error that is left of the layer's output when the remaining
  weights
  are solved again, channel after channel: the optimal brain surgeon (Hassibi and Stork, 1993), on
  the layer's own output instead of a loss, and measured on cells that nothing was solved on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGE = 1e-5  # of the mean variance: what keeps the covariance of dependent channels invertible


@dataclass(frozen=True)
class Elimination:
    """The channels of a group in the order in which they go.

    Attributes:
        order: channel numbers, the first to go first.
        cost: what each costs at its turn, relative to the output's energy; never negative.
    """

    order: tuple[int, ...]
    cost: tuple[float, ...]

    def spent(self, removed: int) -> float:
        """Return what it costs to remove so many."""
        return sum(self.cost[:removed])

    def first(self, count: int) -> tuple[int, ...]:
        """Return the first to go, sorted."""
        return tuple(sorted(self.order[:count]))


def by_score(scores: Tensor, scale: float = 1.0) -> Elimination:
    """Return the elimination by scores (channels,), the smallest first; costs are their squares."""
    order = torch.argsort(scores, stable=True)
    costs = (scores[order].double() ** 2 * scale).tolist()
    return Elimination(tuple(order.tolist()), tuple(costs))


def by_reconstruction(
    covariance: Tensor,
    weight: Tensor,
    energy: float,
    judged: Tensor | None = None,
) -> Elimination:
    """Return the elimination by what is left of ``weight @ x`` after re-solving.

    Args:
        covariance: of x, (channels, channels), float64. The output's bias is free, so means do not
            count.
        weight: (outputs, channels).
        energy: of the output, to which costs are relative.
        judged: the second moments, about the mean that the covariance has, of other cells, which
            nothing is solved on: what is left is measured there. A fit to no more cells than
            channels leaves nothing where it was made, whatever is removed. Without them it is
            measured on the covariance itself.
    """
    judged = covariance if judged is None else judged
    channels = covariance.shape[0]
    ridge = _RIDGE * float(covariance.diagonal().mean()) or 1.0
    inverse = torch.linalg.inv(covariance + ridge * torch.eye(channels, dtype=torch.float64))
    weight = weight.double().clone()
    change = torch.zeros_like(weight)  # of the weights, those of channels that are gone included
    numbers = torch.arange(channels)
    gone = torch.zeros(channels, dtype=torch.bool)
    order: list[int] = []
    cost: list[float] = []
    left = worst = 0.0  # tr(change judged change^T), and the most that it was
    while len(order) < channels:
        error = weight.square().sum(0) / inverse.diagonal()
        error[gone] = torch.inf
        j = int(error.argmin())
        order.append(int(numbers[j]))
        # The rest takes over what it can of channel j: weight -= outer(lost, taken).
        row, pivot = inverse[j].clone(), float(inverse[j, j])
        row[gone] = 0
        lost, taken = weight[:, j].clone(), row / pivot
        shown = judged[:, numbers] @ taken
        left += float(lost @ lost) * float(taken @ shown[numbers]) - 2 * float(
            lost @ (change @ shown)
        )
        change[:, numbers] -= torch.outer(lost, taken)
        cost.append(max(left - worst, 0.0) / energy)
        worst = max(worst, left)
        weight.addr_(lost, taken, alpha=-1)
        inverse.addr_(row, row, alpha=-1 / pivot)
        gone[j] = True
        if int(gone.sum()) * 4 > len(numbers):  # smaller matrices are updated faster
            kept = ~gone
            inverse, weight = inverse[kept][:, kept], weight[:, kept]
            numbers, gone = numbers[kept], torch.zeros(int(kept.sum()), dtype=torch.bool)
    return Elimination(tuple(order), tuple(cost))
