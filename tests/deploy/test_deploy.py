"""``deploy``: from an ensemble to a bundle within budgets, in one command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.command import exit_code, inside, leftovers

import eosfm_edge as ee
from eosfm_edge.api.imagery import describe_imagery, keep_imagery
from eosfm_edge.deploying import road
from eosfm_edge.errors import ExitCode
from eosfm_edge.formats.budget import parse_budgets
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.deploy import DeployCandidate, read_deploy_record, verdict_of
from eosfm_edge.pruning import promise

SMALL = ("--tile", 64, "--tiles", 12)

pytestmark = pytest.mark.usefixtures("quick")


def deploy(ensemble: Path, imagery: Path, output: Path, **options: Any) -> ee.DeployReport:
    """Deploy with small tiles."""
    chosen = ee.DeployOptions(**{"data": imagery, "tile": 64, "tiles": 12, **options})
    return ee.deploy(ensemble, output, chosen)


def test_a_bundle_within_budgets_is_written_verified_and_run(
    motes: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = out / "six.eosfm"
    limits = ("--budget", "1000ms,0.4MB", "--budget", "fidelity=0.5", "--max-drop", 90)
    inside("deploy", motes, "--data", imagery, *SMALL, *limits, "-o", bundle)
    printed = capsys.readouterr().out.splitlines()
    record = read_deploy_record(bundle / "deploy.yaml")
    assert printed[-1] == record.verdict.summary
    assert printed[-1].endswith(" dB at worst: within budget") and "(measured)" in printed[-1]
    assert leftovers(out) == ["six.eosfm"]

    manifest = read_manifest(bundle)
    assert manifest.files["deploy.yaml"].role == "record"
    native = [manifest.files[name] for name in manifest.of_role("common", "native")]
    assert sum(entry.size for entry in native) <= 0.4e6
    taken = record.candidate(record.ratio, record.precision)
    assert taken.cosine and taken.cosine >= 0.5
    assert (record.precision, manifest.precision) == (manifest.precision, record.precision)
    pruned = manifest.specialists[0].pruning
    assert bool(pruned) == (record.ratio > 0)
    inside("verify", bundle)
    inside("run", bundle, imagery, "-o", out / "features")
    assert (out / "features" / "level4.tif").exists()


def test_what_is_within_budget_already_is_not_pruned(
    specks: Path, imagery: Path, out: Path
) -> None:
    report = deploy(specks, imagery, out / "x.eosfm", budget="60000ms")
    assert (report.record.ratio, report.record.precision) == (0.0, "fp32")
    assert report.record.verdict.times_smaller == 1.0
    assert not report.manifest.specialists[0].pruning
    # The others cost more than they can bring: none of them was made.
    assert sum(one.cosine is not None for one in report.record.candidates) == 1


@pytest.mark.thorough
def test_fidelity_alone_is_kept_as_fast_as_it_can_be(motes: Path, imagery: Path, out: Path) -> None:
    record = deploy(motes, imagery, out / "x.eosfm", budget="fidelity=0.9").record
    good = [one for one in record.candidates if one.cosine and one.cosine >= 0.9]
    taken = record.candidate(record.ratio, record.precision)
    assert taken in good
    assert taken.milliseconds == min(one.milliseconds or 0 for one in good)
    assert {one.ratio for one in record.candidates} == {0.0, 0.25, 0.5}


def test_an_impossible_budget_leaves_nothing_and_names_the_nearest(
    motes: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("deploy", motes, "--data", imagery, *SMALL, "--budget", "0.01MB")
    assert exit_code(*arguments, "-o", out / "x.eosfm") == ExitCode.CHECK_FAILED
    printed = capsys.readouterr()
    assert "no candidate is within 0.01MB" in printed.err
    assert "0.01MB: 0." in printed.err and "by int8 pruned by 0.5" in printed.err
    assert "int8" in printed.out  # the candidates
    assert "resumes from what is finished" in printed.err
    assert leftovers(out) == ["x.eosfm.work"]

    assert exit_code(*arguments, "--json", "-o", out / "x.eosfm") == ExitCode.CHECK_FAILED
    found = json.loads(capsys.readouterr().out)
    assert found["output"] is None and len(found["candidates"]) == 9


@pytest.mark.thorough
def test_a_fidelity_that_a_budget_of_cost_does_not_leave_fails(
    motes: Path, imagery: Path, out: Path
) -> None:
    with pytest.raises(ee.BudgetsNotMetError, match=r"no candidate is within 0\.25MB, fidelity=1"):
        deploy(motes, imagery, out / "x.eosfm", budget="0.25MB,fidelity=1")
    assert leftovers(out) == ["x.eosfm.work"]


def test_json_holds_the_verdict_and_the_record(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("deploy", specks, "--data", imagery, *SMALL, "--budget", "60000ms", "--json")
    inside(*arguments, "-o", out / "x.eosfm")
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"]["summary"].endswith("within budget")
    assert found["record"] == read_deploy_record(out / "x.eosfm" / "deploy.yaml").model_dump(
        mode="json"
    )
    assert found["manifest"]["files"]["deploy.yaml"]["role"] == "record"
    assert found["next_step"].startswith("run it: eosfm-edge run ")


def test_the_ensemble_the_imagery_and_the_output_need_not_be_named(
    motes: Path, imagery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(motes, out / "six")
    keep_imagery(out / "six", describe_imagery([imagery], seed=5))
    monkeypatch.chdir(out)
    inside("deploy", *SMALL, "--budget", "60000ms")
    assert leftovers(out) == ["six", "six-cpu.eosfm"]
    record = read_deploy_record(out / "six-cpu.eosfm" / "deploy.yaml")
    assert record.imagery == describe_imagery([imagery], seed=5).without_places()


@pytest.mark.thorough
def test_what_fails_the_checks_of_the_export_is_not_taken(
    motes: Path, imagery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = road.export_bundle

    def fails_in_int8(*arguments: Any) -> Any:
        if arguments[3].precision == "int8":
            raise ee.CheckFailedError("int8 differs too much")
        return export(*arguments)

    monkeypatch.setattr(road, "export_bundle", fails_in_int8)
    # Only by int8 is it within that without pruning.
    record = deploy(motes, imagery, out / "x.eosfm", budget="0.35MB").record
    assert record.candidate(0.0, "int8").failed == "int8 differs too much"
    assert record.precision != "int8" and record.ratio > 0
    assert leftovers(out) == ["x.eosfm"]


@pytest.mark.thorough
def test_files_are_held_to_the_budget_as_they_are_written(
    specks: Path, imagery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = road.time_encoders
    monkeypatch.setattr(
        road, "time_encoders", lambda *a: [replace(one, native_bytes=999) for one in timed(*a)]
    )
    with pytest.raises(ee.BudgetsNotMetError, match=r"its files are of 0\.\d+ MB"):
        deploy(specks, imagery, out / "x.eosfm", budget="0.001MB")
    assert leftovers(out) == ["x.eosfm.work"]


def test_pruning_is_held_to_its_promise_where_no_fidelity_is_asked_for(
    motes: Path, imagery: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promise, "_DECIBELS", (99.0, 99.0, 99.0))
    with pytest.raises(ee.BudgetsNotMetError, match="does not keep the fidelity that is promised"):
        deploy(motes, imagery, out / "x.eosfm", budget="0.23MB")
    deploy(motes, imagery, out / "x.eosfm", budget="0.23MB,fidelity=0.5")
    assert leftovers(out) == ["x.eosfm"]


def test_a_verdict_names_the_budgets_that_are_missed() -> None:
    before = DeployCandidate(ratio=0, precision="fp32", milliseconds=9, times_as_fast=1, size=900)
    after = DeployCandidate(
        ratio=0.5,
        precision="int8",
        milliseconds=3,
        times_as_fast=3,
        size=300,
        cosine=0.9,
        sqnr_db=28.6,
        drop=2,
    )
    budgets = parse_budgets(["2ms,1MB,fidelity=0.98"])
    found = verdict_of(before, after, budgets, 1.0, "expected")
    assert found.summary == (
        "3.0\N{MULTIPLICATION SIGN} as fast (expected), 3.0\N{MULTIPLICATION SIGN} smaller, "
        "29 dB at worst: over 2ms, fidelity=0.98, a drop of 1 %"
    )
    assert verdict_of(before, after, budgets[1:2], 2.0, "measured").summary.endswith(
        "29 dB at worst: within budget"
    )
