"""Whole specialists: rankings and refits against numpy's least squares on the raw features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.chains import random_ensemble, spec_of
from support.speck import SPECK
from torch import Tensor

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import EnsembleSpec, SelectionSpec
from eosfm_edge.pruning.features import FeatureMoments, _shrinkage, _Sums, feature_moments
from eosfm_edge.pruning.ranking import (
    _leave_one_out,
    rank_by_probe,
    rank_by_reconstruction,
    rank_by_selection,
)
from eosfm_edge.pruning.specialists import without_specialists
from eosfm_edge.pruning.useless import find_dead, find_duplicates

Matrix = NDArray[np.float64]
LEVELS = range(4)
FUSED = (6, 8, 10, 8)
pytestmark = pytest.mark.filterwarnings("ignore:specialist:UserWarning")


def small(wants: Sequence[int] = (3, 3, 3), seed: int = 0, **options: Any) -> Ensemble:
    """Random tiny specialists over three bands; who wants five has no rule: dead."""
    fusion = options.setdefault("fusion", "conv1x1")
    fused = {"fused": FUSED} if fusion in ("conv1x1", "mlp") else {}
    projected = {"projected": [(8, 8, 8, 8)] * len(wants)} if options.get("projection") else {}
    spec = spec_of(wants, 3, backbone=SPECK, **options)
    ensemble = random_ensemble(spec, seed, **fused, **projected)
    settle(ensemble)
    return ensemble


@torch.no_grad()
def settle(ensemble: Ensemble) -> None:
    """Give normalisation the statistics that features really have, and specialists a character."""
    torch.manual_seed(1)
    for i, (encoder, runs) in enumerate(zip(ensemble.encoders, ensemble.sets, strict=True)):
        if not runs:
            continue
        encoder.stem_0.weight.mul_(1 + i).add_(torch.randn_like(encoder.stem_0.weight))
        for level, features in enumerate(encoder(images(4)[:, list(runs[0])])):
            if ensemble.spec.normalisation == "batch":
                normaliser = ensemble.feature_normalizers[i][level]
                normaliser.running_mean.copy_(features.mean((0, 2, 3)))
                normaliser.running_var.copy_(features.var((0, 2, 3)) + 1e-3)


def images(count: int, size: int = 128, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, size // 16, size // 16, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return smooth + 0.5 * torch.randn(count, 3, size, size, generator=generator)


@torch.no_grad()
def raw(ensemble: Ensemble, batch: Tensor) -> list[Matrix]:
    """The features that the fusion is given (cells, C), caught where the model gives them."""
    seen: list[Tensor] = []
    hooks = [
        fusion.register_forward_pre_hook(lambda _, inputs: seen.append(torch.cat(inputs[0], 1)))
        for fusion in ensemble.feature_fusion
    ]
    ensemble(batch)
    for hook in hooks:
        hook.remove()
    return [level.double().movedim(1, -1).flatten(0, 2).numpy() for level in seen]


def plenty(moments: list[FeatureMoments]) -> list[FeatureMoments]:
    """FeatureMoments as if of so many cells that the covariance is not shrunk."""
    return [replace(level, cells=10**9) for level in moments]


def owners(ensemble: Ensemble, level: int) -> NDArray[np.int64]:
    return np.repeat(ensemble.set_owners(), ensemble.set_widths(level))


def outputs(ensemble: Ensemble, features: list[Matrix], level: int) -> Matrix:
    if ensemble.spec.fusion == "none":
        return features[level]
    return (
        features[level]
        @ ensemble.feature_fusion[level].weight.detach().flatten(1).double().numpy().T
    )


def lost_by_lstsq(ensemble: Ensemble, features: list[Matrix], gone: Collection[int]) -> float:
    """Share of the outputs' variance that no affine function of the rest gives, over levels."""
    shares = []
    for level in LEVELS:
        wanted = outputs(ensemble, features, level)
        rest = features[level][:, ~np.isin(owners(ensemble, level), list(gone))]
        wanted, rest = wanted - wanted.mean(0), rest - rest.mean(0)
        fit, *_ = np.linalg.lstsq(rest, wanted, rcond=None)
        shares.append(((wanted - rest @ fit) ** 2).sum() / (wanted**2).sum())
    return float(np.mean(shares))


def copy_specialist(ensemble: Ensemble, source: int, target: int) -> None:
    for part in (ensemble.encoders, ensemble.feature_normalizers):
        part[target].load_state_dict(part[source].state_dict())


def snr(expected: Tensor, found: Tensor) -> float:
    error = (expected - found).square().mean()
    return float(10 * torch.log10(expected.var() / error))


# FeatureMoments


def test_moments_are_numpys_over_all_batches() -> None:
    ensemble = small((3, 2, 3, 12), projection=True, selection=SelectionSpec(mode="smooth"))
    batch = images(5, 64)
    moments = feature_moments(ensemble, (part for part in batch.split([2, 1, 2])))
    for found, features in zip(moments, raw(ensemble, batch), strict=True):
        np.testing.assert_allclose(found.mean.numpy(), features.mean(0), atol=1e-6)
        covariance = np.cov(features, rowvar=False, bias=True)
        np.testing.assert_allclose(found.covariance.numpy(), covariance, atol=1e-6)
        assert found.covariance.dtype == torch.float64
        assert found.cells == len(features)


def test_moments_of_what_is_not_selected_are_zero_and_it_is_not_run() -> None:
    ensemble = small(selection=SelectionSpec(k=1))
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor([0.0, 1, 0]))
    batch = images(2, 64)
    expected = raw(ensemble, batch)
    ensemble.encoders[0].forward = None
    for found, features in zip(feature_moments(ensemble, [batch]), expected, strict=True):
        np.testing.assert_allclose(found.mean.numpy(), features.mean(0), atol=1e-6)


def test_large_means_do_not_spoil_the_covariance() -> None:
    rows = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) + 1e6
    sums = _Sums(rows[:10])
    sums.add(rows[:10])
    sums.add(rows[10:])
    np.testing.assert_allclose(
        sums.moments().covariance.numpy(),
        np.cov(rows.double().numpy(), rowvar=False, bias=True),
        rtol=1e-9,
        atol=1e-9,
    )


def test_no_images_and_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        feature_moments(small(), [])
    with pytest.raises(UserError, match="not finite"):
        feature_moments(small(), [images(1, 64) * torch.nan])


def test_moments_of_another_ensemble_are_a_bug() -> None:
    moments = feature_moments(small(), [images(1, 64)])
    with pytest.raises(ValueError, match="channels"):
        rank_by_reconstruction(small((3, 3)), moments)


def test_shrinkage_is_that_of_the_paper() -> None:
    # Worked by hand: tr S = 4, tr S^2 = 4 + 2 * 0.5^2 = 4.5, 9 cells:
    # (0.5 * 4.5 + 16) / (9.5 * (4.5 - 4))
    correlation = torch.eye(4, dtype=torch.float64)
    correlation[0, 1] = correlation[1, 0] = 0.5
    assert _shrinkage(correlation, 9) == 1.0
    assert _shrinkage(correlation, 199) == pytest.approx(18.25 / (199.5 * 0.5))


# Ranking by reconstruction


@pytest.mark.parametrize("fusion", ["conv1x1", "none"])
def test_costs_are_what_least_squares_on_the_features_leaves(fusion: str) -> None:
    ensemble = small(
        (3, 3, 12, 3), fusion=fusion, normalisation="none" if fusion == "none" else "batch"
    )
    batch = images(16)
    features = raw(ensemble, batch)
    ranked = rank_by_reconstruction(ensemble, plenty(feature_moments(ensemble, [batch])))
    gone: list[int] = []
    before = 0.0
    for entry in ranked[:-1]:
        rest = [i for i in range(4) if i not in gone]
        by_lstsq = {i: lost_by_lstsq(ensemble, features, [*gone, i]) - before for i in rest}
        tolerance = 1e-3 * max(by_lstsq.values())
        assert entry.cost == pytest.approx(by_lstsq[entry.index], abs=tolerance)
        assert entry.cost <= min(by_lstsq.values()) + tolerance
        gone.append(entry.index)
        before += by_lstsq[entry.index]
    assert sum(entry.cost for entry in ranked) == pytest.approx(1)
    assert [entry.name for entry in ranked] == [f"s{entry.index}" for entry in ranked]
    assert "%" in ranked[0].why


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cells=st.integers(10, 100_000))
def test_the_first_costs_least_and_costs_add_up(seed: int, cells: int) -> None:
    ensemble = SMALL
    moments = [synthetic(sum(ensemble.set_widths(level)), seed + level, cells) for level in LEVELS]
    ranked = rank_by_reconstruction(ensemble, moments)
    alone = [
        np.mean([brute_force(ensemble, moments[level], level, i) for level in LEVELS])
        for i in range(3)
    ]
    assert ranked[0].index == int(np.argmin(alone))
    assert ranked[0].cost == pytest.approx(min(alone), rel=1e-6, abs=1e-9)
    assert sum(entry.cost for entry in ranked) == pytest.approx(1)
    assert all(entry.cost > -1e-9 for entry in ranked)


SMALL = small()


def synthetic(channels: int, seed: int, cells: int) -> FeatureMoments:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2 * channels, channels)) @ rng.normal(size=(channels, channels))
    covariance = torch.from_numpy(np.cov(rows, rowvar=False))
    return FeatureMoments(torch.zeros(channels, dtype=torch.float64), covariance, cells)


def brute_force(ensemble: Ensemble, moments: FeatureMoments, level: int, gone: int) -> float:
    """The same share by lstsq on rows whose covariance is the shrunk one."""
    covariance = moments.covariance.numpy()
    deviation = np.sqrt(np.diag(covariance))
    shrinkage = _shrinkage(
        torch.from_numpy(covariance / np.outer(deviation, deviation)), moments.cells
    )
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.diag(deviation**2)
    rows = np.linalg.cholesky(shrunk).T
    wanted = rows @ ensemble.feature_fusion[level].weight.detach().flatten(1).double().numpy().T
    rest = rows[:, owners(ensemble, level) != gone]
    fit, *_ = np.linalg.lstsq(rest, wanted, rcond=None)
    return float(((wanted - rest @ fit) ** 2).sum() / (wanted**2).sum())


def test_with_few_cells_nothing_is_free() -> None:
    ensemble = small(seed=3)
    ranked = rank_by_reconstruction(ensemble, feature_moments(ensemble, [images(1, 64)]))
    assert ranked[0].cost > 0.01


def test_a_duplicate_costs_nothing_and_its_removal_changes_nothing() -> None:
    ensemble = small((3, 3, 3, 3))
    copy_specialist(ensemble, 1, 3)
    moments = feature_moments(ensemble, images(24, 256).split(4))
    first = rank_by_reconstruction(ensemble, moments)[0]
    assert (first.index, first.why) == (3, "its features are a linear function of s1's, R² 1.00000")
    assert first.cost < 1e-9
    pruned = without_specialists(ensemble, [first.index], moments)
    unseen = images(2, 256, seed=9)
    with torch.no_grad():
        for expected, found in zip(ensemble(unseen), pruned(unseen), strict=True):
            assert snr(expected, found) > 60


def test_what_has_no_features_goes_first_and_what_is_protected_is_not_ranked() -> None:
    ensemble = small((3, 5, 3, 3), selection=SelectionSpec(k=3))
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor([4.0, 3, 0, 2]))
    moments = feature_moments(ensemble, [images(2)])
    ranked = rank_by_reconstruction(ensemble, moments, protected=[0])
    assert [(e.index, e.cost, e.why) for e in ranked[:2]] == [
        (1, 0, "dead: no rule makes its bands of the input's"),
        (2, 0, "dead: it is not selected"),
    ]
    assert [e.index for e in ranked[2:]] == [3]
    with pytest.raises(UserError, match="no specialist 4"):
        rank_by_reconstruction(ensemble, moments, protected=[4])


def test_terms_of_a_sum_cost_their_variance() -> None:
    ensemble = small((3, 12, 3), fusion="addition", selection=SelectionSpec(mode="smooth"))
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor([2.0, -1, 0]))
    batch = images(4, 64)
    ranked = rank_by_reconstruction(ensemble, feature_moments(ensemble, [batch]))
    features = raw(ensemble, batch)
    for entry in ranked:
        shares = []
        for level in LEVELS:
            sets = features[level].reshape(len(features[level]), 3, -1)  # one for each specialist
            shares.append(sets[:, entry.index].var(0).sum() / sets.sum(1).var(0).sum())
        assert entry.cost == pytest.approx(np.mean(shares), rel=1e-6)
    assert [entry.index for entry in ranked] == [1, 2, 0]


@pytest.mark.parametrize(
    ("fusion", "reason"), [("mlp", "1.25 times the channels"), ("multiplication", "factors")]
)
def test_fusions_that_nothing_can_be_taken_from_are_refused(fusion: str, reason: str) -> None:
    ensemble = small((3, 3, 5), fusion=fusion)
    batch = images(2, 64)
    moments = feature_moments(ensemble, [batch])
    chips = [(batch[0], 0), (batch[1], 1)]
    for refused in (
        lambda: rank_by_reconstruction(ensemble, moments),
        lambda: rank_by_selection(ensemble),
        lambda: rank_by_probe(ensemble, chips),
        lambda: without_specialists(ensemble, [0], moments),
    ):
        with pytest.raises(UserError, match=reason):
            refused()
    with torch.no_grad():  # the third has no features: the fusion does not know it
        for a, b in zip(
            ensemble(batch), without_specialists(ensemble, [2], moments)(batch), strict=True
        ):
            assert torch.equal(a, b)


# Ranking by selection and probe


def test_selection_weights_rank_smallest_first() -> None:
    ensemble = small((3, 3, 5, 3))
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor([0.5, -1, 9, 0.25]))
    ranked = rank_by_selection(ensemble)
    assert [(e.index, e.cost) for e in ranked] == [(2, 0), (1, -1), (3, 0.25), (0, 0.5)]
    with pytest.raises(UserError, match="all 3 selection weights are 1"):
        rank_by_selection(small())


def test_leave_one_out_is_that_of_refitting_without_each_chip() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(15, 6)), rng.integers(0, 3, 15)
    features[:, 0] += labels
    one_hot = np.eye(3)[labels]
    kernel = features @ features.T
    accuracy, error = _leave_one_out(torch.from_numpy(kernel), torch.from_numpy(one_hot), 0.1)
    root = np.sqrt(0.1 * np.trace(kernel) / 15) * np.eye(6)
    missed = []
    for i in range(15):
        kept = np.arange(15) != i
        mean, target = features[kept].mean(0), one_hot[kept].mean(0)
        rows = np.vstack([features[kept] - mean, root])
        wanted = np.vstack([one_hot[kept] - target, np.zeros((6, 3))])
        fit, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
        missed.append(one_hot[i] - target - (features[i] - mean) @ fit)
    right = (one_hot - missed).argmax(1) == labels
    assert accuracy == pytest.approx(right.mean())
    assert error == pytest.approx(-np.square(missed).mean())


def test_the_probe_keeps_the_specialist_that_sees_the_class() -> None:
    ensemble = small((3, 3, 3, 5))
    with torch.no_grad():
        for blind in (0, 2):  # the class is in the third band
            ensemble.encoders[blind].stem_0.weight[:, 2] = 0
    generator = torch.Generator().manual_seed(0)
    chips = []
    for i in range(30):
        size = 64 if i % 3 else 96
        chip = torch.randn(3, size, size, generator=generator)
        chip[:2] *= 0.2 + 2 * torch.rand(1, generator=generator)
        chip[2] += 3 * (i % 2)
        chips.append((chip, 7 if i % 2 else 4))
    ranked = rank_by_probe(ensemble, chips)
    assert [ranked[0].index, ranked[-1].index] == [3, 1]
    assert sorted(e.index for e in ranked) == [0, 1, 2, 3]
    assert ranked[-1].cost > 0.4
    assert max(abs(e.cost) for e in ranked[:-1]) <= 0.1
    with pytest.raises(UserError, match="1 classes"):
        rank_by_probe(ensemble, chips[::2])


# Dead and duplicates


def test_the_dead_are_named_with_their_reason() -> None:
    ensemble = small((3, 5, 3, 3, 3), selection=SelectionSpec(k=4))
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor([1.0, 1, 0, 1, 1]))
    with torch.no_grad():
        ensemble.encoders[3].stem_0.weight.zero_()  # sees nothing of the image ...
        for module in ensemble.encoders[3].modules():  # ... nor of where its edges are
            if isinstance(module, torch.nn.Conv2d) and module.groups > 1:
                module.weight.zero_()
        for level in LEVELS:
            mine = torch.from_numpy(owners(ensemble, level) == 4)
            ensemble.feature_fusion[level].weight[:, mine] = 0
    moments = feature_moments(ensemble, [images(3)])
    assert find_dead(ensemble, moments) == {
        1: "no rule makes its bands of the input's",
        2: "it is not selected",
        3: "its features do not vary",
        4: "the fusion gives it no weight",
    }
    costs = {e.index: e.cost for e in rank_by_reconstruction(ensemble, moments)}
    assert costs[3] == pytest.approx(0, abs=1e-9)
    assert find_dead(SMALL, feature_moments(SMALL, [images(3)])) == {}


def test_duplicates_are_found_of_copies_and_of_linear_functions() -> None:
    ensemble = small((3, 3, 3, 3, 5), fusion="none", projection=True)
    for copy in (2, 3):
        copy_specialist(ensemble, 0, copy)
    with torch.no_grad():
        for i in (0, 2, 3):  # a projection without its bend is a linear function
            for level in LEVELS:
                ensemble.feature_projections[i][level][1].negative_slope = 1.0
        for level in LEVELS:
            source = ensemble.feature_projections[0][level]
            ensemble.feature_projections[2][level].load_state_dict(source.state_dict())
            mixed = ensemble.feature_projections[3][level][0]
            mixed.weight.copy_(torch.einsum("oi,icxy->ocxy", torch.randn(8, 8), source[0].weight))
    moments = feature_moments(ensemble, images(16, 128).split(4))
    found = find_duplicates(ensemble, moments)
    assert [(d.index, d.of) for d in found] == [(2, 0), (3, 0)]
    assert all(0.999 <= d.r2 <= 1 for d in found)


def test_few_cells_make_no_duplicates_but_of_copies() -> None:
    ensemble = small(seed=5)
    assert find_duplicates(ensemble, feature_moments(ensemble, [images(1, 32)])) == []
    copy_specialist(ensemble, 0, 2)
    moments = feature_moments(ensemble, [images(1, 64)])  # 4 cells for 16 channels at level 4
    assert [(d.index, d.of) for d in find_duplicates(ensemble, moments)] == [(2, 0)]
    pruned = without_specialists(ensemble, [2], moments)
    unseen = images(2, seed=9)
    with torch.no_grad():
        for expected, found in zip(ensemble(unseen), pruned(unseen), strict=True):
            assert snr(expected, found) > 100


def test_a_duplicate_can_go_with_its_original_and_may_be_protected() -> None:
    ensemble = small((3, 3, 3, 3))
    copy_specialist(ensemble, 0, 2)
    batch = images(8)
    moments = plenty(feature_moments(ensemble, [batch]))
    ranked = rank_by_reconstruction(ensemble, moments, protected=[2])
    assert ranked[0].index == 0 and ranked[0].cost < 1e-4
    pruned = without_specialists(ensemble, [0, 2], moments)
    lost = lost_by_lstsq(ensemble, raw(ensemble, batch), [0, 2])
    with torch.no_grad():
        shares = [
            float((expected - found).square().mean() / expected.var((0, 2, 3)).mean())
            for expected, found in zip(ensemble(batch), pruned(batch), strict=True)
        ]
    assert np.mean(shares) == pytest.approx(lost, rel=1e-2)


# Removal


@pytest.mark.parametrize("projection", [False, True])
def test_the_refitted_fusion_is_numpys_least_squares(projection: bool) -> None:
    ensemble = small((3, 5, 3, 3), projection=projection)
    before = {key: value.clone() for key, value in ensemble.state_dict().items()}
    batch = images(16)
    features = raw(ensemble, batch)
    pruned = without_specialists(ensemble, {0, 1}, plenty(feature_moments(ensemble, [batch])))
    with torch.no_grad():
        fused, refitted = ensemble(batch), pruned(batch)
    for level in LEVELS:
        wanted = fused[level].double().movedim(1, -1).flatten(0, 2).numpy()
        rest = features[level][:, owners(ensemble, level) != 0]
        rows = np.hstack([rest, np.ones((len(rest), 1))])
        fit, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
        found = refitted[level].double().movedim(1, -1).flatten(0, 2).numpy()
        np.testing.assert_allclose(found, rows @ fit, atol=2e-3 * wanted.std())
    assert [s.name for s in pruned.spec.specialists] == ["s2", "s3"]
    assert all(torch.equal(before[key], value) for key, value in ensemble.state_dict().items())
    assert len(ensemble.spec.specialists) == 4


@pytest.mark.parametrize("fusion", ["none", "addition"])
def test_without_a_refit_the_rest_stays_as_it_is(fusion: str) -> None:
    ensemble = small(
        fusion=fusion, selection=SelectionSpec(mode="smooth", k=3), normalisation="layer"
    )
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor([0.5, -1, 2]))
    batch = images(2, 64)
    pruned = without_specialists(ensemble, [1], feature_moments(ensemble, [batch]))
    features = raw(ensemble, batch)
    for level, found in enumerate(raw(pruned, batch)):
        np.testing.assert_array_equal(found, features[level][:, owners(ensemble, level) != 1])


def test_removing_none_changes_nothing() -> None:
    batch = images(2, 64)
    same = without_specialists(SMALL, [], feature_moments(SMALL, [batch]))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(SMALL(batch), same(batch), strict=True))


@settings(max_examples=25, deadline=None)
@given(
    weights=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=4, max_size=4),
    k=st.one_of(st.none(), st.integers(1, 4)),
    scaled=st.booleans(),
    removed=st.sets(st.integers(0, 3), max_size=3),
)
def test_the_same_of_the_rest_are_selected(
    weights: list[float], k: int | None, scaled: bool, removed: set[int]
) -> None:
    ensemble = random_ensemble(spec_with(SelectionSpec(k=k, scale_features=scaled)))
    ensemble.encoder_selector.specialists_weights.copy_(torch.tensor(weights))
    factors = ensemble.encoder_selector().tolist()
    kept = [i for i in range(4) if i not in removed]
    moments = [synthetic(sum(ensemble.set_widths(level)), 0, 100) for level in LEVELS]
    if not any(factors[i] for i in kept):
        with pytest.raises(UserError, match="no features left"):
            without_specialists(ensemble, removed, moments)
        return
    pruned = without_specialists(ensemble, removed, moments)
    assert pruned.encoder_selector().tolist() == [factors[i] for i in kept]
    assert (pruned.spec.selection.k is None) == (k is None)
    EnsembleSpec.model_validate_json(pruned.spec.model_dump_json())


def spec_with(selection: SelectionSpec) -> EnsembleSpec:
    return spec_of((3, 3, 3, 3), 3, backbone=SPECK, selection=selection, fusion="none")


def test_all_and_unknown_specialists_cannot_be_removed() -> None:
    moments = feature_moments(SMALL, [images(1, 64)])
    with pytest.raises(UserError, match="without 3 of 3 specialists"):
        without_specialists(SMALL, range(3), moments)
    for unknown in (-1, 3):
        with pytest.raises(UserError, match=f"no specialist {unknown}"):
            without_specialists(SMALL, [unknown], moments)
