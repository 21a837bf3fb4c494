"""The whole model against the reference's semantics, written again from their description.

``reference`` below uses nothing of eosfm_edge: timm's encoder, torch's functions, and the table of
band rules. Whatever the model does with modules and state dicts must come to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import timm
import torch
from support.speck import SPECK
from support.tiers import thorough
from support.weights import State, encoder_state
from torch import Tensor, nn
from torch.nn import functional as F

from eosfm_edge.ensemble.model import (
    Ensemble,
    SpecialistSkippedWarning,
    build_from_state,
    physical_units,
)
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import (
    EnsembleSpec,
    FusionMode,
    InputBand,
    NormalisationMode,
    Provenance,
    SelectionSpec,
    SpecialistSpec,
)

WIDTHS = (8, 16, 24, 16)  # speck's: what is done with features does not depend on their number
INPUT_BANDS = 4
# The second specialist cannot be run on four bands: it is skipped, but has its selection weight.
WANTS = (3, 5, 13)
RULES = {3: ((3, 0, 1), (0, 1, 2)), 5: (), 13: ((0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0),)}
SETS = 3
SELECTION_WEIGHTS = (-0.4, 0.9, 1.7)

ALL = SelectionSpec()

skipped_is_expected = pytest.mark.filterwarnings("ignore:specialist .* is skipped")


@cache
def encoder_tensors(in_chans: int) -> State:
    return encoder_state(in_chans, seed=in_chans, backbone=f"convnextv2_{SPECK}")


@cache
def encoder(in_chans: int) -> nn.Module:
    model = timm.create_model(f"convnextv2_{SPECK}", features_only=True, in_chans=in_chans)
    model.load_state_dict(encoder_tensors(in_chans))
    return model.eval()


def image(bands: int = INPUT_BANDS, seed: int = 0) -> Tensor:
    return torch.rand(2, bands, 64, 64, generator=torch.Generator().manual_seed(seed))


def state_of(normalisation: str, projection: bool, fusion: str) -> State:
    """Return a whole encoder's state, random but for the selection weights."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator)
        return values / shape[1] ** 0.5 if len(shape) == 4 else values

    state: State = {"encoder_selector.specialists_weights": torch.tensor(SELECTION_WEIGHTS)}
    for i, wanted in enumerate(WANTS):
        state |= {f"encoders.{i}.{key}": value for key, value in encoder_tensors(wanted).items()}
    for level, width in enumerate(WIDTHS):
        channels_in = 0
        for i, wanted in enumerate(WANTS):
            if normalisation == "batch":
                state[f"feature_normalizers.{i}.{level}.running_mean"] = random(width)
                state[f"feature_normalizers.{i}.{level}.running_var"] = random(width).exp()
            channels = width
            if projection:
                # Sums and products need equal widths; the others can do without.
                channels = 16 if fusion in ("addition", "multiplication") else 16 + 4 * i
                state[f"feature_projections.{i}.{level}.0.weight"] = random(channels, width, 1, 1)
                state[f"feature_projections.{i}.{level}.0.bias"] = random(channels)
            channels_in += channels * len(RULES[wanted])
        if fusion == "conv1x1":
            state[f"feature_fusion.{level}.weight"] = random(width // 2, channels_in, 1, 1)
            state[f"feature_fusion.{level}.bias"] = random(width // 2)
        if fusion == "mlp":
            hidden = int(1.25 * channels_in)
            state[f"feature_fusion.{level}.0.weight"] = random(hidden, channels_in, 1, 1)
            state[f"feature_fusion.{level}.0.bias"] = random(hidden)
            state[f"feature_fusion.{level}.2.weight"] = random(width, hidden, 1, 1)
            state[f"feature_fusion.{level}.2.bias"] = random(width)
    return state


def factors_of(weights: Tensor, selection: SelectionSpec) -> list[float]:
    if selection.mode == "smooth":
        return (weights if selection.scale_features else torch.sigmoid(weights)).tolist()
    largest_first = sorted(range(len(weights)), key=lambda i: float(weights[i]), reverse=True)
    chosen = largest_first[: selection.k]
    value = weights.tolist() if selection.scale_features else [1.0] * len(weights)
    return [value[i] if i in chosen else 0.0 for i in range(len(weights))]


def fused(sets: Sequence[Tensor], fusion: str, state: State, prefix: str) -> Tensor:
    def conv(features: Tensor, name: str) -> Tensor:
        return F.conv2d(features, state[f"{name}.weight"], state[f"{name}.bias"])

    if fusion == "addition":
        return torch.stack(list(sets)).sum(0)
    if fusion == "multiplication":
        return torch.stack(list(sets)).prod(0)
    features = torch.cat(list(sets), 1)
    if fusion == "conv1x1":
        return conv(features, prefix)
    if fusion == "mlp":
        return conv(F.relu(conv(features, f"{prefix}.0")), f"{prefix}.2")
    return features


@torch.no_grad()
def reference(
    image: Tensor, state: State, normalisation: str, selection: SelectionSpec, fusion: str
) -> list[Tensor]:
    factors = factors_of(state["encoder_selector.specialists_weights"], selection)
    levels: list[list[Tensor]] = [[], [], [], []]
    for i, wanted in enumerate(WANTS):
        for bands in RULES[wanted]:
            for level, features in enumerate(encoder(wanted)(image[:, list(bands)])):
                if normalisation == "batch":
                    name = f"feature_normalizers.{i}.{level}"
                    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
                    features = F.batch_norm(features, mean, var, eps=1e-5)
                elif normalisation == "layer":
                    features = F.group_norm(features, 1, eps=1e-5)
                name = f"feature_projections.{i}.{level}.0"
                if f"{name}.weight" in state:
                    features = F.conv2d(features, state[f"{name}.weight"], state[f"{name}.bias"])
                    features = F.leaky_relu(features, 0.01)
                levels[level].append(features * factors[i])
    return [
        fused(sets, fusion, state, f"feature_fusion.{level}") for level, sets in enumerate(levels)
    ]


def specialist(name: str, bands: Sequence[Band], backbone: str = SPECK) -> SpecialistSpec:
    return SpecialistSpec(
        name=name,
        backbone=f"convnextv2_{backbone}",
        bands=tuple(bands),
        weights=f"{name}.safetensors",
        weights_sha256="0" * 64,
        provenance=Provenance(source="test"),
    )


def spec_of(
    specialists: Sequence[SpecialistSpec],
    bands: Sequence[InputBand],
    *,
    normalisation: NormalisationMode = "none",
    projection: bool = False,
    selection: SelectionSpec = ALL,
    fusion: FusionMode = "none",
) -> EnsembleSpec:
    return EnsembleSpec(
        name="test",
        input=tuple(bands),
        specialists=tuple(specialists),
        normalisation=normalisation,
        projection=projection,
        selection=selection,
        fusion=fusion,
        shared_sha256="0" * 64,
    )


def by_count() -> tuple[list[SpecialistSpec], list[InputBand]]:
    """The specialists of ``WANTS`` and an input of which only the number of bands is known."""
    specialists = [specialist(f"wants{n}", [Band() for _ in range(n)]) for n in WANTS]
    return specialists, [InputBand() for _ in range(INPUT_BANDS)]


def rgb(name: str = "rgb", backbone: str = SPECK) -> SpecialistSpec:
    return specialist(name, [Band(name=band) for band in ("B04", "B03", "B02")], backbone)


def inputs(*names: str) -> list[InputBand]:
    return [InputBand(name=name) for name in names]


def rgb_state() -> State:
    return {f"encoders.0.{key}": value for key, value in encoder_tensors(3).items()}


@torch.no_grad()
def features_of(ensemble: Ensemble, image: Tensor) -> list[Tensor]:
    return ensemble(image)


@skipped_is_expected
@pytest.mark.parametrize("fusion", ["none", "conv1x1", "mlp", "addition", "multiplication"])
@pytest.mark.parametrize(
    "selection",
    [
        SelectionSpec(mode="topk", k=2, scale_features=True),
        SelectionSpec(mode="smooth"),
        *thorough(
            SelectionSpec(mode="topk", k=1),
            SelectionSpec(mode="topk", k=3, scale_features=True),
            SelectionSpec(mode="smooth", scale_features=True),
        ),
    ],
    ids=["scaled-two", "smooth", "one", "scaled-all", "scaled-smooth"],
)
@pytest.mark.parametrize("projection", [False, True], ids=["native", "projected"])
@pytest.mark.parametrize("normalisation", ["batch", "layer", "none"])
def test_levels_are_the_references(
    normalisation: NormalisationMode,
    projection: bool,
    selection: SelectionSpec,
    fusion: FusionMode,
) -> None:
    state = state_of(normalisation, projection, fusion)
    spec = spec_of(
        *by_count(),
        normalisation=normalisation,
        projection=projection,
        selection=selection,
        fusion=fusion,
    )
    levels = features_of(build_from_state(spec, state), image())
    expected = reference(image(), state, normalisation, selection, fusion)
    for ours, theirs, side in zip(levels, expected, (16, 8, 4, 2), strict=True):
        assert ours.shape[2:] == (side, side)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_fixture_has_features_worth_comparing() -> None:
    # A comparison of zeros would pass whatever the model did.
    state = state_of("none", False, "none")
    for level in reference(image(), state, "none", ALL, "none"):
        one, two, three = level.chunk(SETS, 1)
        assert min(part.std() for part in (one, two, three)) > 0.1
        assert (one - two).abs().mean() > 0.01


def test_a_specialist_without_a_rule_is_skipped_with_a_warning() -> None:
    spec = spec_of(*by_count())
    with pytest.warns(SpecialistSkippedWarning, match="wants5 is skipped: it wants 5 bands"):
        ensemble = Ensemble(spec)
    assert ensemble.set_owners() == (0, 0, 2)
    assert ensemble.set_widths(0) == (8, 8, 8)


@skipped_is_expected
def test_an_ensemble_of_which_nothing_can_run_is_refused() -> None:
    with pytest.raises(UserError, match="no specialist can be run on the input's 2 bands"):
        Ensemble(spec_of([rgb()], inputs("B05", "B06")))


def test_named_bands_may_stand_in_any_order() -> None:
    in_order = build_from_state(spec_of([rgb()], inputs("B04", "B03", "B02")), rgb_state())
    reversed_ = build_from_state(spec_of([rgb()], inputs("B02", "B03", "B04")), rgb_state())
    pixels = image(3)
    for a, b in zip(
        features_of(in_order, pixels), features_of(reversed_, pixels.flip(1)), strict=True
    ):
        assert torch.equal(a, b)


def test_specialists_of_different_widths_are_concatenated_in_order() -> None:
    spec = spec_of([rgb("small"), rgb("large", "femto")], inputs("B04", "B03", "B02"))
    ensemble = Ensemble(spec)
    assert ensemble.set_widths(0) == (8, 48)
    assert [level.shape[1] for level in features_of(ensemble, image(3))] == [56, 112, 216, 400]


def test_specialists_of_different_widths_cannot_be_added() -> None:
    specialists = [rgb("small"), rgb("large", "femto")]
    with pytest.raises(UserError, match="8, 48"):
        Ensemble(spec_of(specialists, inputs("B04", "B03", "B02"), fusion="addition"))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 2, 64, 64)])
def test_an_image_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    ensemble = Ensemble(spec_of([rgb()], inputs("B04", "B03", "B02")))
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
        ensemble(torch.zeros(shape))


def test_absent_statistics_are_mean_0_and_variance_1() -> None:
    bands = inputs("B04", "B03", "B02")
    plain = build_from_state(spec_of([rgb()], bands), rgb_state())
    normalised = build_from_state(spec_of([rgb()], bands, normalisation="batch"), rgb_state())
    for a, b in zip(features_of(plain, image(3)), features_of(normalised, image(3)), strict=True):
        # (x - 0) / sqrt(1 + 1e-5)
        torch.testing.assert_close(b, a / 1.00001**0.5)


def test_half_precision_weights_run_in_single_precision() -> None:
    half = {key: value.half() for key, value in rgb_state().items()}
    ensemble = build_from_state(spec_of([rgb()], inputs("B04", "B03", "B02")), half)
    assert {value.dtype for value in ensemble.encoders.state_dict().values()} == {torch.float32}
    assert torch.equal(
        ensemble.state_dict()["encoders.0.stem_0.weight"], half["encoders.0.stem_0.weight"].float()
    )


def test_statistics_do_not_change_when_the_model_runs() -> None:
    # An ensemble comes in evaluation mode: running one image must not teach it anything.
    spec = spec_of([rgb()], inputs("B04", "B03", "B02"), normalisation="batch")
    ensemble = build_from_state(spec, rgb_state())
    before = {key: value.clone() for key, value in ensemble.state_dict().items()}
    features_of(ensemble, image(3))
    assert all(torch.equal(value, before[key]) for key, value in ensemble.state_dict().items())


def test_stored_values_become_physical_band_by_band() -> None:
    bands = [InputBand(scale=0.5, offset=1), InputBand(scale=2, offset=-1), InputBand()]
    stored = torch.tensor([10.0, 20, 30]).reshape(1, 3, 1, 1)
    physical = physical_units(spec_of([rgb()], bands), stored)
    assert physical.flatten().tolist() == [6, 39, 30]
