"""``eosfm-edge calibrate`` as its users run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.command import exit_code, inside, leftovers

from eosfm_edge.calibration import calibrate
from eosfm_edge.errors import ExitCode
from eosfm_edge.formats.calibration import CONTENTS, PLOT_NAME
from eosfm_edge.network.calibration import read_calibration

pytestmark = pytest.mark.usefixtures("wide")
QUICK = ("--method", "minmax", "--tile", 32, "--tiles", 8)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that needs no wrapping."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


def test_what_is_printed_names_every_specialist_and_level(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside("calibrate", specks, "--data", imagery, *QUICK, "-o", out / "c")
    printed = " ".join(capsys.readouterr().out.split())
    calibration, _ = read_calibration(out / "c")
    assert printed.startswith("calibration: 8 tiles, 9 tiles of")
    for one in calibration.specialists:
        assert f"{one.name} 13 of 13 stages." in printed
        levels = " / ".join(f"{level.sqnr_db:.1f}" for level in one.native)
        assert levels in printed
    for number, level in enumerate(calibration.fused, 1):
        assert f"level{number} on 1 held-out tiles: cosine {level.cosine:.5f}" in printed
    assert "scales of 2 specialists" in printed
    assert leftovers(out) == ["c"] and leftovers(out / "c") == sorted(CONTENTS)
    assert (out / "c" / PLOT_NAME).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_what_is_not_int8_and_what_static_grn_costs_is_printed(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("calibrate", specks, "--data", imagery, *QUICK[:4], "--tiles", 24, "-o")
    inside(*arguments, out / "static", "--grn", "static", "--min-cosine", 0.5, "--distill", 5)
    printed = " ".join(capsys.readouterr().out.split())
    calibration, _ = read_calibration(out / "static")
    assert (calibration.grn, calibration.min_cosine) == ("static", 0.5)
    for one in calibration.specialists:
        assert one.static_grn is not None
        levels = " / ".join(f"{level.sqnr_db:.1f}" for level in one.static_grn)
        assert f"static GRN alone leaves {one.name} {levels} dB" in printed
    inside(*arguments, out / "mixed", "--min-cosine", 0.99985, "--max-drop", 50, "--seed", 3)
    printed = "".join(capsys.readouterr().out.split())
    calibration, _ = read_calibration(out / "mixed")
    assert (calibration.max_drop, calibration.data.seed) == (50, 3)
    halves = [
        layer.name
        for one in calibration.specialists
        for layer in one.layers
        if layer.output is None and layer.precision == "half"
    ]
    assert halves
    assert printed.count("half") == len(halves)


def test_a_budget_that_cannot_be_kept_is_an_exit_status_of_1(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--grn", "static", "--min-cosine", 0.99999, *QUICK, "-o", out / "c")
    assert exit_code("calibrate", specks, "--data", imagery, *arguments) == ExitCode.CHECK_FAILED
    said = capsys.readouterr()
    err = " ".join(said.err.split())
    assert "error: the calibration does not keep its budget: level1 of s0 has a cosine of 0." in err
    for name in ("s0", "s1", "the fused levels"):
        assert all(f"level{number} of {name} has a cosine of" in err for number in (1, 2, 3, 4))
    assert "expected: at every level a cosine of 0.99999" in err and "--grn exact" in err
    assert said.out == ""
    assert not (out / "c").exists()


def test_without_data_nothing_is_written(
    specks: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("calibrate", specks, *QUICK, "-o", out / "c") == ExitCode.WRONG_USE
    err = capsys.readouterr().err
    assert "no imagery was given" in err and "--data SCENE" in err
    assert leftovers(out) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--method", "guess"), "--method is 'guess' expected: one of 'auto'"),
        (("--grn", "frozen"), "--grn is 'frozen' expected: one of 'exact', 'static'"),
        (("--min-cosine", 1.5), "min-cosine is '1.5' expected: less than or equal to 1"),
        (("--max-drop", 101), "max-drop is '101' expected: less than or equal to 100"),
        (("--distill", -1), "distill is '-1' expected: greater than or equal to 0"),
        (("--tiles", 0), "tiles is '0' expected: greater than or equal to 1"),
        (("--seed", -1), "seed is '-1' expected: greater than or equal to 0"),
        (("--tile", 100), "tiles of 100 pixels a side"),
        (("--tile", 1024), "at least 1024 x 1024"),
        (("--bands", "B02"), "has 3 bands expected: 1, as named"),
        (("--data", "nowhere.tif"), "nowhere.tif"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_wrong_options_are_said_and_nothing_is_written(
    specks: Path,
    imagery: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    sentence: str,
) -> None:
    arguments = ("calibrate", specks, "--data", imagery, *QUICK, "-o", out / "c", *options)
    assert exit_code(*arguments) == ExitCode.WRONG_USE
    err = capsys.readouterr().err
    assert sentence in " ".join(err.split()) and "Traceback" not in err
    assert leftovers(out) == []


def test_what_is_no_ensemble_is_said(
    imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--data", imagery, *QUICK, "-o", out / "c")
    assert exit_code("calibrate", out / "nothing", *arguments) == ExitCode.WRONG_USE
    assert "nothing" in capsys.readouterr().err
    assert leftovers(out) == []


def test_an_output_that_is_there_needs_overwrite(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("calibrate", specks, "--data", imagery, *QUICK, "-o", out / "c")
    inside(*arguments)
    first, _ = read_calibration(out / "c")
    assert exit_code(*arguments, "--seed", 7) == ExitCode.WRONG_USE
    assert "add --overwrite" in capsys.readouterr().err
    assert read_calibration(out / "c")[0] == first
    inside(*arguments, "--seed", 7, "--overwrite")
    assert read_calibration(out / "c")[0].data.seed == 7


def test_a_directory_of_something_else_is_not_overwritten(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "c").mkdir()
    (out / "c" / "thesis.tex").write_text("years of work")
    arguments = ("--data", imagery, *QUICK, "--overwrite", "-o", out / "c")
    assert exit_code("calibrate", specks, *arguments) == ExitCode.WRONG_USE
    assert "which eosfm-edge did not write there" in " ".join(capsys.readouterr().err.split())
    assert (out / "c" / "thesis.tex").read_text() == "years of work"


def test_an_output_that_holds_the_ensemble_is_refused(
    specks: Path, imagery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(specks.rglob("*"))
    arguments = ("--data", imagery, *QUICK, "--overwrite", "-o", specks)
    assert exit_code("calibrate", specks, *arguments) == ExitCode.WRONG_USE
    assert "is in the output" in " ".join(capsys.readouterr().err.split())
    assert sorted(specks.rglob("*")) == before


def test_who_interrupts_is_told_how_to_go_on(
    specks: Path,
    imagery: Path,
    out: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    original = calibrate.calibrate_encoder

    def second_is_interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(calibrate, "calibrate_encoder", second_is_interrupted)
    arguments = ("calibrate", specks, "--data", imagery, *QUICK, "-o", out / "c")
    assert exit_code(*arguments) == ExitCode.INTERRUPTED
    err = " ".join(capsys.readouterr().err.split())
    assert "interrupted" in err and "the same command resumes from there" in err
    assert leftovers(out) == ["c.work"]
    inside(*arguments)
    assert len(calls) == 3
    assert leftovers(out) == ["c"]
