"""Running the command: as its users do, in a process of its own, or in this one."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from eosfm_edge.cli.main import cli, main

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
    """Run ``eosfm-edge`` to its end; returns exit code, standard output and standard error."""
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
    """Return what the command would end this process with."""
    handler, show = signal.getsignal(signal.SIGTERM), warnings.showwarning
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["eosfm-edge", *map(str, arguments)])
        try:
            main()
        finally:
            signal.signal(signal.SIGTERM, handler)
            warnings.showwarning = show
    return int(stop.value.code or 0)
