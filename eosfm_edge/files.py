"""Writing that is all or nothing, and digests."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import re
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
# Of renameat2(2).
_NOREPLACE, _EXCHANGE, _AT_FDCWD = 1, 2, -100
_NO_FLAGS = {errno.ENOSYS, errno.EINVAL}
_RETIRED = "retired"  # the old target, between two renames
# What a directory cannot be renamed onto.
_IN_THE_WAY = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@contextmanager
def atomic_directory(
    target: Path, *, contents: Sequence[str], overwrite: bool = False
) -> Iterator[Path]:
    """Give a scratch directory beside ``target`` that takes its place when the block succeeds.

    When the block raises, Ctrl-C included, the scratch directory is removed and ``target`` is
    what it was before. Where the process is killed, ``target`` is the whole old or the whole new
    directory, and the next call for the same target removes what was left beside it.

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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_away(target)
        require_replaceable(target, contents, overwrite)
        scratch = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    except OSError as error:
        raise cannot_write(target, error) from error
    lock = _locked(scratch)
    try:
        yield scratch
        _share(scratch)
        for path in (*scratch.rglob("*"), scratch):
            _sync(path)
        _replace(scratch, target, contents, overwrite)
        _sync(target.parent)
    except UserError:
        raise
    except Exception as error:
        if reason := _write_error(error):
            raise cannot_write(target, reason) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Give a scratch file beside ``target`` that takes its place when the block succeeds.

    Raises:
        UserError: it cannot be written.
    """
    scratch = target.with_name(f".{target.name}.part")
    try:
        yield scratch
        _sync(scratch)
        scratch.replace(target)
        _sync(target.parent)
    except UserError:
        raise
    except Exception as error:
        if reason := _write_error(error):
            raise cannot_write(target, reason) from error
        raise
    finally:
        scratch.unlink(missing_ok=True)


def _write_error(error: BaseException) -> OSError | None:
    """Return why a block could not write; libraries have errors of their own for a full disk."""
    if isinstance(error, OSError) and error.errno in _WRITE_ERRORS:
        return error
    for code in _SPACE_ERRORS:
        if os.strerror(code) in str(error):
            return OSError(code, os.strerror(code))
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # numpy does not say why
    return _write_error(error.__cause__) if error.__cause__ else None


def _prefix(target: Path) -> str:
    """Return how the names of a target's scratch directories begin."""
    return f".{target.name}.eosfm-"


def _locked(directory: Path) -> int | None:
    """Lock a directory for as long as this process lives; None where the file system cannot."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _clear_away(target: Path) -> None:
    """Remove the scratch directories of processes that were killed: nobody holds their locks.

    One that was killed between two renames, where the file system cannot swap in one, has left the
    old target in its scratch directory: that is put back.
    """
    for left in target.parent.glob(f"{glob.escape(_prefix(target))}*"):
        if left.is_symlink() or not left.is_dir() or (lock := _locked(left)) is None:
            continue
        retired = left / _RETIRED
        if retired.is_dir() and not os.path.lexists(target):
            rename(retired, target, _NOREPLACE)
        shutil.rmtree(left, ignore_errors=True)
        os.close(lock)


def _sync(path: Path) -> None:
    """Have the disk hold what a file or a directory is now."""
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync directories.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def require_replaceable(target: Path, contents: Sequence[str], overwrite: bool) -> None:
    """Check that a directory is absent or may be replaced; see `atomic_directory`."""
    if not os.path.lexists(target):
        return
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
    """Give what is in a directory the usual permissions: libraries and mkdtemp give less.

    A program stays one.
    """
    mask = _umask()
    for path in (directory, *directory.rglob("*")):
        path.chmod((0o777 if path.stat().st_mode & stat.S_IXUSR else 0o666) & ~mask)


def _replace(scratch: Path, target: Path, contents: Sequence[str], overwrite: bool) -> None:
    """Put ``scratch`` where ``target`` is, which is then in ``scratch``.

    If that fails, ``target`` is what it was.
    """
    if not os.path.lexists(target):
        try:
            rename(scratch, target, _NOREPLACE)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            raise UserError(
                f"{target} was made by someone else meanwhile", remedy="choose another output"
            ) from error
        return
    require_replaceable(target, contents, overwrite)
    try:
        rename(scratch, target, _EXCHANGE)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
        _replace_in_two(scratch, target)


def _replace_in_two(scratch: Path, target: Path) -> None:
    """Replace by two renames; the next call puts the old back if this is killed between them."""
    holder = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    lock = _locked(holder)
    retired = holder / _RETIRED
    try:
        rename(target, retired)
        rename(scratch, target)
    finally:
        # Whatever went wrong and whenever: the old is removed only when the new is in its place.
        if os.path.lexists(retired) and not os.path.lexists(target):
            _put_back(retired, target)
        shutil.rmtree(holder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _put_back(retired: Path, target: Path) -> None:
    try:
        rename(retired, target)
    except OSError as error:
        kept = target.with_name(f"{target.name}.old")
        with suppress(OSError):
            rename(retired, kept)
            retired = kept
        raise UserError(
            f"{target} could neither be replaced nor put back: {error.strerror}",
            remedy=f"it is whole, as {retired}: move it yourself",
        ) from error


def rename(source: Path, target: Path, flags: int = 0) -> None:
    """Rename, or with flags what ``renameat2`` does with them: swap, or never replace.

    Raises:
        OSError: as of ``renameat2``. ENOSYS or EINVAL: the kernel or the file system cannot swap.
            For never replacing they are not raised: then an empty directory is replaced.
    """
    if flags:
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "renameat2"):
            here = ctypes.c_int(_AT_FDCWD)
            names = os.fsencode(source), here, os.fsencode(target)
            if libc.renameat2(here, *names, ctypes.c_uint(flags)) == 0:
                return
            code = ctypes.get_errno()
        else:
            code = errno.ENOSYS
        if code not in _NO_FLAGS or flags == _EXCHANGE:
            raise OSError(code, os.strerror(code), str(target))
    source.rename(target)


def require_outside(output: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output directory that is or holds an input: to replace it is to delete that.

    Raises:
        UserError: the output is or holds an input.
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
