"""``--json``, ``-q`` and ``-v`` mean the same in every verb; progress without a terminal."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from support.command import exit_code, inside
from support.weights import write_pth

from eosfm_edge.cli.app import cli
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle

REPORTS = ("import", "prune", "calibrate", "export", "deploy", "build", "verify", "run", "bench")


@pytest.fixture(scope="module")
def small(motes: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "motes.eosfm"
    export_bundle(motes, imagery, path, ExportOptions(tile=64))
    return path


def options_of(verb: str) -> set[str]:
    return {name for one in cli.commands[verb].params for name in one.opts}


@pytest.mark.parametrize("verb", REPORTS)
def test_verbs_that_take_a_while_have_json_quiet_and_verbose(verb: str) -> None:
    assert {"--json", "-q", "--quiet", "-v", "--verbose"} <= options_of(verb)


@pytest.mark.parametrize("verb", ["inspect", "packets"])
def test_verbs_that_only_show_have_json(verb: str) -> None:
    assert "--json" in options_of(verb)


@pytest.mark.filterwarnings("ignore::eosfm_edge.network.cells.FewTilesWarning")
@pytest.mark.parametrize("verb", ["import", "prune", "calibrate", "export", "verify", "run"])
def test_json_is_all_that_is_printed(
    verb: str, small: Path, motes: Path, imagery: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tiles = ("--data", imagery, "--tile", 64, "--tiles", 48)
    arguments: dict[str, tuple[object, ...]] = {
        "import": (write_pth(tmp_path / "e.pth", (3,)), "--bands", "RGB"),
        "prune": (motes, *tiles, "--ratio", 0.3, "--recipe", "closed-form"),
        "calibrate": (motes, *tiles, "--method", "minmax"),
        "export": (motes, "--data", imagery, "--tile", 64, "--precision", "fp32"),
        "verify": (small,),
        "run": (small, imagery),
    }
    output = tmp_path / "out.eosfm"
    inside(verb, *arguments[verb], "--json", *(() if verb == "verify" else ("-o", output)))
    printed = json.loads(capsys.readouterr().out)
    if verb == "verify":
        assert [level["level"] for level in printed["levels"]] == [f"level{i}" for i in range(1, 5)]
    else:
        assert printed["output"] == str(output)
        assert len(printed) > 1
    if verb == "prune":
        assert len(printed["fidelity"]) == 4 and printed["fidelity"][0]["cosine"] > 0.9


@pytest.mark.parametrize("command", [("list",), ("show", "jetson")])
def test_targets_are_printed_as_json(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    inside("targets", *command, "--json")
    assert json.loads(capsys.readouterr().out)


def test_the_list_of_targets_names_the_native_engine_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inside("targets", "list")
    header, *rows = capsys.readouterr().out.splitlines()
    assert "engines" in header
    listed = [row for row in rows if " is " not in row]
    assert listed and all(re.search(r"  native, (onnxruntime|tensorrt)", row) for row in listed)


def test_quiet_leaves_results_and_verbose_shows_each_step(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside("verify", small, "-q")
    quiet = capsys.readouterr()
    assert quiet.err == "" and "known answer, level4" in quiet.out
    inside("verify", small, "-v")
    verbose = capsys.readouterr()
    assert verbose.out == quiet.out
    lines = verbose.err.splitlines()
    assert re.fullmatch(r" +0\.\d s  verify: 0 of 1", lines[0])
    assert re.fullmatch(r" +\d+\.\d s  verify: 1 of 1", lines[-1])
    assert exit_code("verify", small, "-q", "-v") == 2
    assert "both --quiet and --verbose" in capsys.readouterr().err


def test_notes_are_left_out_if_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pth(tmp_path / "e.pth", (3,))
    for name, more, noted in (("loud", (), True), ("still", ("-q",), False)):
        inside("import", source, "--bands", "RGB", "-o", tmp_path / name, *more)
        assert ("note: the input's scale is 1" in capsys.readouterr().err) is noted


def test_where_no_terminal_is_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with shown_progress() as tell:
        for done in range(100):  # 50 s
            tell("prune: [forest]", done, 100)
            now += 0.5
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"{seconds:6.1f} s  prune: [forest]: {2 * seconds} of 100" for seconds in (10, 20, 30, 40)
    ]


def test_quiet_and_verbose_exclude_each_other() -> None:
    with pytest.raises(UserError, match="both"), shown_progress(quiet=True, verbose=True):
        pass
