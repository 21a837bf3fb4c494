"""A deployment that is interrupted resumes; one that is done can be made again from its record."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import exit_code, inside, leftovers
from support.scenes import scene_pixels, write_scene

import eosfm_edge as ee
from eosfm_edge.api.imagery import describe_imagery, keep_imagery
from eosfm_edge.api.verbs import deploy as verb
from eosfm_edge.deploying import road
from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.deploy import read_deploy_record
from eosfm_edge.resume import OtherRequestWarning

pytestmark = pytest.mark.usefixtures("quick")

# Of three ratios in int8 the last is within it, so all steps are needed.
BUDGET = "0.23MB"


def options_of(imagery: Path, budget: str = BUDGET) -> ee.DeployOptions:
    return ee.DeployOptions(data=imagery, tile=64, tiles=12, budget=budget)


def digests(bundle: Path) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in read_manifest(bundle).files.items()}


def step_of(what: str) -> str:
    """Return the step of a line of progress: ``prune by 0.5``."""
    return what.removeprefix("deploy: ").partition(",")[0]


@pytest.fixture
def work_done(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what stages finish."""
    done: Counter[str] = Counter()

    def counted(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            found = stage(*arguments)
            done[name] += 1
            return found

        return run

    for name in ("Planner", "prune_ensemble", "calibrate_ensemble", "export_bundle"):
        monkeypatch.setattr(road, name, counted(name, getattr(road, name)))
    return done


@pytest.mark.thorough
def test_an_interruption_at_each_step_costs_no_finished_work(
    motes: Path, imagery: Path, out: Path, tmp_path: Path, work_done: Counter[str]
) -> None:
    seen: list[str] = []
    ee.deploy(
        motes,
        tmp_path / "x.eosfm",
        options_of(imagery),
        progress=lambda what, done, total: seen.append(step_of(what)),
    )
    steps = list(dict.fromkeys(seen))
    assert len(steps) >= 7  # tiles, study, costs, prune, calibrate, judge, export
    once = dict(work_done)
    work_done.clear()

    def stop_at(step: str) -> Callable[[str, int, int], None]:
        def tell(what: str, done: int, total: int) -> None:
            if step_of(what) == step:
                raise KeyboardInterrupt

        return tell

    for step in steps:
        with pytest.raises(KeyboardInterrupt):
            ee.deploy(motes, out / "x.eosfm", options_of(imagery), progress=stop_at(step))
        assert leftovers(out) in ([], ["x.eosfm.work"]), step
    assert leftovers(out) == ["x.eosfm.work"]
    ee.deploy(motes, out / "x.eosfm", options_of(imagery))
    assert leftovers(out) == ["x.eosfm"]
    assert work_done["prune_ensemble"] == once["prune_ensemble"]
    assert work_done["calibrate_ensemble"] == once["calibrate_ensemble"]
    assert work_done["Planner"] == 1


@pytest.mark.thorough
def test_another_budget_resumes_and_other_imagery_begins_anew(
    motes: Path, imagery: Path, out: Path, tmp_path: Path, work_done: Counter[str]
) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if step_of(what).startswith("prune"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ee.deploy(motes, out / "x.eosfm", options_of(imagery), progress=stop)
    assert work_done == {"Planner": 1}
    ee.deploy(motes, out / "x.eosfm", options_of(imagery, "60000ms,fidelity=0.5"))
    assert work_done["Planner"] == 1

    with pytest.raises(KeyboardInterrupt):
        ee.deploy(motes, out / "y.eosfm", options_of(imagery), progress=stop)
    other = write_scene(tmp_path / "other.tif", scene_pixels(3, 400, 600, seed=1))
    with pytest.warns(OtherRequestWarning, match=r"y\.eosfm\.work is of other options or inputs"):
        ee.deploy(motes, out / "y.eosfm", options_of(other, "60000ms"))
    assert work_done["Planner"] == 3
    assert leftovers(out) == ["x.eosfm", "y.eosfm"]


def test_a_budget_that_was_missed_is_raised_without_doing_work_again(
    motes: Path, imagery: Path, out: Path, work_done: Counter[str]
) -> None:
    with pytest.raises(ee.BudgetsNotMetError):
        ee.deploy(motes, out / "x.eosfm", options_of(imagery, f"{BUDGET},fidelity=1"))
    once = dict(work_done)
    ee.deploy(motes, out / "x.eosfm", options_of(imagery, f"{BUDGET},fidelity=0.5"))
    assert work_done == {**once, "export_bundle": 1}
    assert leftovers(out) == ["x.eosfm"]


def test_finished_work_outlives_a_bundle_that_does_not_give_its_known_answer(
    motes: Path,
    imagery: Path,
    out: Path,
    work_done: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(bundle: Path) -> None:
        raise CheckFailedError(f"{bundle.name} gives another answer")

    with monkeypatch.context() as patch:
        patch.setattr(verb, "verify", wrong)
        with pytest.raises(CheckFailedError, match=r"x\.eosfm gives another answer"):
            ee.deploy(motes, out / "x.eosfm", options_of(imagery))
    assert leftovers(out) == ["x.eosfm.work"]
    once = dict(work_done)
    ee.deploy(motes, out / "x.eosfm", options_of(imagery))
    assert work_done == {**once, "export_bundle": once["export_bundle"] + 1}


def test_a_replay_makes_the_same_files(
    motes: Path, imagery: Path, out: Path, tmp_path: Path, work_done: Counter[str]
) -> None:
    report = ee.deploy(motes, out / "x.eosfm", options_of(imagery))
    assert (report.record.ratio, report.record.precision) == (0.5, "int8")
    work_done.clear()
    again = tmp_path / "again" / "x.eosfm"
    record = out / "x.eosfm" / "deploy.yaml"
    inside("deploy", motes, "--replay", record, "--data", imagery, "-o", again)
    assert digests(again) == digests(out / "x.eosfm")
    assert work_done["prune_ensemble"] == work_done["calibrate_ensemble"] == 1


def test_a_replay_reads_what_is_kept_with_the_ensemble_as_it_was_read(
    motes: Path, imagery: Path, out: Path, tmp_path: Path
) -> None:
    ensemble = shutil.copytree(motes, tmp_path / "motes")
    moved = shutil.copy(imagery, tmp_path / "moved.tif")
    keep_imagery(ensemble, describe_imagery([imagery], seed=4))
    options = ee.DeployOptions(tile=64, tiles=12, budget="60000ms", nodata=-1)
    ee.deploy(ensemble, out / "x.eosfm", options)
    record = out / "x.eosfm" / "deploy.yaml"
    assert "path: scene.tif" in record.read_text()
    assert str(tmp_path) not in record.read_text() and str(imagery.parent) not in record.read_text()
    for data in ((), ("--data", moved)):
        again = tmp_path / f"again{len(data)}" / "x.eosfm"
        inside("deploy", ensemble, "--replay", record, *data, "-o", again)
        assert digests(again)["deploy.yaml"] == digests(out / "x.eosfm")["deploy.yaml"]
        assert read_manifest(again).input[0].nodata == read_manifest(record.parent).input[0].nodata
    other = write_scene(tmp_path / "other.tif", scene_pixels(3, 400, 600, seed=1))
    keep_imagery(ensemble, describe_imagery([other], seed=4))
    with pytest.raises(UserError, match=r"deploy\.yaml is not kept with .*: scene\.tif"):
        inside("deploy", ensemble, "--replay", record, "-o", tmp_path / "c.eosfm")


@pytest.fixture
def recorded(motes: Path, imagery: Path, tmp_path: Path) -> Path:
    """The record of a deployment that prunes nothing."""
    ee.deploy(motes, tmp_path / "made" / "x.eosfm", options_of(imagery, "60000ms"))
    return tmp_path / "made" / "x.eosfm" / "deploy.yaml"


def test_a_replay_of_something_else_is_refused(
    recorded: Path,
    motes: Path,
    specks: Path,
    imagery: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = write_scene(tmp_path / "other.tif", scene_pixels(3, 400, 600, seed=1))
    edited = tmp_path / "edited.yaml"
    content = yaml.safe_load(recorded.read_text())
    edited.write_text(yaml.safe_dump({**content, "ratio": 0.3}))
    for arguments, message in (
        (
            (specks, "--replay", recorded, "--data", imagery),
            "is not the ensemble that was deployed",
        ),
        ((motes, "--replay", recorded, "--data", other), "other tiles were drawn than"),
        ((motes, "--replay", recorded), "add --data scene.tif, with the path of each"),
        ((motes, "--replay", recorded, "--budget", "4ms"), "--replay and --budget are given"),
        ((motes, "--replay", recorded, "--tiles", 4), "--replay and --tiles are given"),
        ((motes, "--replay", imagery), "is not YAML"),
        ((motes, "--replay", edited, "--data", imagery), "fp32 at ratio 0.3 is not there"),
        ((motes, "--replay", tmp_path / "none.yaml"), "none.yaml does not exist"),
    ):
        assert exit_code("deploy", *arguments, "-o", out / "y.eosfm") == ExitCode.WRONG_USE
        assert message in capsys.readouterr().err
        assert leftovers(out) == []
    replaced = recorded.parent
    data = ("--data", imagery)
    arguments = (motes, "--replay", recorded, *data, "--overwrite", "-o", replaced)
    assert exit_code("deploy", *arguments) == ExitCode.WRONG_USE
    assert "is in the output" in capsys.readouterr().err
    assert read_deploy_record(recorded).ratio == 0
