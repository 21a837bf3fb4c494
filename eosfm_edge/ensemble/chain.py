"""The chain as it is exported: from stored values to fused levels, and nothing that is not used."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eosfm_edge.ensemble.fusion import slice_inputs
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import LEVELS


class Chain(nn.Module):
    """An ensemble without its unselected specialists, taking stored values.

    Gives what :class:`~eosfm_edge.ensemble.model.Ensemble` gives of the same image in physical
    units. Specialists whose selection is 0 are not run; the fusion is sliced to match.

    Raises:
        UserError: no specialist is selected, or the fusion is a product with a zero in it.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        spec = ensemble.spec
        self.ensemble = ensemble
        self.factors = [float(factor) for factor in ensemble.encoder_selector()]
        owners = ensemble.set_owners()
        kept = [self.factors[owner] != 0 for owner in owners]
        if not any(kept):
            raise UserError("every specialist that can be run has a selection weight of 0")
        self.runs = [
            (owner, bands)
            for owner, sets in enumerate(ensemble.sets)
            for bands in sets
            if self.factors[owner] != 0
        ]
        self.fusions = nn.ModuleList(
            [
                slice_inputs(ensemble.feature_fusion[level], ensemble.set_widths(level), kept)
                for level in LEVELS
            ]
        )
        for place, name in enumerate(("scale", "offset")):
            values = torch.tensor([[[band.seen[place]]] for band in spec.input])
            self.register_buffer(name, values)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return four levels (N, C, H/s, W/s) of stored values (N, bands, H, W), fp32."""
        per_level: list[list[Tensor]] = [[] for _ in LEVELS]
        for owner in self.owners:
            for level, sets in enumerate(self.features(image, owner)):
                per_level[level] += sets
        return self.fuse(per_level)

    @property
    def owners(self) -> list[int]:
        """The specialists that are run, by their places, in order."""
        return list(dict.fromkeys(owner for owner, _ in self.runs))

    def features(self, image: Tensor, owner: int) -> list[list[Tensor]]:
        """Return what a specialist gives the fusion of stored values: by level, a set a run."""
        factor = self.factors[owner]
        levels = self._sets(image * self.scale + self.offset, owner)
        if factor == 1.0:
            return levels
        return [[one * factor for one in sets] for sets in levels]

    def fuse(self, per_level: Sequence[list[Tensor]]) -> tuple[Tensor, ...]:
        """Return the levels of what all specialists give, by level."""
        return tuple(fuse(sets) for fuse, sets in zip(self.fusions, per_level, strict=True))

    def _sets(self, physical: Tensor, owner: int) -> list[list[Tensor]]:
        """Return a specialist's feature sets, by level; it is run once, on a batch of its bands."""
        runs = [list(bands) for mine, bands in self.runs if mine == owner]
        if len(runs) == 1:
            return [[one] for one in self.ensemble.set_features(physical, owner, tuple(runs[0]))]
        # So its weights are in the graph once, and used once: ONNX Runtime fails to convert the
        # int8 weights that two products share.
        batch = torch.cat([physical[:, bands] for bands in runs])
        levels = self.ensemble.set_features(batch, owner, tuple(range(len(runs[0]))))
        split = [level.reshape(len(runs), -1, *level.shape[1:]) for level in levels]
        return [list(level.unbind(0)) for level in split]
