"""Running the command: in this process, or in one of its own, as its users do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from eosfm_edge.cli.main import cli, main

# Makes a process know the networks of tests, which only verbs that need torch want.
KNOWN = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import support.speck"
MAIN = "from eosfm_edge.cli.main import main; main()"


def start(arguments: Sequence[object], prelude: str = "") -> subprocess.Popen[str]:
    """Start ``eosfm-edge`` with the arguments, after some Python of the test's own."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{prelude}\n{MAIN}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, prelude: str = "") -> tuple[int, str, str]:
    """Run ``eosfm-edge`` through its ``main``, in this process unless it has a prelude.

    Returns:
        Exit code, standard output and standard error, which are files as a shell's are.
    """
    if prelude:
        return run_apart(*arguments, prelude=prelude)
    with (
        open(os.memfd_create("out"), "w+") as out,
        open(os.memfd_create("err"), "w+") as err,
        warnings.catch_warnings(),  # each command warns anew
    ):
        with redirect_stdout(out), redirect_stderr(err):
            code = _ended(arguments)
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def run_apart(*arguments: object, prelude: str = "") -> tuple[int, str, str]:
    """Run ``eosfm-edge`` to its end in a process of its own, and return the same.

    Only for what needs one: what is imported, limits, signals, pipes, the end of a process. A verb
    that needs torch takes seconds to start.
    """
    process = start(arguments, prelude)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def leftovers(folder: Path) -> list[str]:
    """Return what a failed command left in a folder that was empty before."""
    return sorted(path.name for path in folder.iterdir())


def inside(*arguments: object) -> None:
    """Run the command in this process, its errors as they are."""
    cli.main([str(argument) for argument in arguments], standalone_mode=False)


def exit_code(*arguments: object) -> int:
    """Return the exit code of the command in this process, which prints where the test does."""
    return _ended(arguments)


def _ended(arguments: Sequence[object]) -> int:
    handler, show = signal.getsignal(signal.SIGTERM), warnings.showwarning
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["eosfm-edge", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            signal.signal(signal.SIGTERM, handler)
            warnings.showwarning = show
    return 0
