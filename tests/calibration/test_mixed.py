"""Mixed precision: which layers are given up, in which order, and when none helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from support.specimens import encoder_of, tiles_of
from support.tiers import thorough

from eosfm_edge.calibration.judge import Judge, Levels
from eosfm_edge.calibration.mixed import Budget, fit_depthwise, fit_matrices
from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.calibration.sensitivity import Sensitivity, sensitivities
from eosfm_edge.formats.calibration import LevelFidelity
from eosfm_edge.network.deployed import NATIVE, TENSORRT, DeployedEncoder, Depthwise

TILES = tiles_of(6)
BATCHES = [torch.stack(TILES)]
IMPOSSIBLE = Budget(1.1)
Precisions = dict[str, str]


class Witness(Judge):
    """A judge who writes down the precisions of what is judged, and which levels failed."""

    def __init__(self, encoder: DeployedEncoder, exact: Sequence[Levels], budget: Budget) -> None:
        super().__init__(exact)
        self.encoder, self.budget = encoder, budget
        self.seen: list[tuple[Precisions, list[int]]] = []

    def compare(self, found: Sequence[Levels]) -> tuple[LevelFidelity, ...]:
        levels = super().compare(found)
        self.seen.append((precisions(self.encoder), self.budget.failing(levels)))
        return levels


@dataclass
class Case:
    """An encoder that is ready to be fitted."""

    encoder: DeployedEncoder
    judge: Witness
    sensitivity: Sensitivity
    budget: Budget

    def matrices(self) -> tuple[LevelFidelity, ...]:
        return fit_matrices(self.encoder, BATCHES, self.judge, self.sensitivity, self.budget)

    def depthwise(self) -> tuple[LevelFidelity, ...]:
        return fit_depthwise(self.encoder, BATCHES, self.judge, self.sensitivity, self.budget)


def precisions(encoder: DeployedEncoder) -> Precisions:
    return {name: layer.precision for name, layer in encoder.layers().items()}


@torch.inference_mode()
def case(budget: Budget, seed: int = 0) -> Case:
    encoder = DeployedEncoder(encoder_of(seed))
    exact = [encoder(batch) for batch in BATCHES]
    set_scales(encoder, BATCHES, "minmax", 0)
    sensitivity = sensitivities(encoder, BATCHES, lambda levels: levels)
    encoder.form = NATIVE
    return Case(encoder, Witness(encoder, exact, budget), sensitivity, budget)


def worst(levels: Sequence[LevelFidelity]) -> float:
    return min(level.cosine for level in levels)


def split(of: Precisions) -> tuple[list[str], list[str]]:
    """Return the precisions of matrices, and those of depthwise convolutions."""
    return (
        [precision for name, precision in of.items() if not name.endswith("conv_dw")],
        [precision for name, precision in of.items() if name.endswith("conv_dw")],
    )


# Matrices


def test_a_loose_budget_leaves_all_int8() -> None:
    loose = case(Budget(0.9))
    levels = loose.matrices()
    matrices, depthwise = split(precisions(loose.encoder))
    assert set(matrices) == {"int8"} and set(depthwise) == {"half"}
    assert loose.encoder.form is NATIVE
    assert levels == loose.judge.compare([loose.encoder(batch) for batch in BATCHES])
    assert worst(levels) < 0.99999


@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
def test_a_budget_that_int8_misses_is_met_with_some_of_it(seed: int) -> None:
    least = worst(case(Budget(0.0), seed).matrices())
    tight = case(Budget(1 - (1 - least) / 3), seed)
    levels = tight.matrices()
    assert worst(levels) >= tight.budget.min_cosine > least
    matrices, depthwise = split(precisions(tight.encoder))
    assert 0 < matrices.count("int8") < len(matrices)
    assert set(depthwise) == {"half"}
    # What is returned is what is there.
    assert levels == tight.judge.compare([tight.encoder(batch) for batch in BATCHES])


@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
def test_the_costliest_goes_first_and_one_at_a_time(seed: int) -> None:
    never = case(Budget(0.999995), seed)
    never.matrices()
    seen = never.judge.seen
    assert len(seen) > 5 and set(split(seen[0][0])[0]) == {"int8"}
    for (before, failing), (after, _) in pairwise(seen):
        (changed,) = [name for name in before if before[name] != after[name]]
        rung = "int8" if "int8" in before.values() else "half"
        assert (before[changed], after[changed]) == (rung, {"int8": "half", "half": "fp32"}[rung])
        costs = {
            name: sum(10 ** (-never.sensitivity[name][level] / 10) for level in failing)
            for name, precision in before.items()
            if precision == rung and not name.endswith("conv_dw")
        }
        assert costs[changed] == max(costs.values())


def test_an_impossible_budget_ends_in_fp32_and_says_so() -> None:
    impossible = case(IMPOSSIBLE)
    levels = impossible.matrices()
    matrices, depthwise = split(precisions(impossible.encoder))
    assert set(matrices) == {"fp32"} and set(depthwise) == {"half"}
    assert IMPOSSIBLE.failing(levels) == [0, 1, 2, 3]
    assert len(impossible.judge.seen) == 2 * len(matrices) + 1
    assert 0.99999 < worst(levels) < 1  # hidden tensors are bf16 still


def test_a_drop_is_kept_as_well_as_a_cosine() -> None:
    drops = [level.drop for level in case(Budget(0.0)).matrices()]
    assert max(drops) > 0
    strict = case(Budget(0.0, max(drops) / 3))
    levels = strict.matrices()
    assert max(level.drop for level in levels) <= max(drops) / 3
    assert "half" in split(precisions(strict.encoder))[0]


def test_where_it_starts_from_does_not_matter() -> None:
    fresh, used = case(Budget(0.9998)), case(Budget(0.9998))
    for layer in used.encoder.layers().values():
        layer.precision = "half"
    assert fresh.matrices() == used.matrices()
    assert precisions(fresh.encoder) == precisions(used.encoder)


# Depthwise convolutions


def test_a_loose_budget_makes_all_depthwise_convolutions_int8() -> None:
    loose = case(Budget(0.9))
    native = loose.matrices()
    levels = loose.depthwise()
    matrices, depthwise = split(precisions(loose.encoder))
    assert set(matrices) == set(depthwise) == {"int8"}
    assert loose.encoder.form is NATIVE
    assert levels != native
    loose.encoder.form = TENSORRT
    assert levels == loose.judge.compare([loose.encoder(batch) for batch in BATCHES])
    # In libeosfm's form they are what they were.
    loose.encoder.form = NATIVE
    assert native == loose.judge.compare([loose.encoder(batch) for batch in BATCHES])


def test_depthwise_convolutions_are_given_up_for_the_budget() -> None:
    loose = case(Budget(0.0))
    loose.matrices()
    all_int8 = worst(loose.depthwise())
    for layer in loose.encoder.layers().values():
        if isinstance(layer, Depthwise):
            layer.precision = "half"
    loose.encoder.form = TENSORRT
    none_int8 = worst(loose.judge.compare([loose.encoder(batch) for batch in BATCHES]))
    assert none_int8 > all_int8

    tight = case(Budget(0.0))
    tight.matrices()
    tight.budget = tight.judge.budget = Budget((all_int8 + none_int8) / 2)
    tight.judge.seen.clear()
    assert worst(tight.depthwise()) >= tight.budget.min_cosine
    matrices, depthwise = split(precisions(tight.encoder))
    assert set(matrices) == {"int8"} and set(depthwise) == {"int8", "half"}
    for (before, failing), (after, _) in pairwise(tight.judge.seen):
        (changed,) = [name for name in before if before[name] != after[name]]
        costs = {
            name: sum(10 ** (-tight.sensitivity[name][level] / 10) for level in failing)
            for name, precision in before.items()
            if precision == "int8" and name.endswith("conv_dw")
        }
        assert costs[changed] == max(costs.values())


def test_where_nothing_helps_no_depthwise_convolution_is_int8() -> None:
    impossible = case(Budget(0.9))
    impossible.matrices()
    impossible.budget = impossible.judge.budget = IMPOSSIBLE
    levels = impossible.depthwise()
    matrices, depthwise = split(precisions(impossible.encoder))
    assert set(matrices) == {"int8"} and set(depthwise) == {"half"}
    assert IMPOSSIBLE.failing(levels) and impossible.encoder.form is NATIVE
