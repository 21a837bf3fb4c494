"""Budgets: how they are written, and the ratio that is found for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.timings import write_timings

from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.formats.budget import Budget, parse_budget
from eosfm_edge.pruning.budget import Tried, search
from eosfm_edge.pruning.measured import MeasuredTable

PRECISE = 0.01
MOST = 0.95


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("40ms", "ms", 40), ("0.5 ms", "ms", 0.5), ("5MB", "MB", 5), ("2.5MB", "MB", 2.5),
        ("fidelity=0.98", "fidelity", 0.98), ("fidelity=.9", "fidelity", 0.9),
        ("fidelity=1", "fidelity", 1), ("fidelity=1.0", "fidelity", 1),
    ],
)  # fmt: skip
def test_budgets_are_read(text: str, kind: str, limit: float) -> None:
    budget = parse_budget(text)
    assert (budget.kind, budget.limit) == (kind, limit)
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    ["", "40", "ms", "40s", "-1ms", "0ms", "0MB", "40mb", "5GB", "1e3ms", "nanms", "40ms 5MB",
     "300mJ", "fidelity=1.5", "fidelity=98", "fidelity", "fidelity=-0.5", "fidelity=nan", "0.98"],
)  # fmt: skip
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="the budget is") as error:
        parse_budget(text, ("ms", "MB", "fidelity"))
    assert "40ms, 5MB or fidelity=0.98" in str(error.value)


def find(budget: Budget, value: Callable[[float], float], most: float = 1.0) -> tuple[float, Any]:
    """Search where a ratio stands for its plan, and what is beyond ``most`` cannot be planned."""

    def plan(ratio: float) -> Any:
        if ratio > most:
            raise UserError("hidden channels cannot be pruned so much")
        return ratio

    found, tried = search(budget, plan, value)
    return found, tried  # type: ignore[return-value]


@settings(max_examples=200, deadline=None)
@given(st.floats(1, 100), st.floats(0.2, 3), st.floats(0.01, 0.94))
def test_the_mildest_pruning_that_is_small_enough_is_found(
    whole: float, power: float, wanted: float
) -> None:
    def size(ratio: float) -> float:
        return whole * (1 - ratio) ** power

    budget = Budget("MB", size(wanted))
    ratio, tried = find(budget, size)
    assert size(ratio) <= budget.limit
    assert wanted <= ratio + 1e-9 <= wanted + PRECISE + 2e-9
    assert Tried(ratio, size(ratio)) in tried
    assert tried[0].ratio == 0 and len(tried) <= 9


@settings(max_examples=200, deadline=None)
@given(st.floats(0.5, 3), st.floats(0.01, 0.94), st.floats(0.3, 1))
def test_the_strongest_pruning_that_is_faithful_enough_is_found(
    power: float, wanted: float, most: float
) -> None:
    def fidelity(ratio: float) -> float:
        return 1 - ratio**power

    budget = Budget("fidelity", fidelity(wanted))
    ratio, _ = find(budget, fidelity, most)
    assert fidelity(ratio) >= budget.limit
    assert min(wanted, most, MOST) - PRECISE - 1e-9 <= ratio <= min(wanted, most) + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 0.94), st.floats(0.05, 0.9))
def test_what_cannot_be_planned_does_not_hide_what_can(wanted: float, most: float) -> None:
    budget = Budget("ms", 100 * (1 - wanted))
    if wanted <= most - PRECISE:
        ratio, _ = find(budget, lambda r: 100 * (1 - r), most)
        assert wanted - 1e-9 <= ratio <= wanted + PRECISE
    elif wanted > most:
        with pytest.raises(CheckFailedError):
            find(budget, lambda r: 100 * (1 - r), most)


@settings(deadline=None)
@given(st.floats(1, 1000))
def test_what_is_small_enough_is_left_alone(limit: float) -> None:
    ratio, tried = find(Budget("ms", limit), lambda _: limit)
    assert ratio == 0 and [one.ratio for one in tried] == [0]


def test_a_budget_that_cannot_be_met_says_what_was_measured() -> None:
    with pytest.raises(CheckFailedError) as error:
        find(Budget("ms", 1.0), lambda r: 10 - 5 * r)
    message = str(error.value)
    assert error.value.exit_code == ExitCode.CHECK_FAILED
    assert "no pruning meets the budget 1ms: 10 at ratio 0.00, 7.625 at ratio 0.47" in message
    assert "expected: 1ms" in message


def test_a_fidelity_that_not_even_the_original_has_is_not_met() -> None:
    with pytest.raises(CheckFailedError, match=r"0\.9 at ratio 0\.00"):
        find(Budget("fidelity", 0.95), lambda r: 0.9 - r)


def test_attempts_are_told_as_they_are_made() -> None:
    told: list[Tried] = []
    _, tried = search(Budget("MB", 5), lambda r: r, lambda r: 10 * (1 - r), told.append)  # type: ignore[arg-type,return-value]
    assert told == list(tried) and len(told) > 3


# Timings of another device


def timing(folder: Path, macs: float, *ms: float) -> Path:
    return write_timings(folder / f"{macs:.0f}.json", int(macs), onnxruntime=[1e6], native=ms)


def test_milliseconds_between_two_bundles_are_linear(tmp_path: Path) -> None:
    files = [
        timing(tmp_path, 300e6, 31, 30, 29),
        timing(tmp_path, 100e6, 10, 90, 9),
        timing(tmp_path, 200e6, 15),
    ]
    table = MeasuredTable(files)
    for macs, ms in ((100e6, 10), (150e6, 12.5), (200e6, 15), (260e6, 24), (300e6, 30)):
        assert table.ms(macs) == pytest.approx(ms)
    for macs in (99e6, 301e6):
        with pytest.raises(UserError, match=f"{macs / 1e6:.0f} million .* beyond") as error:
            table.ms(macs)
        assert "100 to 300 million" in str(error.value)


def test_one_bundle_is_no_table(tmp_path: Path) -> None:
    path = timing(tmp_path, 1e6, 3)
    for files in ([], [path], [path, path]):
        with pytest.raises(UserError, match=f"measurements of {len(set(files))} costs"):
            MeasuredTable(files)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("", "t.json"), ("[]", "t.json"), ("not json", "t.json"), ("{}", "machine"),
        ({"macs": "many"}, "macs"), ({"timings": None}, "timings"), ({"timings": []}, "timings"),
        ({"timings": [{"name": "native"}]}, "load_ms"), ({"fun": 1}, "fun"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_timing_is_named_with_its_field(
    tmp_path: Path, found: str | dict[str, Any], said: str
) -> None:
    path = timing(tmp_path, 1, 1)
    whole = json.loads(path.read_text())
    path.rename(tmp_path / "t.json")
    text = found if isinstance(found, str) else json.dumps({**whole, **found})
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=r"t\.json") as error:
        MeasuredTable([tmp_path / "t.json"])
    assert said in str(error.value)


@pytest.mark.parametrize("ms", [[], [0.0], [-1.0], ["1s"]])
def test_milliseconds_that_none_can_be_are_refused(tmp_path: Path, ms: list[Any]) -> None:
    path = write_timings(tmp_path / "t.json", 1, native=ms)
    with pytest.raises(UserError, match=r"t\.json.*round_ms"):
        MeasuredTable([path])


def test_a_timing_of_another_backend_or_without_macs_is_refused(tmp_path: Path) -> None:
    others = write_timings(tmp_path / "others.json", 1, onnxruntime=[1.0])
    without = timing(tmp_path, 1, 1.0)
    without.write_text(json.dumps({**json.loads(without.read_text()), "macs": None}))
    for path in (others, without):
        with pytest.raises(UserError, match="holds no timing of the native engine") as error:
            MeasuredTable([path])
        assert "eosfm-edge bench" in str(error.value)


def test_a_timing_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        MeasuredTable([tmp_path / "nowhere.json"])
