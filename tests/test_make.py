"""The Makefile: what is built again when a file changes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.programs import ROOT, RUNTIME


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_test_builds_the_library_again_when_a_source_changes(tmp_path: Path) -> None:
    (tmp_path / "installed").touch()
    command = ["make", "--dry-run", f"VENV={tmp_path}", "test"]

    def told(*options: str) -> str:
        done = subprocess.run(
            [*command, *options], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "pip install" not in told()
    # One file of each kind and folder; the name of a library's functions is in eosfm.map.
    sources = {
        (path.parent, path.suffix): path.relative_to(ROOT)
        for path in sorted(RUNTIME.rglob("*"))
        if path.is_file() and path.relative_to(RUNTIME).parts[0] not in ("tests", "examples")
    }
    assert {path.parts[1] for path in sources.values()} >= {"src", "backends", "packets", "cmake"}
    for path in sources.values():
        assert "pip install" in told(f"--what-if={path}"), path
