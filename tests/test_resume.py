"""The directory that an interrupted run resumes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.resume import resumable, work_directory

FINISHED = frozenset({".json"})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def interrupt(output: Path, error: BaseException, name: str = "1.json") -> None:
    with pytest.raises(type(error)), resumable(output, "request", FINISHED) as work:
        (work / name).write_text("half a day")
        raise error


def test_success_leaves_nothing(output: Path) -> None:
    with resumable(output, "request", FINISHED) as work:
        (work / "1.json").write_text("")
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("a full disk")])
def test_what_is_finished_is_there_for_the_same_request(output: Path, error: BaseException) -> None:
    interrupt(output, error)
    with resumable(output, "request", FINISHED) as work:
        assert (work / "1.json").read_text() == "half a day"


def test_another_request_begins_anew(output: Path) -> None:
    interrupt(output, KeyboardInterrupt())
    with resumable(output, "another", FINISHED) as work:
        assert [path.name for path in work.iterdir()] == ["request"]


def test_an_error_before_anything_is_finished_leaves_nothing(output: Path) -> None:
    interrupt(output, UserError("no"), "1.part")
    assert not work_directory(output).exists()


def test_a_failed_check_leaves_nothing_that_would_fail_again(output: Path) -> None:
    interrupt(output, CheckFailedError("too little is left"))
    assert not work_directory(output).exists()


def test_a_folder_that_is_not_ours_is_not_touched(output: Path) -> None:
    work = work_directory(output)
    work.mkdir()
    (work / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(UserError, match="eosfm-edge did not make it"),
        resumable(output, "request", FINISHED),
    ):
        pass
    assert (work / "thesis.tex").read_text() == "years of work"
