"""Disks that fill up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

SmallDisk = Callable[[int], AbstractContextManager[Path]]


@pytest.fixture
def small_disk(tmp_path: Path) -> SmallDisk:
    """Return what gives an empty disk of so many bytes, for as long as it is wanted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    folder = tmp_path / "disk"
    folder.mkdir()

    @contextmanager
    def disk(size: int) -> Iterator[Path]:
        options = ["-t", "tmpfs", "-o", f"size={size}"]
        if subprocess.run(["mount", *options, "tmpfs", folder], check=False).returncode:
            pytest.skip("a tmpfs cannot be mounted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)

    return disk
