"""The steps that an interrupted run resumes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.resume import OtherRequestWarning, Work, resumable, work_directory

REQUEST = ("a ratio", 0.5)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


class Step:
    """A step that writes the number of times it was done."""

    def __init__(self) -> None:
        self.done = 0

    def make(self) -> str:
        self.done += 1
        return f"half a day, {self.done}"

    def run(self, work: Work, name: str = "one.txt") -> str:
        return work.step(name, self.make, lambda r, path: path.write_text(r), load)


def load(path: Path) -> str | None:
    text = path.read_text()
    return text if text.startswith("half a day") else None


def interrupt(output: Path, error: BaseException, step: Step) -> None:
    with pytest.raises(type(error)), resumable(output, REQUEST) as work:
        step.run(work)
        raise error


def test_success_leaves_nothing(output: Path) -> None:
    with resumable(output, REQUEST) as work:
        assert Step().run(work) == "half a day, 1"
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("a full disk")])
def test_a_finished_step_is_not_done_again_for_the_same_request(
    output: Path, error: BaseException
) -> None:
    step = Step()
    interrupt(output, error, step)
    with resumable(output, REQUEST) as work:
        assert step.run(work) == "half a day, 1"
        assert step.run(work, "another.txt") == "half a day, 2"


def test_another_request_begins_anew(output: Path) -> None:
    step = Step()
    interrupt(output, KeyboardInterrupt(), step)
    with (
        pytest.warns(OtherRequestWarning, match=r"out\.work is of other options or inputs"),
        resumable(output, ("a ratio", 0.6)) as work,
    ):
        assert step.run(work) == "half a day, 2"


def test_another_version_begins_anew(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step()
    interrupt(output, KeyboardInterrupt(), step)
    monkeypatch.setattr("eosfm_edge.__version__", "99.0")
    with pytest.warns(OtherRequestWarning), resumable(output, REQUEST) as work:
        assert step.run(work) == "half a day, 2"


def test_a_damaged_result_is_made_again(output: Path) -> None:
    step = Step()
    interrupt(output, KeyboardInterrupt(), step)
    (work_directory(output) / "one.txt").write_text("half")
    with resumable(output, REQUEST) as work:
        assert step.run(work) == "half a day, 2"


def test_a_checkpoint_stays_until_the_run_succeeds(output: Path) -> None:
    with pytest.raises(UserError), resumable(output, REQUEST) as work:
        checkpoint = work.checkpoint("one.distillation")
        assert checkpoint is not None
        checkpoint.write_text("step 3 of 7")
        raise UserError("a full disk")
    with resumable(output, REQUEST) as work:
        assert work.checkpoint("one.distillation") == checkpoint
        assert checkpoint.read_text() == "step 3 of 7"
    assert not work_directory(output).exists()


def test_a_step_that_fails_to_write_leaves_nothing(output: Path) -> None:
    def half(result: str, path: Path) -> None:
        path.write_text(result[:4])
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(UserError, match=r"cannot write .*No space left"),
        resumable(output, REQUEST) as work,
    ):
        work.step("one.txt", Step().make, half, load)
    assert not list(output.parent.iterdir())


def test_without_an_output_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    step = Step()
    with resumable(None, REQUEST) as work:
        assert work.checkpoint("one.distillation") is None
        assert [step.run(work), step.run(work)] == ["half a day, 1", "half a day, 2"]
    assert not list(tmp_path.iterdir())


def test_an_error_before_anything_is_finished_leaves_nothing(output: Path) -> None:
    with pytest.raises(UserError, match="no"), resumable(output, REQUEST):
        raise UserError("no")
    assert not list(output.parent.iterdir())


def test_a_failed_check_leaves_nothing_that_would_fail_again(output: Path) -> None:
    interrupt(output, CheckFailedError("too little is left"), Step())
    assert not work_directory(output).exists()


def test_a_folder_that_is_not_ours_is_not_touched(output: Path) -> None:
    work = work_directory(output)
    work.mkdir()
    (work / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(UserError, match="eosfm-edge did not make it"),
        resumable(output, REQUEST),
    ):
        pass
    assert (work / "thesis.tex").read_text() == "years of work"


def test_a_failed_check_of_more_than_the_request_keeps_the_steps(output: Path) -> None:
    class OverBudgetError(CheckFailedError):
        pass

    step = Step()
    for error, done in (
        (OverBudgetError("5 MB"), 1),
        (OverBudgetError("6 MB"), 1),
        (CheckFailedError("too little is left"), 1),
        (OverBudgetError("7 MB"), 2),
    ):
        with (
            pytest.raises(type(error)),
            resumable(output, REQUEST, keep_after=OverBudgetError) as work,
        ):
            step.run(work)
            raise error
        assert step.done == done
