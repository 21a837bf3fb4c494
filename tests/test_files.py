"""Outputs are whole or not there, and nothing of the user's is ever removed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.limits import no_file_larger_than

from eosfm_edge import files
from eosfm_edge.errors import UserError
from eosfm_edge.files import atomic_directory, atomic_file, cannot_write, require_outside

CONTENTS = ("level1.tif", "level2.tif", "specialists/*.gguf")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return an output that is there, in a folder of its own."""
    target = tmp_path / "folder" / "out"
    (target / "specialists").mkdir(parents=True)
    (target / "level1.tif").write_text("old")
    (target / "specialists" / "a.gguf").write_text("old")
    return target


def write(target: Path, *, overwrite: bool = True) -> None:
    with atomic_directory(target, contents=CONTENTS, overwrite=overwrite) as scratch:
        (scratch / "level1.tif").write_text("new")


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_an_output_that_is_there_is_replaced_whole(target: Path) -> None:
    write(target)
    assert contents(target.parent) == {"out/level1.tif": "new"}


@pytest.mark.parametrize(
    "name",
    [
        "level3.tif",
        "level1_scene.tif",
        "level2.tif/mine",
        "specialists/notes.txt",
        "specialists/more/b.gguf",
        "b.gguf",
        "specialists/b.gguf/mine",
        "else/level1.tif",
    ],
)
def test_a_directory_with_anything_else_is_never_replaced(target: Path, name: str) -> None:
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("precious")
    before = contents(target.parent)
    with pytest.raises(UserError, match="which eosfm-edge did not write there"):
        write(target)
    assert contents(target.parent) == before


def test_a_link_is_not_ours_whatever_its_name(target: Path, tmp_path: Path) -> None:
    (target / "level2.tif").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"holds level2\.tif"):
        write(target)
    assert (target / "level2.tif").is_symlink()


@pytest.mark.parametrize("mine", ["mine", "level1.tif"])
def test_an_output_made_meanwhile_is_kept(tmp_path: Path, mine: str) -> None:
    target = tmp_path / "out"
    with (
        pytest.raises(UserError, match="out exists"),
        atomic_directory(target, contents=CONTENTS) as scratch,
    ):
        (scratch / "level1.tif").write_text("new")
        target.mkdir()
        (target / mine).write_text("precious")
    assert contents(tmp_path) == {f"out/{mine}": "precious"}
    assert list(tmp_path.iterdir()) == [target]


def test_an_output_made_at_the_last_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # when it was looked for
    with pytest.raises(UserError, match="out was made by someone else meanwhile"):
        write(tmp_path / "out", overwrite=False)
    assert contents(tmp_path) == {"out/mine": "precious"}


def test_a_file_put_into_the_output_meanwhile_is_kept(target: Path) -> None:
    with (
        pytest.raises(UserError, match="holds mine"),
        atomic_directory(target, contents=CONTENTS, overwrite=True),
    ):
        (target / "mine").write_text("precious")
    assert contents(target)["mine"] == "precious"
    assert list(target.parent.iterdir()) == [target]


def break_renames(monkeypatch: pytest.MonkeyPatch, *fates: BaseException | None) -> None:
    """Make renames fail in their turn; None lets one pass, and so do all that follow."""
    rename, turns = files.rename, iter(fates)

    def broken(source: Path, to: Path, flags: int = 0) -> None:
        fate = next(turns, None)
        if fate:
            raise fate
        rename(source, to, flags)

    monkeypatch.setattr(files, "rename", broken)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
CANNOT_SWAP = OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize(
    ("fates", "kind"),
    [
        ((FULL,), UserError),
        ((KeyboardInterrupt(),), KeyboardInterrupt),
        ((CANNOT_SWAP, FULL), UserError),
        ((CANNOT_SWAP, None, FULL), UserError),
        ((CANNOT_SWAP, KeyboardInterrupt()), KeyboardInterrupt),
        ((CANNOT_SWAP, None, KeyboardInterrupt()), KeyboardInterrupt),
    ],
)
def test_a_replacement_that_fails_leaves_the_old(
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    fates: tuple[BaseException | None, ...],
    kind: type[BaseException],
) -> None:
    before = contents(target.parent)
    break_renames(monkeypatch, *fates)
    with pytest.raises(kind):
        write(target)
    assert contents(target.parent) == before
    assert list(target.parent.iterdir()) == [target]


def test_what_cannot_be_put_back_is_kept_and_the_message_says_where(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_renames(monkeypatch, CANNOT_SWAP, None, FULL, FULL)
    with pytest.raises(UserError, match="could neither be replaced nor put back") as error:
        write(target)
    old = target.with_name("out.old")
    assert f"it is whole, as {old}" in str(error.value)
    assert contents(old) == {"level1.tif": "old", "specialists/a.gguf": "old"}


# Ends the process at the rename of a number, before or after it; in one of two file systems.
KILLER = """
import errno, os, signal, sys
from pathlib import Path
from eosfm_edge import files
turn, after, swaps = int(sys.argv[2]), sys.argv[3] == "after", sys.argv[4] == "swaps"
real, count = files.rename, 0
def rename(source, target, flags=0):
    global count
    if flags == 2 and not swaps:
        raise OSError(errno.EINVAL, "cannot")
    count += 1
    if count == turn and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target, flags)
    if count == turn and after:
        os.kill(os.getpid(), signal.SIGKILL)
files.rename = rename
contents = ("level1.tif", "level2.tif", "specialists/*.gguf")
with files.atomic_directory(Path(sys.argv[1]), contents=contents, overwrite=True) as scratch:
    (scratch / "level1.tif").write_text("new")
"""
OLD = {"level1.tif": "old", "specialists/a.gguf": "old"}
NEW = {"level1.tif": "new"}


@pytest.mark.parametrize(
    ("swaps", "turn", "when", "left"),
    [
        ("swaps", 1, "before", OLD),
        ("swaps", 1, "after", NEW),
        ("two", 1, "before", OLD),
        ("two", 1, "after", None),
        ("two", 2, "before", None),
        ("two", 2, "after", NEW),
    ],
)
def test_a_process_that_is_killed_at_a_rename_leaves_one_whole(
    target: Path, swaps: str, turn: int, when: str, left: dict[str, str] | None
) -> None:
    command = [sys.executable, "-c", KILLER, str(target), str(turn), when, swaps]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    if left is None:  # between two renames the old is beside its place, and comes back
        assert not target.exists()
    else:
        assert contents(target) == left
    assert len(list(target.parent.iterdir())) > (1 if left is not None else 0)
    # The next run that does not finish puts all in order, and one that does replaces the old.
    with pytest.raises(KeyError), atomic_directory(target, contents=CONTENTS, overwrite=True):
        raise KeyError
    assert contents(target) == (OLD if left is None else left)
    assert list(target.parent.iterdir()) == [target]
    write(target)
    assert contents(target.parent) == {"out/level1.tif": "new"}


def test_the_scratch_of_a_process_that_lives_is_left_alone(target: Path) -> None:
    with atomic_directory(target, contents=CONTENTS, overwrite=True) as first:
        (first / "level1.tif").write_text("first")
        write(target)
        assert first.exists()
    assert contents(target.parent) == {"out/level1.tif": "first"}


def test_scratch_of_others_is_left_alone(target: Path) -> None:
    for name in (".out.mine", ".out2.eosfm-abc", "out.eosfm-abc"):
        (target.parent / name).mkdir()
    (target.parent / ".out.eosfm-file").write_text("mine")
    write(target)
    assert len(list(target.parent.iterdir())) == 5


def test_files_and_folders_are_on_the_disk_before_they_are_in_place(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, files.rename

    def synced(descriptor: int) -> None:
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def renamed(source: Path, to: Path, flags: int = 0) -> None:
        events.append("rename")
        rename(source, to, flags)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(files, "rename", renamed)
    write(target)
    place = events.index("rename")
    assert Path(events[0]).name == "level1.tif"
    assert Path(events[place - 1]).name.startswith(".out.eosfm-")
    assert events[place + 1 :] == [str(target.parent)]


@pytest.mark.parametrize("place", ["out", "out/scene.tif", "out/specialists/a.gguf"])
def test_an_output_that_holds_an_input_is_refused(target: Path, place: str) -> None:
    with pytest.raises(UserError, match="is in the output"):
        require_outside(target, [target.parent / place])


def test_links_do_not_hide_that_an_input_is_in_the_output(target: Path, tmp_path: Path) -> None:
    (tmp_path / "into").symlink_to(target / "level1.tif")
    (target / "out_of").symlink_to(tmp_path / "scene.tif")
    (tmp_path / "output").symlink_to(target)
    for path in (tmp_path / "into", target / "out_of"):
        with pytest.raises(UserError, match="is in the output"):
            require_outside(tmp_path / "output", [path])


def test_inputs_beside_and_above_the_output_are_fine(target: Path) -> None:
    beside = [target.parent, target.parent / "out2", target.with_suffix(".tif")]
    require_outside(target, beside)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_space_is_spoken_of_when_it_lacks(tmp_path: Path, code: int) -> None:
    message = str(cannot_write(tmp_path / "not" / "yet", OSError(code, "full")))
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    said = float(message.split("full; ")[1].split(" MB")[0].replace(",", ""))
    assert said == pytest.approx(free / 1e6, rel=0.05)
    assert "free some space" in message


@pytest.mark.parametrize("code", [errno.EEXIST, errno.ENAMETOOLONG, errno.EACCES, errno.ENOTDIR])
def test_space_is_not_spoken_of_when_it_does_not_lack(tmp_path: Path, code: int) -> None:
    message = str(cannot_write(tmp_path / "out", OSError(code, os.strerror(code))))
    assert os.strerror(code) in message
    assert "free" not in message


def test_a_name_that_is_too_long_is_no_lack_of_space(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long") as error:
        write(tmp_path / ("x" * 300))
    assert "free" not in str(error.value)


def test_the_free_space_of_a_place_that_cannot_be_asked_is_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: Path) -> None:
        raise OSError

    monkeypatch.setattr(files.shutil, "disk_usage", unknown)
    assert "; 0 MB are free there" in str(cannot_write(tmp_path / "out", "the disk is full", 1))


def test_a_full_disk_is_known_by_numpys_words(tmp_path: Path) -> None:
    """``tofile`` raises an OSError without a code."""
    with (
        pytest.raises(UserError, match=f"cannot write .*{os.strerror(errno.ENOSPC)}"),
        atomic_file(tmp_path / "out"),
        no_file_larger_than(1000),
        (tmp_path / "part").open("wb", buffering=0) as file,
    ):
        np.zeros(200_000, np.uint8).tofile(file)


def test_what_is_written_has_the_usual_permissions_and_programs_stay_programs(
    tmp_path: Path,
) -> None:
    with atomic_directory(tmp_path / "out", contents=("*",)) as folder:
        for name, mode in (("private", 0o600), ("program", 0o700), ("library", 0o644)):
            (folder / name).write_text("x")
            (folder / name).chmod(mode)
    mask = os.umask(0)
    os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {
        "private": 0o666 & ~mask, "program": 0o777 & ~mask, "library": 0o666 & ~mask,
    }  # fmt: skip
