"""A directory beside the output keeps finished steps: an interrupted run resumes from it."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import eosfm_edge
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import atomic_file, cannot_write

_REQUEST = "request"  # the file with the digest of what was asked for

Result = TypeVar("Result")


def work_directory(output: Path) -> Path:
    """Return where a run keeps what is finished, until the output is there."""
    return output.with_name(f"{output.name}.work")


class OtherRequestWarning(UserWarning):
    """The finished steps of an interrupted run are of no use for this one."""


class Work:
    """The finished steps of a run; without a directory nothing is kept."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory

    def step(
        self,
        name: str,
        make: Callable[[], Result],
        save: Callable[[Result, Path], object],
        load: Callable[[Path], Result | None],
    ) -> Result:
        """Return the result of a step: loaded if an earlier run finished it, or else made now.

        Args:
            name: of the step's file, in the work directory.
            make: does the step.
            save: writes the result to a path; the file takes its name once it is whole.
            load: reads it again, or returns None if it is damaged: then the step is done again.
        """
        path = self.checkpoint(name)
        if path is None:
            return make()
        if path.exists() and (found := load(path)) is not None:
            return found
        result = make()
        with atomic_file(path) as scratch:
            save(result, scratch)
        return result

    def checkpoint(self, name: str) -> Path | None:
        """Return the file in which an unfinished step may keep its state; None: it may not."""
        return self._directory and self._directory / name


NOTHING_KEPT = Work()


@contextmanager
def resumable(
    output: Path | None,
    request: Sequence[object],
    *,
    keep_after: type[CheckFailedError] | None = None,
) -> Iterator[Work]:
    """Give the finished steps of a run, which are removed when the block succeeds.

    The steps of an interrupted run of the same request are kept for the next; those of another
    request are removed first, with a warning. They are also removed when a check fails, since the
    same request would fail again.

    Args:
        output: what the block writes; None: nothing, and no steps are kept.
        request: everything the result depends on, compared as text. The version of this package
            is always part of it.
        keep_after: the failed check that depends on more than the request: the steps are kept.

    Raises:
        UserError: the work directory exists and is not ours, or cannot be written.
    """
    if output is None:
        yield NOTHING_KEPT
        return
    everything = "\n".join(map(str, (eosfm_edge.__version__, *request)))
    digest = hashlib.sha256(everything.encode()).hexdigest()
    directory = work_directory(output)
    mark = directory / _REQUEST
    try:
        if mark.exists() and mark.read_text() != digest:
            warnings.warn(
                f"{directory} is of other options or inputs than these: it is removed, and the "
                "work begins anew",
                OtherRequestWarning,
                stacklevel=3,
            )
            shutil.rmtree(directory)
        elif directory.exists() and not mark.exists() and any(directory.iterdir()):
            raise UserError(
                f"{directory} exists, and eosfm-edge did not make it",
                remedy="choose another output, or move it away",
            )
        directory.mkdir(parents=True, exist_ok=True)
        mark.write_text(digest)
    except OSError as error:
        raise cannot_write(directory, error) from error
    try:
        yield Work(directory)
    except CheckFailedError as error:
        if keep_after is None or not isinstance(error, keep_after):
            shutil.rmtree(directory)
        raise
    except UserError:
        if not any(path != mark for path in directory.iterdir()):
            shutil.rmtree(directory)
        raise
    shutil.rmtree(directory)
