"""Targets of deployments: their speed and energy as far as they are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import exit_code, inside, leftovers

import eosfm_edge as ee
from eosfm_edge.errors import ExitCode
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.deploy import read_deploy_record
from eosfm_edge.targets.expectation import expected_time

pytestmark = pytest.mark.usefixtures("quick")

BOARD: dict[str, Any] = {
    "schema_version": 1,
    "name": "our-board",
    "summary": "a board of ours",
    "architecture": "x86_64",
    "engine": "onnxruntime",
    "precisions": ["fp32", "bf16", "int8"],
    "peak_tops": {"fp32": 1e-3, "int8": 4e-3},
    "bandwidth_gbs": 1.0,
    "power_modes": [{"name": "low", "watts": 2}, {"name": "high", "watts": 5}],
    "experience": "none",
    "sources": {"peak_tops": "a", "bandwidth_gbs": "b", "power_modes": "c"},
}


def write_board(folder: Path, *without: str) -> Path:
    board = {key: value for key, value in BOARD.items() if key not in without}
    board["sources"] = {key: one for key, one in board["sources"].items() if key not in without}
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump(board))
    return path


def deploy(ensemble: Path, imagery: Path, output: Path, **options: Any) -> ee.DeployReport:
    return ee.deploy(ensemble, output, ee.DeployOptions(data=imagery, tile=64, tiles=12, **options))


def test_the_time_and_energy_of_another_board_are_expected_by_its_data_sheet(
    motes: Path, imagery: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = write_board(tmp_path)
    report = deploy(motes, imagery, out / "x.eosfm", target=board, budget="8mJ,1000ms")
    record = report.record
    assert record.timing == "expected"
    first = record.candidate(0.0, "fp32")
    assert first.milliseconds is not None and first.millijoules is not None
    assert first.millijoules == pytest.approx(5 * first.milliseconds)  # the last mode's watts
    taken = record.candidate(record.ratio, record.precision)
    assert taken.times_as_fast == pytest.approx(first.milliseconds / (taken.milliseconds or 0))
    assert f"{taken.times_as_fast:.1f}" in record.verdict.summary
    assert "as fast (expected)" in record.verdict.summary
    assert (taken.millijoules or 9) <= 8 < first.millijoules
    # As the target's own function has it, of the bundle that was written.
    manifest = read_manifest(out / "x.eosfm")
    assert manifest.macs is not None and manifest.profile is not None
    bound = expected_time(manifest.profile, record.precision, manifest.macs, taken.size)
    assert bound is not None
    assert taken.milliseconds == pytest.approx(bound.milliseconds, rel=1e-3)
    # Nothing is known of bf16 there, so that no budget of time is met by it.
    assert all(one.milliseconds is None for one in record.candidates if one.precision == "bf16")
    assert report.next_step == "on our-board: eosfm-edge verify x.eosfm"
    # A replay needs no profile beside the record, not for the output's name either.
    board.unlink()
    monkeypatch.chdir(shutil.copytree(motes, tmp_path / "six"))
    inside("deploy", "--replay", out / "x.eosfm" / "deploy.yaml", "--data", imagery)
    again = read_deploy_record(tmp_path / "six-our-board.eosfm" / "deploy.yaml")
    assert again == record


@pytest.mark.parametrize(
    ("without", "budget", "message"),
    [
        ("peak_tops", "40ms", "does not say how fast it is"),
        ("peak_tops", "40mJ", "does not say how fast it is"),
        ("power_modes", "300mJ", "does not say what power it takes"),
    ],
)
def test_a_budget_of_what_is_not_known_is_refused(
    specks: Path,
    imagery: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    without: str,
    budget: str,
    message: str,
) -> None:
    board = write_board(tmp_path, without)
    arguments = ("deploy", specks, "--data", imagery, "--target", board, "-o", out / "x.eosfm")
    assert exit_code(*arguments, "--budget", budget) == ExitCode.WRONG_USE
    error = capsys.readouterr().err
    assert message in error and f"{without} in the profile" in error and "fix:" in error
    assert leftovers(out) == []


def test_the_energy_of_this_machine_is_not_known(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("deploy", specks, "--data", imagery, "--budget", "300mJ", "-o", out / "x.eosfm")
    assert exit_code(*arguments) == ExitCode.WRONG_USE
    assert "the profile of cpu does not say what power it takes" in capsys.readouterr().err


def test_without_a_known_speed_the_verdict_is_of_size_and_fidelity(
    specks: Path, imagery: Path, out: Path, tmp_path: Path
) -> None:
    board = write_board(tmp_path, "peak_tops")
    report = deploy(specks, imagery, out / "x.eosfm", target=board, budget="5MB")
    assert report.record.timing is None
    assert report.record.verdict.summary.startswith("1.0")
    assert "as fast" not in report.record.verdict.summary


def test_a_target_with_tensorrt_is_told_to_build_there(
    specks: Path, imagery: Path, out: Path
) -> None:
    report = deploy(specks, imagery, out / "x.eosfm", target="desktop-tensorrt", budget="5MB")
    assert report.engines == ()
    build = "eosfm-edge build x.eosfm, then eosfm-edge verify x.eosfm"
    assert report.next_step == f"on desktop-tensorrt: {build}"
    assert report.manifest.of_role("onnx") and report.manifest.of_role("native")
