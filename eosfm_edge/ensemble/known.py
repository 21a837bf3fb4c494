"""Read from the files how an ensemble is put together, or ask for what they do not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from eosfm_edge.ensemble.checkpoint import Checkpoint, State
from eosfm_edge.ensemble.settings import Settings
from eosfm_edge.ensemble.state import SELECTION_WEIGHTS
from eosfm_edge.errors import UserError
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.bands import PRESETS, Band
from eosfm_edge.formats.ensemble import (
    INPUT_ADAPTER,
    FusionMode,
    InputBand,
    NormalisationMode,
    SelectionSpec,
)


@dataclass(frozen=True)
class Known:
    """The statements of the files about the ensemble as a whole.

    Attributes:
        shared: tensors that specialists share.
        header: of the file that they are in.
        settings: of a checkpoint that is a whole encoder.
        notes: for the user; what had to be guessed is added.
    """

    shared: State
    header: Mapping[str, str]
    settings: Settings | None
    notes: list[str]

    def selection(self) -> SelectionSpec:
        """Return how specialists count; where they were weighed and nothing says how, ask."""
        if "selection" in self.header:
            return SelectionSpec.model_validate_json(self.header["selection"])
        if self.settings:
            return self.settings.selection
        weights = self.shared.get(SELECTION_WEIGHTS)
        if weights is None:
            return SelectionSpec()
        values = ", ".join(f"{float(value):g}" for value in weights.flatten()[:32])
        raise UserError(
            f"the encoders were selected by weights ({values}), but nothing says how many of them, "
            "and how",
            expected="hyper_parameters.model_args of EoS-FM's trainer, with backbone_max_encoders",
            remedy=f"add --top-k and backbone_max_encoders of the training (--top-k "
            f"{weights.numel()} takes all), or --selection smooth; and --scale-features if "
            "backbone_scale_features was on",
        )

    def normalisation(self) -> NormalisationMode:
        """Return how feature sets are normalised."""
        if "normalisation" in self.header:
            return cast(NormalisationMode, self.header["normalisation"])
        if self.settings:
            return self.settings.normalisation
        if any(key.startswith("feature_normalizers.") for key in self.shared) or not self.shared:
            return "batch"
        self.notes.append("no normalisation statistics in the files: 'none' (or say --norm layer)")
        return "none"

    def fusion(self) -> FusionMode:
        """Return how feature sets are fused."""
        if "fusion" in self.header:
            return cast(FusionMode, self.header["fusion"])
        if self.settings:
            return self.settings.fusion
        if "feature_fusion.0.weight" in self.shared:
            return "conv1x1"
        if "feature_fusion.0.0.weight" in self.shared:
            return "mlp"
        if self.shared:
            self.notes.append(
                "no fusion tensors in the files: sets are concatenated (or say --fusion addition "
                "or multiplication, which have none either)"
            )
        return "none"

    def adaptation(self) -> AdaptationMode | None:
        """Return what says which bands a specialist gets, if the header of a file does."""
        return cast("AdaptationMode | None", self.header.get("adaptation"))

    def input(self) -> tuple[InputBand, ...]:
        """Return the ensemble's input bands."""
        if "input" in self.header:
            return INPUT_ADAPTER.validate_json(self.header["input"])
        count = self.settings.in_chans if self.settings else None
        counted = f"; there were {count}" if count else ""
        raise UserError(
            f"the files do not say what bands the ensemble's input has{counted}",
            remedy=f"add --bands, with names or one of {', '.join(PRESETS)}",
        )


def settings_of(checkpoints: Sequence[Checkpoint]) -> Settings | None:
    """Return what the one file that is a whole encoder says of it."""
    if sum(bool(c.encoders) for c in checkpoints) > 1:
        return None  # it is put together anew here
    return next((c.settings for c in checkpoints if c.settings), None)


def usual_adaptation(bands: Sequence[Band], *, by_count: bool) -> AdaptationMode:
    """Return how bands are matched where nothing says so.

    By numbers of bands where the reference did, unless somebody says what the bands are. A band
    set of the reference's says no more than its number does.

    Args:
        bands: of the input.
        by_count: the reference matches by numbers here.
    """
    named = tuple(band.name for band in bands) not in PRESETS.values()
    return "count" if by_count and not named else "name"
