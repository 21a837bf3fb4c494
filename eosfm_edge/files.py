"""Writing that is all or nothing, and digests."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from eosfm_edge.errors import UserError

_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def atomic_directory(
    target: Path, *, contents: Sequence[str], overwrite: bool = False
) -> Iterator[Path]:
    """Give a scratch directory beside ``target`` that takes its place when the block succeeds.

    When the block raises, Ctrl-C included, the scratch directory is removed and ``target`` is
    what it was before.

    Args:
        target: the directory to write.
        contents: patterns of the paths, relative to it, of the files that such a directory
            holds. One that holds anything else is never replaced: it is not ours.
        overwrite: replace a directory that is there.

    Raises:
        UserError: ``target`` exists and may not be replaced, or it cannot be written.
    """
    target = target.absolute()
    if os.path.lexists(target):
        _require_replaceable(target, contents, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise cannot_write(target, error.strerror) from error
    try:
        yield scratch
        _share(scratch)
        _replace(scratch, target)
    except OSError as error:
        if error.errno in _WRITE_ERRORS:
            raise cannot_write(target, error.strerror) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _require_replaceable(target: Path, contents: Sequence[str], overwrite: bool) -> None:
    if target.is_symlink() or not target.is_dir():
        raise UserError(f"{target} exists and is not a directory", remedy="choose another output")
    if not overwrite:
        raise UserError(f"{target} exists", remedy="choose another output, or add --overwrite")
    for path in target.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            continue  # what is in it is seen too
        name = path.relative_to(target).as_posix()
        if not any(fnmatch(name, pattern) for pattern in contents):
            raise UserError(
                f"{target} holds {name}, which eosfm-edge did not write there",
                expected=f"nothing but {', '.join(contents)} in a directory to overwrite",
                remedy="choose another output, or remove the directory yourself",
            )


def _share(directory: Path) -> None:
    """Give what is in a directory the usual permissions: libraries and mkdtemp give less."""
    mask = _umask()
    for path in (directory, *directory.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _replace(scratch: Path, target: Path) -> None:
    """Put ``scratch`` where ``target`` is; if that fails, ``target`` is back in its place."""
    if not target.exists():
        scratch.rename(target)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    old = retired / target.name
    try:
        target.rename(old)
        scratch.rename(target)
    except BaseException:
        if not target.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def cannot_write(target: Path, reason: object, needed: int | None = None) -> UserError:
    """Return the error for a failed write, which says how much space there is."""
    free = 0
    with suppress(OSError):
        free = shutil.disk_usage(target.parent).free
    return UserError(
        f"cannot write {target}: {reason}; {free / 1e6:,.0f} MB are free there",
        expected=f"about {needed / 1e6:,.0f} MB" if needed else None,
        remedy="choose another output, or free some space",
    )


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
