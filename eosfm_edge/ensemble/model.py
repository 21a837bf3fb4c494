"""The ensemble as a PyTorch model, with EoS-FM's semantics (arXiv:2511.21523)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from eosfm_edge.ensemble.fusion import build_fusion
from eosfm_edge.ensemble.selection import EncoderSelector
from eosfm_edge.ensemble.specialist import build_encoder, widths
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import LEVELS, EnsembleSpec, NormalisationMode


class SpecialistSkippedWarning(UserWarning):
    """A specialist cannot be run on the input's bands and is left out."""


class Ensemble(nn.Module):
    """Specialists, and what makes one feature pyramid of their features.

    An image goes through every specialist's band adaptation and encoder; each run gives a
    feature set, which is normalised, projected and scaled by its specialist's selection; each
    level's sets are fused. State-dict names are the reference's: ``encoders.0.stem_0.weight``,
    ``feature_normalizers.0.1.running_mean``, ``feature_projections.0.1.0.weight``,
    ``encoder_selector.specialists_weights``, ``feature_fusion.1.weight``.

    Args:
        spec: what ``ensemble.json`` says.
        projected: for each specialist, channels of each level after its projections, if there
            are any.
        fused: channels of each level after ``conv1x1`` or ``mlp``, if the fusion is one of them.

    Raises:
        UserError: no specialist can be run on the input's bands, or the fusion does not fit.

    Warns:
        SpecialistSkippedWarning: no rule gives a specialist its bands.
    """

    def __init__(
        self,
        spec: EnsembleSpec,
        *,
        projected: Sequence[tuple[int, ...]] = (),
        fused: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.sets = spec.feature_sets()
        self._warn_of_skipped()

        self.encoders = nn.ModuleList(
            [build_encoder(s.backbone, len(s.bands), s.shape) for s in spec.specialists]
        )
        native = [widths(s) for s in spec.specialists]
        self.feature_normalizers = nn.ModuleList(
            [
                nn.ModuleList([_normaliser(spec.normalisation, width) for width in per_level])
                for per_level in native
            ]
        )
        self.feature_projections = nn.ModuleList(
            nn.ModuleList([_projection(a, b) for a, b in zip(before, after, strict=True)])
            for before, after in zip(native, projected, strict=bool(projected))
        )
        self.encoder_selector = EncoderSelector(spec.selection, len(spec.specialists))
        self.feature_fusion = nn.ModuleList(
            [
                build_fusion(spec.fusion, self.set_widths(level), fused[level] if fused else 0)
                for level in LEVELS
            ]
        )
        self.eval()

    def _warn_of_skipped(self) -> None:
        bands = ", ".join(str(band) for band in self.spec.input)
        remedy = "name the input's bands with --bands"
        for specialist, sets in zip(self.spec.specialists, self.sets, strict=True):
            if not sets:
                wanted = ", ".join(str(band) for band in specialist.bands)
                advice = ""
                if not all(band.known for band in specialist.bands):
                    remedy = (
                        f"name the {len(specialist.bands)} bands that {specialist.name} was trained"
                        f" on: --specialist-bands {specialist.name}=B02,B03,..."
                    )
                    advice = f"; {remedy}"
                warnings.warn(
                    f"specialist {specialist.name} is skipped: it wants {len(specialist.bands)} "
                    f"bands ({wanted}), and no rule makes them of the input's "
                    f"{len(self.spec.input)} ({bands}){advice}",
                    SpecialistSkippedWarning,
                    stacklevel=3,
                )
        if not any(self.sets):
            raise UserError(
                f"no specialist can be run on the input's {len(self.spec.input)} bands ({bands})",
                remedy=remedy,
            )

    def set_widths(self, level: int) -> tuple[int, ...]:
        """Return the channels of each feature set at a level, in the order they are fused."""
        per_specialist = [
            self.feature_projections[i][level][0].out_channels  # type: ignore[index]
            if self.feature_projections
            else widths(specialist)[level]
            for i, specialist in enumerate(self.spec.specialists)
        ]
        return tuple(
            width for width, sets in zip(per_specialist, self.sets, strict=True) for _ in sets
        )

    def set_owners(self) -> tuple[int, ...]:
        """Return the specialist of each feature set, in the order they are fused."""
        return tuple(i for i, sets in enumerate(self.sets) for _ in sets)

    def set_features(self, image: Tensor, owner: int, bands: tuple[int, ...]) -> list[Tensor]:
        """Run one specialist on some of the image's bands; normalised and projected levels."""
        return self.settled(self.encoders[owner](image[:, list(bands)]), owner)

    def settled(self, features: Sequence[Tensor], owner: int) -> list[Tensor]:
        """Normalise and project what an encoder gives, level by level."""
        features = [self.feature_normalizers[owner][i](f) for i, f in enumerate(features)]  # type: ignore[index]
        if self.feature_projections:
            features = [self.feature_projections[owner][i](f) for i, f in enumerate(features)]  # type: ignore[index]
        return features

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the four levels of an image.

        Args:
            image: (N, bands of the input, H, W) in physical units; H and W multiples of 32.

        Returns:
            Four maps (N, C, H/s, W/s) for s in 4, 8, 16, 32.
        """
        if image.ndim != 4 or image.shape[1] != len(self.spec.input):
            raise ValueError(
                f"image is {tuple(image.shape)}, expected (N, {len(self.spec.input)}, H, W)"
            )
        factors = self.encoder_selector()
        per_level: list[list[Tensor]] = [[] for _ in LEVELS]
        for owner, runs in enumerate(self.sets):
            for bands in runs:
                for level, features in enumerate(self.set_features(image, owner, bands)):
                    per_level[level].append(features * factors[owner])
        return [fuse(sets) for fuse, sets in zip(self.feature_fusion, per_level, strict=True)]


def build_from_state(spec: EnsembleSpec, state: Mapping[str, Tensor]) -> Ensemble:
    """Build an ensemble around its state dict.

    Tensors are taken as fp32 whatever they are stored as. The caller has checked that the state
    has what it needs; normalisation statistics and selection weights may be absent.
    """
    projected = [
        tuple(state[f"feature_projections.{i}.{level}.0.weight"].shape[0] for level in LEVELS)
        for i in range(len(spec.specialists) if spec.projection else 0)
    ]
    last = {"conv1x1": "weight", "mlp": "2.weight"}.get(spec.fusion)
    fused = (
        tuple(state[f"feature_fusion.{level}.{last}"].shape[0] for level in LEVELS)
        if last
        else None
    )
    ensemble = Ensemble(spec, projected=projected, fused=fused)
    complete = {**ensemble.state_dict(), **{key: value.float() for key, value in state.items()}}
    ensemble.load_state_dict(complete)
    return ensemble


def _normaliser(mode: NormalisationMode, width: int) -> nn.Module:
    match mode:
        case "batch":
            return nn.BatchNorm2d(width, affine=False)
        case "layer":
            return nn.GroupNorm(1, width, affine=False)
        case "none":
            return nn.Identity()


def _projection(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.LeakyReLU(0.01))


def physical_units(spec: EnsembleSpec, stored: Tensor) -> Tensor:
    """Return what specialists see of stored values (N, bands, H, W).

    That is physical values, or standardised ones where the ensemble has means.
    """
    seen = torch.tensor([band.seen for band in spec.input], dtype=torch.float32)
    scale, offset = seen[:, 0], seen[:, 1]
    return stored * scale[:, None, None] + offset[:, None, None]
