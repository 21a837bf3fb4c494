"""From an ensemble directory to a smaller one, and what stands in the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.scenes import scene_pixels, write_scene
from support.specimens import (
    SPECK,
    ensemble_of,
    imagery_of,
    same_state,
    write_ensemble,
)
from support.tiers import thorough
from support.timings import write_timings

from eosfm_edge.ensemble.cost import ensemble_cost
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.ensemble.specialist import full_shape
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.ensemble.view import EncoderView
from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.ensemble import PruningRecord
from eosfm_edge.formats.plan import plan_text, read_plan
from eosfm_edge.formats.recipe import Criterion, Measure, Recipe
from eosfm_edge.network import distill
from eosfm_edge.network.latency import Footprint, footprints
from eosfm_edge.pruning import measures
from eosfm_edge.pruning.apply import apply_plan
from eosfm_edge.pruning.encoder import pruned_view
from eosfm_edge.pruning.planner import Planner, WholeSpecialists
from eosfm_edge.pruning.prune import PruneOptions, prune_ensemble
from eosfm_edge.pruning.report import PruneReport

SMALL = Recipe(tiles=12, criterion="activation", ranking="uniform")
FULL = Recipe(tiles=24)


def prune(source: Path, scene: Path, output: Path | None, **options: Any) -> PruneReport:
    chosen = PruneOptions(**{"recipe": SMALL, "tile": 64, **options})
    return prune_ensemble(source, [scene], output, chosen)


def content(folder: Path) -> dict[str, str]:
    """The digest of every file, but for the ensemble's name, which is its folder's."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "ensemble.json"
    }


def quiet(*_: object) -> None:
    return None


# Ratios


def test_half_of_the_cost_goes_and_most_of_the_features_stay(
    motes: Path, imagery: Path, tmp_path: Path
) -> None:
    options = PruneOptions(recipe=FULL, ratio=0.5, tile=64)
    report = prune_ensemble(motes, [imagery], tmp_path / "half", options)
    before, after = load_ensemble(motes), load_ensemble(tmp_path / "half")
    share = ensemble_cost(after).macs / ensemble_cost(before).macs
    assert 0.47 <= share <= 0.5
    assert (report.before, report.after) == (ensemble_cost(before), ensemble_cost(after))
    assert report.after is not None and report.after.macs == pytest.approx(report.plan.macs_after)
    assert report.after.params == report.plan.params_after
    assert report.fidelity is not None and min(f.cosine for f in report.fidelity) > 0.9
    full, half = report.footprints
    assert half.megabytes < 0.7 * full.megabytes
    assert full.low_ms <= full.ms <= full.high_ms
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_provenance_says_what_was_done(specks: Path, imagery: Path, tmp_path: Path) -> None:
    report = prune(specks, imagery, tmp_path / "out", ratio=0.3)
    before, after = load_ensemble(specks).spec, load_ensemble(tmp_path / "out").spec
    assert after.name == "out"
    for old, new, one in zip(
        before.specialists, after.specialists, report.plan.specialists, strict=True
    ):
        (record,) = new.pruning
        assert isinstance(record, PruningRecord)
        assert record.parent_sha256 == old.weights_sha256 != new.weights_sha256
        assert new.shape is not None
        assert record.macs_before == EncoderView(3, full_shape(old.backbone)).cost.macs
        assert record.macs_after == EncoderView(3, new.shape).cost.macs == one.macs_after
        assert record.tiles == len(report.tiles.calibration) == 12
        assert record.tiles_sha256 == report.tiles.sha256
        assert (record.criterion, record.ranking) == ("activation", "uniform")
        assert (record.repair, record.seed) == (("grn", "fc2"), 0)
        assert new.provenance == old.provenance


@pytest.mark.parametrize("by", ["macs", "params", "channels"])
def test_a_ratio_is_of_what_the_recipe_says(by: Measure, specks: Path) -> None:
    ensemble, tiles = load_ensemble(specks), imagery_of(8, 1)
    recipe = SMALL.model_copy(update={"by": by})
    plan = Planner(ensemble, tiles, recipe, None, quiet).plan(0.35, "")
    before = [EncoderView(3, full_shape(f"convnextv2_{SPECK}"))] * 2

    def kept(view: EncoderView) -> int:
        return sum(step.hidden for step in view.steps)

    after = [pruned_view(v, one.groups) for v, one in zip(before, plan.specialists, strict=True)]
    share = {
        "macs": plan.macs_after / plan.macs_before,
        "params": plan.params_after / plan.params_before,
        "channels": sum(map(kept, after)) / sum(map(kept, before)),
    }[by]
    assert 0.55 < share <= 0.65
    assert plan.params_after == ensemble_cost(ensemble, after).params


@pytest.mark.parametrize("criterion", ["magnitude", "activation", "taylor", "reconstruction"])
def test_every_criterion_makes_a_plan_that_can_be_carried_out(
    criterion: Criterion, specks: Path
) -> None:
    ensemble, tiles = load_ensemble(specks), imagery_of(8, 1)
    recipe = SMALL.model_copy(update={"criterion": criterion, "ranking": "isomorphic"})
    plan = Planner(ensemble, tiles, recipe, None, quiet).plan(0.3, "")
    pruned = apply_plan(ensemble, plan, tiles)
    assert ensemble_cost(pruned).macs <= 0.7 * ensemble_cost(ensemble).macs


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "activation"])
def test_every_criterion_chooses_widths_too(criterion: Criterion, specks: Path) -> None:
    recipe = SMALL.model_copy(update={"criterion": criterion, "scope": "width"})
    plan = Planner(load_ensemble(specks), imagery_of(8, 1), recipe, None, quiet).plan(0.45, "")
    assert any(group.of == "stages_1" for group in plan.specialists[0].groups)


def test_reconstruction_is_more_faithful_than_magnitude(specks: Path) -> None:
    ensemble, tiles = load_ensemble(specks), imagery_of(24, 3)
    cosines = {}
    for criterion in ("magnitude", "reconstruction"):
        recipe = Recipe(criterion=criterion)
        pruned = apply_plan(
            ensemble, Planner(ensemble, tiles, recipe, None, quiet).plan(0.35, ""), tiles
        )
        batch = torch.stack(tiles.held_out)
        with torch.no_grad():
            errors = [
                float((a - b).square().mean() / a.square().mean())
                for a, b in zip(ensemble(batch), pruned(batch), strict=True)
            ]
        cosines[criterion] = sum(errors)
    assert cosines["reconstruction"] < cosines["magnitude"]


def test_what_was_pruned_can_be_pruned_again(specks: Path, imagery: Path, tmp_path: Path) -> None:
    prune(specks, imagery, tmp_path / "once", ratio=0.2)
    prune(tmp_path / "once", imagery, tmp_path / "twice", ratio=0.2)
    costs = [ensemble_cost(load_ensemble(p)).macs for p in (specks, tmp_path / "twice")]
    assert costs[1] <= 0.8 * 0.8 * costs[0]
    once, twice = (load_ensemble(tmp_path / n).spec.specialists[0] for n in ("once", "twice"))
    assert [record.parent_sha256 for record in twice.pruning] == [
        load_ensemble(specks).spec.specialists[0].weights_sha256,
        once.weights_sha256,
    ]
    assert twice.pruning[1].macs_before == twice.pruning[0].macs_after


def test_wide_specialists_and_a_bad_ratio(specks: Path, imagery: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hidden channels cannot be pruned to") as error:
        prune(specks, imagery, tmp_path / "out", ratio=0.8)
    assert re.search(r"at least \d+\.\d%, which is 8 channels in every block", str(error.value))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="97% of the ensemble cannot be removed"):
        prune(specks, imagery, tmp_path / "out", ratio=0.97)


def test_a_wish_that_cannot_be_met_leaves_nothing(
    specks: Path, imagery: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        prune(specks, imagery, tmp_path / "out", ratio=0.8)
    assert list(tmp_path.iterdir()) == []


def test_an_output_of_any_name_can_be_read(specks: Path, imagery: Path, tmp_path: Path) -> None:
    prune(specks, imagery, tmp_path / "my out", ratio=0.3)
    load_ensemble(tmp_path / "my out")


@pytest.mark.filterwarnings("ignore:specialist:UserWarning")
def test_a_specialist_without_its_bands_is_kept(imagery: Path, tmp_path: Path) -> None:
    source = write_ensemble(tmp_path / "e", ensemble_of((3, 5)))
    report = prune(source, imagery, tmp_path / "out", ratio=0.3)
    assert [one.action for one in report.plan.specialists] == ["prune", "keep"]
    assert "no rule gives it its bands" in report.plan.specialists[1].why
    edited = plan_text(report.plan).replace("action: keep", "action: prune")
    (tmp_path / "p.yaml").write_text(edited)
    with pytest.raises(UserError, match="s1 cannot be pruned: no rule gives it its bands"):
        prune(source, imagery, tmp_path / "other", plan=tmp_path / "p.yaml")


# Plans


@pytest.mark.thorough
def test_a_plan_replayed_gives_the_same_bytes(specks: Path, imagery: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": FULL.model_copy(update={"distill": 3}), "ratio": 0.3}
    prune(specks, imagery, tmp_path / "direct", **options)
    report = prune(specks, imagery, None, save_plan=tmp_path / "p.yaml", **options)
    assert report.after is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["direct", "p.yaml"]
    prune(specks, imagery, tmp_path / "replayed", plan=tmp_path / "p.yaml")
    assert content(tmp_path / "direct") == content(tmp_path / "replayed")
    direct, replayed = (
        (tmp_path / name / "ensemble.json").read_text() for name in ("direct", "replayed")
    )
    assert direct == replayed.replace('"name": "replayed"', '"name": "direct"').replace(
        '"name":"replayed"', '"name":"direct"'
    )


def test_a_plan_of_other_weights_is_refused(specks: Path, imagery: Path, tmp_path: Path) -> None:
    prune(specks, imagery, None, ratio=0.3, save_plan=tmp_path / "p.yaml")
    other = write_ensemble(tmp_path / "other", ensemble_of(seed=5))
    with pytest.raises(UserError, match="the plan is for other weights of s0"):
        prune(other, imagery, tmp_path / "out", plan=tmp_path / "p.yaml")
    assert not (tmp_path / "out.work").exists()


def test_an_edited_plan_is_carried_out(specks: Path, imagery: Path, tmp_path: Path) -> None:
    prune(specks, imagery, None, ratio=0.3, save_plan=tmp_path / "p.yaml")
    text = (tmp_path / "p.yaml").read_text()
    (tmp_path / "p.yaml").write_text(text.replace("action: prune", "action: keep", 1))
    assert read_plan(tmp_path / "p.yaml").specialists[0].action == "keep"
    prune(specks, imagery, tmp_path / "out", plan=tmp_path / "p.yaml")
    before, after = load_ensemble(specks), load_ensemble(tmp_path / "out")
    assert same_state(before.encoders[0], after.encoders[0])
    assert not same_state(before.encoders[1], after.encoders[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to prune was given"),
        ({"ratio": 0.5, "budget": Budget("ms", 4)}, "a ratio and a budget are given"),
        ({"ratio": 0.5, "plan": Path("p.yaml")}, "a plan is given, and what to prune as well"),
        ({"whole": WholeSpecialists(1), "plan": Path("p.yaml")}, "a plan is given"),
        ({"ratio": 0.5, "tile": 65}, "a multiple of 32 from 32 to 1024"),
        ({"ratio": 0.5, "tile": 0}, "a multiple of 32 from 32 to 1024"),
        ({"plan": Path("nowhere.yaml")}, "nowhere.yaml does not exist"),
    ],
)
def test_wishes_that_contradict_themselves(
    specks: Path, imagery: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        prune(specks, imagery, tmp_path / "out", **options)
    assert error.value.exit_code == ExitCode.WRONG_USE
    assert list(tmp_path.iterdir()) == []


# Budgets


def test_megabytes_are_met_by_the_mildest_pruning(
    motes: Path, imagery: Path, tmp_path: Path
) -> None:
    full = footprints([load_ensemble(motes)], torch.zeros(3, 64, 64), "fp32")[0].megabytes
    budget = Budget("MB", 0.8 * full)
    options = PruneOptions(recipe=SMALL, budget=budget, tile=64)
    report = prune_ensemble(motes, [imagery], tmp_path / "out", options)
    assert 0.7 * full < report.footprints[1].megabytes <= 0.8 * full
    assert report.plan.asked == f"budget {budget}"
    assert report.tried[0].value == pytest.approx(full)
    # What was measured of empty shapes is what the pruned one has.
    assert any(tried.value == report.footprints[1].megabytes for tried in report.tried)


def test_a_fidelity_is_kept(specks: Path, imagery: Path, tmp_path: Path) -> None:
    budget = Budget("fidelity", 0.97)
    report = prune(specks, imagery, tmp_path / "out", recipe=FULL, budget=budget)
    assert report.fidelity is not None
    assert min(level.cosine for level in report.fidelity) >= 0.97
    assert report.after is not None and report.before is not None
    assert report.after.macs < 0.95 * report.before.macs
    worse = [t for t in report.tried if t.value < 0.97]
    assert worse, "a stronger pruning was tried and found too strong"


def test_a_budget_that_nothing_meets_writes_nothing(
    specks: Path, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    millisecond = Footprint(1.0, 1.0, 1.0, 1.0, 1000)
    monkeypatch.setattr(measures, "footprints", lambda es, *_: [millisecond for _ in es])
    with pytest.raises(CheckFailedError, match=r"no pruning meets the budget 0\.5ms: 1 at ratio"):
        prune(specks, imagery, tmp_path / "out", budget=Budget("ms", 0.5))
    assert not (tmp_path / "out").exists()


def test_timings_of_another_device_stand_for_this_one(
    specks: Path, imagery: Path, tmp_path: Path
) -> None:
    macs = ensemble_cost(load_ensemble(specks)).macs * 64**2
    files = []
    for share, ms in ((1.0, 10.0), (0.4, 4.0)):
        files.append(write_timings(tmp_path / f"{ms}.json", round(macs * share), native=[ms]))
    report = prune(specks, imagery, None, budget=Budget("ms", 8), measured=files,
                   save_plan=tmp_path / "p.yaml")  # fmt: skip
    assert 0.75 < report.plan.macs_after / report.plan.macs_before <= 0.8


# Whole specialists


def with_duplicate() -> Ensemble:
    ensemble: Any = ensemble_of((3, 3, 3))
    for part in (ensemble.encoders, ensemble.feature_normalizers):
        part[2].load_state_dict(part[0].state_dict())
    return ensemble


def test_useful_ones_stay_and_a_duplicate_is_named(imagery: Path, tmp_path: Path) -> None:
    source = write_ensemble(tmp_path / "e", with_duplicate())
    report = prune(source, imagery, tmp_path / "out", whole=WholeSpecialists(None))
    assert [one.action for one in report.plan.specialists] == ["keep", "keep", "remove"]
    assert "says what s0 says" in report.plan.specialists[2].why
    after = load_ensemble(tmp_path / "out")
    assert [one.name for one in after.spec.specialists] == ["s0", "s1"]
    assert after.spec.specialists[0].pruning == ()
    assert report.fidelity is not None
    assert min(level.cosine for level in report.fidelity) > 0.9999


def test_a_number_of_specialists_stays_and_their_channels_go_too(
    imagery: Path, tmp_path: Path
) -> None:
    source = write_ensemble(tmp_path / "e", with_duplicate())
    report = prune(source, imagery, tmp_path / "one", whole=WholeSpecialists(1))
    assert [one.action for one in report.plan.specialists].count("remove") == 2
    assert len(load_ensemble(tmp_path / "one").spec.specialists) == 1
    report = prune(source, imagery, tmp_path / "two", whole=WholeSpecialists(2), ratio=0.5)
    assert [one.action for one in report.plan.specialists].count("prune") == 2
    assert report.after is not None and report.before is not None
    assert report.after.macs <= 0.5 * report.before.macs


@pytest.mark.parametrize("keep", [0, 4])
def test_numbers_of_specialists_that_cannot_stay(keep: int, imagery: Path, tmp_path: Path) -> None:
    source = write_ensemble(tmp_path / "e", with_duplicate())
    with pytest.raises(UserError, match=f"{keep} specialists shall stay of 3"):
        prune(source, imagery, tmp_path / "out", whole=WholeSpecialists(keep))


# Work in progress


class StopHereError(Exception):
    """The error that interrupts a run here."""


Progress = Callable[[str, int, int], None]


def stopping(what: str, at: int) -> Progress:
    def progress(now: str, done: int, total: int) -> None:
        if now == what and done == at:
            raise StopHereError

    return progress


DISTILLED = SMALL.model_copy(update={"distill": 7})


@pytest.fixture(scope="module")
def small_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "PIXELS_PER_STEP", 2 * 64 * 64)
        patch.setattr(distill, "_SAVE_EVERY", 5)
        yield


@pytest.fixture(scope="module")
def uninterrupted(
    specks: Path, imagery: Path, small_steps: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    whole = tmp_path_factory.mktemp("whole") / "whole"
    prune(specks, imagery, whole, recipe=DISTILLED, ratio=0.3)
    return content(whole)


@pytest.mark.parametrize(
    ("what", "at"),
    [("distill s1", 3), *thorough(("study: s1", 1), ("distill s0", 6), ("repair", 2))],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    specks: Path, imagery: Path, tmp_path: Path, uninterrupted: dict[str, str], what: str, at: int
) -> None:
    options = PruneOptions(recipe=DISTILLED, ratio=0.3, tile=64)
    with pytest.raises(StopHereError):
        prune_ensemble(specks, [imagery], tmp_path / "out", options, stopping(what, at))
    assert [path.name for path in tmp_path.iterdir()] == ["out.work"]
    prune_ensemble(specks, [imagery], tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert content(tmp_path / "out") == uninterrupted


def interrupted(specks: Path, imagery: Path, output: Path, **options: Any) -> None:
    """Leave the work of a run that had finished its first specialist."""
    chosen = PruneOptions(**{"recipe": DISTILLED, "ratio": 0.3, "tile": 64, **options})
    with pytest.raises(StopHereError):
        prune_ensemble(specks, [imagery], output, chosen, stopping("distill s1", 3))


def test_the_work_of_another_wish_is_not_gone_on_with(
    specks: Path, imagery: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    interrupted(specks, imagery, tmp_path / "out", ratio=0.2)
    prune(specks, imagery, tmp_path / "out", recipe=DISTILLED, ratio=0.3)
    assert content(tmp_path / "out") == uninterrupted


def test_the_work_on_other_imagery_is_not_gone_on_with(
    specks: Path, imagery: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    scene = write_scene(tmp_path / "s.tif", scene_pixels(3, 200, 300, seed=5))
    interrupted(specks, scene, tmp_path / "out")
    prune(specks, imagery, tmp_path / "out", recipe=DISTILLED, ratio=0.3)
    assert content(tmp_path / "out") == uninterrupted


@pytest.mark.usefixtures("small_steps")
def test_a_plan_for_another_precision_is_not_gone_on_with(
    specks: Path, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(ensembles: Sequence[Ensemble], tile: object, precision: str) -> list[Any]:
        small = 1 if precision == "fp32" else 0.5
        return [Sized(small * ensemble_cost(e).params / 1e6) for e in ensembles]

    monkeypatch.setattr(measures, "footprints", measure)

    params = ensemble_cost(load_ensemble(specks)).params / 1e6
    options = {"recipe": DISTILLED, "budget": Budget("MB", 0.85 * params), "tile": 64}
    with pytest.raises(StopHereError):
        prune_ensemble(
            specks, [imagery], tmp_path / "out", PruneOptions(**options, precision="int8"),
            stopping("repair", 0),
        )  # fmt: skip
    report = prune_ensemble(
        specks, [imagery], tmp_path / "out", PruneOptions(**options, precision="fp32")
    )
    assert report.plan.params_after <= 0.86 * report.plan.params_before


class Sized:
    """A footprint of which only the megabytes count."""

    def __init__(self, megabytes: float) -> None:
        self.ms = self.low_ms = self.high_ms = 1.0
        self.megabytes = megabytes


def test_an_output_that_is_there_is_replaced_only_when_asked(
    specks: Path, imagery: Path, tmp_path: Path
) -> None:
    prune(specks, imagery, tmp_path / "out", ratio=0.2)
    before = content(tmp_path / "out")
    with pytest.raises(UserError, match="add --overwrite"):
        prune(specks, imagery, tmp_path / "out", ratio=0.3)
    assert content(tmp_path / "out") == before
    prune(specks, imagery, tmp_path / "out", ratio=0.3, overwrite=True)
    assert content(tmp_path / "out") != before


def test_an_output_that_cannot_be_made(specks: Path, imagery: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "out", Path("/proc/out")):
        with pytest.raises(UserError, match="cannot write"):
            prune(specks, imagery, place, ratio=0.3)


def test_the_original_is_not_changed(specks: Path, imagery: Path, tmp_path: Path) -> None:
    before = content(specks)
    prune(specks, imagery, tmp_path / "out", ratio=0.3)
    assert content(specks) == before
    ensemble = load_ensemble(specks)
    state = {k: v.clone() for k, v in ensemble.state_dict().items()}
    tiles = imagery_of(8, 1)
    apply_plan(ensemble, Planner(ensemble, tiles, FULL, None, quiet).plan(0.3, ""), tiles)
    assert all(torch.equal(v, state[k]) for k, v in ensemble.state_dict().items())
