"""Writing that is all or nothing, and digests."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from eosfm_edge.errors import UserError

_SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT}
_WRITE_ERRORS = _SPACE_ERRORS | {errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS}
# What a directory cannot be renamed onto.
_IN_THE_WAY = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


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
            holds; ``*`` stops at a ``/``. One that holds anything else is never replaced: it is
            not ours. That is looked at before the block and again after it.
        overwrite: replace a directory that is there.

    Raises:
        UserError: ``target`` exists and may not be replaced, or it cannot be written.
    """
    target = target.absolute()
    if os.path.lexists(target):
        require_replaceable(target, contents, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield scratch
        _share(scratch)
        _replace(scratch, target, contents, overwrite)
    except OSError as error:
        if error.errno in _WRITE_ERRORS:
            raise cannot_write(target, error) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Give a scratch file beside ``target`` that takes its place when the block succeeds.

    Raises:
        UserError: it cannot be written.
    """
    scratch = target.with_name(f".{target.name}.part")
    try:
        yield scratch
        scratch.replace(target)
    except OSError as error:
        if error.errno in _WRITE_ERRORS:
            raise cannot_write(target, error) from error
        raise
    finally:
        scratch.unlink(missing_ok=True)


def require_replaceable(target: Path, contents: Sequence[str], overwrite: bool) -> None:
    """Complain of a directory that is there and may not be replaced; see `atomic_directory`."""
    if target.is_symlink() or not target.is_dir():
        raise UserError(f"{target} exists and is not a directory", remedy="choose another output")
    if not overwrite:
        raise UserError(f"{target} exists", remedy="choose another output, or add --overwrite")
    for path in target.rglob("*"):
        if not _is_ours(path, target, contents):
            raise UserError(
                f"{target} holds {path.relative_to(target)}, which eosfm-edge did not write there",
                expected=f"nothing but {', '.join(contents)} in a directory to overwrite",
                remedy="choose another output, or remove the directory yourself",
            )


def _is_ours(path: Path, target: Path, contents: Sequence[str]) -> bool:
    """Return whether a path in ``target`` is a file of the contents, or a folder of such files."""
    if path.is_symlink():
        return False
    patterns = [PurePosixPath(pattern).parts for pattern in contents]
    if path.is_dir():
        patterns = [parts[:-1] for parts in patterns]
    names = path.relative_to(target).parts
    return any(
        len(names) == len(parts) and all(map(fnmatchcase, names, parts)) for parts in patterns
    )


def _share(directory: Path) -> None:
    """Give what is in a directory the usual permissions: libraries and mkdtemp give less."""
    mask = _umask()
    for path in (directory, *directory.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _replace(scratch: Path, target: Path, contents: Sequence[str], overwrite: bool) -> None:
    """Put ``scratch`` where ``target`` is; if that fails, ``target`` is back in its place."""
    if not os.path.lexists(target):
        _rename(scratch, target)
        return
    require_replaceable(target, contents, overwrite)
    retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    old = retired / target.name
    try:
        target.rename(old)
        _rename(scratch, target)
    finally:
        # Whatever went wrong and whenever: the old is removed only when the new is in its place.
        if scratch.exists():
            _put_back(old, target)
        else:
            shutil.rmtree(retired, ignore_errors=True)


def _rename(scratch: Path, target: Path) -> None:
    try:
        scratch.rename(target)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        raise UserError(
            f"{target} was made by someone else meanwhile", remedy="choose another output"
        ) from error


def _put_back(old: Path, target: Path) -> None:
    """Bring ``old`` back to its place if it has left it, and remove the folder it was put in."""
    try:
        if os.path.lexists(old):
            old.rename(target)
    except OSError as error:
        raise UserError(
            f"{target} could neither be replaced nor put back: {error.strerror}",
            remedy=f"it is whole, as {old}: move it yourself",
        ) from error
    old.parent.rmdir()


def require_outside(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output directory that is or holds an input: to replace it is to delete that.

    Raises:
        UserError: it does.
    """
    directory = Path(os.path.realpath(output))
    for path in inputs:
        # A link in the directory is as much an input as what it leads to.
        for place in (Path(os.path.realpath(path)), Path(os.path.realpath(path.parent), path.name)):
            if directory == place or directory in place.parents:
                raise UserError(
                    f"the input {path} is in the output {output}", remedy="choose another output"
                )


def cannot_write(target: Path, reason: object, needed: int | None = None) -> UserError:
    """Return the error for a failed write.

    Args:
        target: what could not be written.
        reason: an OSError, or words.
        needed: bytes that it takes, where space may be what is lacking.
    """
    full = isinstance(reason, OSError) and reason.errno in _SPACE_ERRORS
    words = reason.strerror if isinstance(reason, OSError) else reason
    if not full and needed is None:
        return UserError(f"cannot write {target}: {words}", remedy="choose another output")
    return UserError(
        f"cannot write {target}: {words}; {_free_bytes(target) / 1e6:,.0f} MB are free there",
        expected=f"about {needed / 1e6:,.0f} MB" if needed else None,
        remedy="choose another output, or free some space",
    )


def _free_bytes(target: Path) -> int:
    """Return how much space there is where ``target`` shall be, whose folder may not be yet."""
    for folder in target.absolute().parents:
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; a FIFO or a device, which could hang or never end, is refused.

    Raises:
        UserError: it is no regular file, or cannot be read.
        FileNotFoundError: there is none.
    """
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {path}: {reason}") from error
    stream = os.fdopen(descriptor, "rb")
    kind = file_kind(os.fstat(descriptor).st_mode)
    if kind != "a file":
        stream.close()
        raise UserError(f"{path} is {kind}", expected="a file")
    return stream


def file_kind(mode: int) -> str:
    """Return in words what the mode of ``stat`` is of: ``a file``, ``a folder``, ``a FIFO`` ..."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        UserError: it is no regular file, or cannot be read.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
