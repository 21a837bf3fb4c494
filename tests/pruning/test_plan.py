"""Plans as files: what is written is read again, and what is edited is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.specimens import ensemble_of, imagery_of, same_state

from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import shape_of
from eosfm_edge.errors import UserError
from eosfm_edge.formats.plan import (
    GroupPlan,
    Plan,
    plan_text,
    read_plan,
    require_plan_fits,
    write_plan,
)
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.pruning.apply import apply_plan
from eosfm_edge.pruning.planner import Planner
from eosfm_edge.text import runs_of_numbers

TILES = imagery_of(8, 1)
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return ensemble_of()


@pytest.fixture(scope="module")
def plan(ensemble: Ensemble) -> Plan:
    recipe = Recipe(criterion="activation", ranking="uniform")
    return Planner(ensemble, TILES, recipe, None, lambda *_: None).plan(0.3, "ratio 0.3 by macs")


def edited(plan: Plan, folder: Path, edit: Edit) -> Plan:
    content = yaml.safe_load(plan_text(plan))
    edit(content)
    (folder / "plan.yaml").write_text(yaml.safe_dump(content))
    return read_plan(folder / "plan.yaml")


def refusal(ensemble: Ensemble, plan: Plan, folder: Path, edit: Edit) -> str:
    """Return what is said of a plan that was edited, when it is read or when it is applied."""
    with pytest.raises(UserError) as error:
        apply_plan(ensemble, edited(plan, folder, edit), TILES)
    return str(error.value)


# Channels


@given(st.sets(st.integers(0, 5000)))
def test_channels_are_read_as_they_are_written(channels: set[int]) -> None:
    group = GroupPlan(of="stages_0", keeps=8, removes=tuple(sorted(channels)), error=0)
    text = yaml.safe_dump(group.model_dump(mode="json"))
    assert GroupPlan.model_validate(yaml.safe_load(text)) == group


@given(st.sets(st.integers(0, 30)))
def test_channels_in_a_row_are_written_as_a_range(channels: set[int]) -> None:
    text = runs_of_numbers(sorted(channels))
    assert len(text.split()) == len({c for c in channels if c - 1 not in channels})


def removed(value: object) -> tuple[int, ...]:
    return GroupPlan.model_validate(
        {"of": "stages_0", "keeps": 8, "removes": value, "error": 0}
    ).removes


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0-3 7 12-13", (0, 1, 2, 3, 7, 12, 13)),
        ("7 0-1", (0, 1, 7)),
        ("3 3 2-4", (2, 3, 4)),
        ("", ()),
        (7, (7,)),
        ([1, 2], (1, 2)),
        ([2, 1, 2], (1, 2)),
    ],
)
def test_channels_may_be_written_by_people(written: object, expected: tuple[int, ...]) -> None:
    assert removed(written) == expected


@pytest.mark.parametrize("written", ["a", "1,2", "-3", "3-", "1.5", "5-2", [-1], ["x"], None, 1.5])
def test_what_is_no_channel_is_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        removed(written)


# Files


def test_a_plan_is_read_as_it_was_written(plan: Plan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "p.yaml")
    again = read_plan(tmp_path / "p.yaml")
    assert again == plan
    assert plan_text(again) == plan_text(plan)
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


@pytest.mark.parametrize(
    ("edit", "place"),
    [
        (lambda p: p.update(colour="blue"), "colour"),
        (lambda p: p["recipe"].update(strength=3), "recipe.strength"),
        (lambda p: p["specialists"][1].update(mood="good"), "specialists.1.mood"),
        (lambda p: p["specialists"][0]["groups"][2].update(x=1), "specialists.0.groups.2.x"),
        (lambda p: p["specialists"][0].update(action="eat"), "specialists.0.action"),
        (lambda p: p["specialists"][0]["groups"][0].update(of="fc"), "specialists.0.groups.0.of"),
        (lambda p: p["specialists"][0]["groups"][1].update(removes="3-x"), "groups.1.removes"),
        (lambda p: p.pop("specialists"), "specialists"),
        (lambda p: p.update(schema_version=2), "schema_version"),
    ],
)
def test_a_wrong_field_is_named(plan: Plan, tmp_path: Path, edit: Edit, place: str) -> None:
    with pytest.raises(UserError, match=r"plan\.yaml is not a pruning plan: ") as error:
        edited(plan, tmp_path, edit)
    assert place in str(error.value)


def test_a_file_that_is_no_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.yaml does not exist"):
        read_plan(tmp_path / "nowhere.yaml")
    for content, complaint in ((b"a: [", "is not YAML"), (b"\xff\xfe\xfd", "is not YAML")):
        (tmp_path / "p.yaml").write_bytes(content)
        with pytest.raises(UserError, match=complaint):
            read_plan(tmp_path / "p.yaml")
    (tmp_path / "p.yaml").write_bytes(b"just text")
    with pytest.raises(UserError, match="is not a pruning plan"):
        read_plan(tmp_path / "p.yaml")
    with pytest.raises(UserError, match="cannot read"):
        read_plan(tmp_path)


def test_a_place_that_cannot_be_written_is_named(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=r"cannot write .*p\.yaml"):
        write_plan(plan, tmp_path / "file" / "p.yaml")
    with pytest.raises(UserError, match=r"cannot write .*p\.yaml"):
        write_plan(plan, tmp_path / "nowhere" / "p.yaml")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_plan_that_is_there_stays_whole_when_the_new_one_cannot_be_written(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "p.yaml"
    write_plan(plan, target)
    before = target.read_text()

    def full(self: Path, text: str, **_: object) -> int:
        with self.open("w") as stream:
            stream.write(text[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_plan(plan.model_copy(update={"asked": "something else"}), target)
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]
    assert target.read_text() == before


# Fit


def test_a_plan_of_other_specialists_or_weights_does_not_fit(plan: Plan) -> None:
    names, digests = ["s0", "s1"], ["0" * 64] * 2
    require_plan_fits(plan, names, digests)
    for others in (["s0"], ["s1", "s0"], ["s0", "s1", "s2"]):
        with pytest.raises(UserError, match="the plan is for the specialists s0, s1"):
            require_plan_fits(plan, others, ["0" * 64] * len(others))
    with pytest.raises(UserError, match="the plan is for other weights of s1") as error:
        require_plan_fits(plan, names, ["0" * 64, "1" * 64])
    assert "found " + "1" * 64 in str(error.value)


def group_edit(**values: object) -> Edit:
    return lambda p: p["specialists"][1]["groups"][0].update(values)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (group_edit(removes="0-6"), "leaves 25 channels of stages_0.blocks.0 of s1"),
        (group_edit(removes="0-31"), "leaves 0 channels of stages_0.blocks.0 of s1"),
        (group_edit(removes="25-32"), "removes channel 32 of stages_0.blocks.0 of s1"),
        (group_edit(of="stages_0.blocks.7"), "prunes stages_0.blocks.7 of s1, which is not there"),
        (group_edit(of="stages_0", removes="0-7"), "leaves 0 channels of stages_0 of s1"),
    ],
)
def test_channels_that_cannot_go_are_named(
    ensemble: Ensemble, plan: Plan, tmp_path: Path, edit: Edit, message: str
) -> None:
    assert message in refusal(ensemble, plan, tmp_path, edit)


def test_a_place_that_is_named_twice_is_refused(
    ensemble: Ensemble, plan: Plan, tmp_path: Path
) -> None:
    def twice(content: dict[str, Any]) -> None:
        groups = content["specialists"][1]["groups"]
        groups.append(dict(groups[0], removes="0-7"))

    assert "stages_0.blocks.0 of s1" in refusal(ensemble, plan, tmp_path, twice)


# Replay


def test_a_specialist_that_shall_be_kept_is_kept(
    ensemble: Ensemble, plan: Plan, tmp_path: Path
) -> None:
    kept = edited(plan, tmp_path, lambda p: p["specialists"][0].update(action="keep"))
    pruned: Any = apply_plan(ensemble, kept, TILES)
    assert same_state(pruned.encoders[0], ensemble.encoders[0])
    assert shape_of(pruned.encoders[1]) != shape_of(ensemble.encoders[1])
    assert [len(one.pruning) for one in pruned.spec.specialists] == [0, 1]
    assert pruned.spec.specialists[0] == ensemble.spec.specialists[0]


def test_a_specialist_that_shall_go_goes(ensemble: Ensemble, plan: Plan, tmp_path: Path) -> None:
    without = edited(plan, tmp_path, lambda p: p["specialists"][0].update(action="remove"))
    pruned = apply_plan(ensemble, without, TILES)
    assert [one.name for one in pruned.spec.specialists] == ["s1"]


def test_what_goes_is_what_removes_says(ensemble: Ensemble, plan: Plan, tmp_path: Path) -> None:
    mine = edited(plan, tmp_path, group_edit(removes="0-15", keeps=999))
    pruned: Any = apply_plan(ensemble, mine, TILES)
    fc1 = "stages_0.blocks.0.mlp.fc1.weight"
    after, before = (e.encoders[1].state_dict()[fc1] for e in (pruned, ensemble))
    assert after.equal(before[16:])


def test_provenance_counts_what_an_edited_plan_really_left(
    ensemble: Ensemble, plan: Plan, tmp_path: Path
) -> None:
    def spare(content: dict[str, Any]) -> None:
        content["specialists"][1]["groups"] = content["specialists"][1]["groups"][:1]

    pruned = apply_plan(ensemble, edited(plan, tmp_path, spare), TILES)
    record = pruned.spec.specialists[1].pruning[-1]
    assert record.macs_after > plan.specialists[1].macs_after
    assert record.macs_before == plan.specialists[1].macs_before


def test_what_a_plan_saves_is_what_its_groups_say(ensemble: Ensemble, plan: Plan) -> None:
    assert [one.name for one in plan.specialists] == ["s0", "s1"]
    for one in plan.specialists:
        assert one.action == "prune"
        assert one.macs_after < one.macs_before
        assert one.params_after < one.params_before
    assert plan.macs_after <= 0.7 * plan.macs_before
    assert plan.macs_after == pytest.approx(
        plan.macs_before - sum(one.macs_before - one.macs_after for one in plan.specialists)
    )
