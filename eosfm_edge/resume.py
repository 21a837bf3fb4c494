"""A directory beside the output for what is finished: an interrupted run resumes from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import cannot_write


def work_directory(output: Path) -> Path:
    """Return where a run keeps what is finished, until the output is there."""
    return output.with_name(f"{output.name}.work")


@contextmanager
def resumable(output: Path, request: str, finished: frozenset[str]) -> Iterator[Path]:
    """Give the work directory of an output, removed when the block succeeds.

    One that an interrupted run of the same request left is resumed; one of another request is
    emptied. Where a check failed it is removed too: the same request would fail again.

    Args:
        output: what the block writes.
        request: a digest of all that the result depends on.
        finished: suffixes of files that are worth keeping when the block fails.

    Raises:
        UserError: the directory is there and is not ours, or cannot be written.
    """
    work = work_directory(output)
    mark = work / "request"
    try:
        if mark.exists() and mark.read_text() != request:
            shutil.rmtree(work)
        elif work.exists() and not mark.exists() and any(work.iterdir()):
            raise UserError(
                f"{work} is there, and eosfm-edge did not make it",
                remedy="choose another output, or move it away",
            )
        work.mkdir(parents=True, exist_ok=True)
        mark.write_text(request)
    except OSError as error:
        raise cannot_write(work, error) from error
    try:
        yield work
    except CheckFailedError:
        shutil.rmtree(work)
        raise
    except UserError:
        # Nothing that was finished: nothing to go on with.
        if not any(path.suffix in finished for path in work.iterdir()):
            shutil.rmtree(work)
        raise
    shutil.rmtree(work)
