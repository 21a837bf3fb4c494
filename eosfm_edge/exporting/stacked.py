"""The chain with its specialists stacked: those of equal shape are computed together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.formats.ensemble import LEVELS
from eosfm_edge.network.deployed import DeployedEncoder
from eosfm_edge.network.stacked import Shape, StackedEncoders, shape_of_stack


class StackedChain(nn.Module):
    """A chain of deployed encoders that takes and gives what the chain does.

    Every run of a specialist is a member of a stack, with weights of its own in the graph. A
    specialist whose shape no other has is run as in the chain.

    Raises:
        UserError: there is int8 to be stacked in the form of ONNX Runtime on a CPU.
    """

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.chain = chain
        encoders: dict[int, DeployedEncoder] = {}
        shapes: dict[Shape, list[int]] = {}
        for owner in chain.owners:
            encoder = chain.ensemble.encoders[owner]
            assert isinstance(encoder, DeployedEncoder)
            encoders[owner] = encoder
            shapes.setdefault(shape_of_stack(encoder), []).append(owner)
        self.alone = [owners[0] for owners in shapes.values() if len(owners) == 1]
        stacked = [owners for owners in shapes.values() if len(owners) > 1]
        self.members = [[run for run in chain.runs if run[0] in owners] for owners in stacked]
        self.stacks = nn.ModuleList(
            [StackedEncoders([encoders[owner] for owner, _ in runs]) for runs in self.members]
        )
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return four levels (N, C, H/s, W/s) of stored values (N, bands, H, W), fp32."""
        features = {owner: self.chain.features(image, owner) for owner in self.alone}
        physical = image * self.chain.scale + self.chain.offset
        for stack, runs in zip(self.stacks, self.members, strict=True):
            levels = stack([physical[:, list(bands)] for _, bands in runs])
            features |= self._by_owner([owner for owner, _ in runs], levels)
        owners = self.chain.owners
        return self.chain.fuse(
            [[one for owner in owners for one in features[owner][level]] for level in LEVELS]
        )

    def _by_owner(
        self, owners: Sequence[int], levels: Sequence[list[Tensor]]
    ) -> dict[int, list[list[Tensor]]]:
        """Return what each specialist gives the fusion, as the chain's ``features`` does.

        Args:
            owners: the specialist of each run of a stack.
            levels: what the stack gives of each run.
        """
        found: dict[int, list[list[Tensor]]] = {owner: [[] for _ in LEVELS] for owner in owners}
        for owner, features in zip(owners, levels, strict=True):
            factor = self.chain.factors[owner]
            settled = self.chain.ensemble.settled(features, owner)
            for sets, one in zip(found[owner], settled, strict=True):
                sets.append(one if factor == 1.0 else one * factor)
        return found
