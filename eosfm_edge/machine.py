"""The share of the machine that control groups grant to this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def processors(root: Path = _ROOT) -> int:
    """Return how many processors this process may keep busy, at least 1.

    Args:
        root: where the system's ``proc`` and ``sys`` are.
    """
    return processor_quota(root) or len(os.sched_getaffinity(0))


def processor_quota(root: Path = _ROOT) -> int | None:
    """Return how many processors the control groups grant, rounded up; None if that is all it sees.

    Libraries count what is there and not what is granted: 64 threads that share 2 processors take
    turns in being stopped.
    """
    granted = []
    for folder in _groups(root, "cpu"):
        with suppress(OSError, ValueError, IndexError):
            quota, period = _cpu_limit(folder)
            if quota > 0 and period > 0:
                granted.append(-(-quota // period))
    seen = len(os.sched_getaffinity(0))
    return min(granted) if granted and min(granted) < seen else None


def memory(root: Path = _ROOT) -> int:
    """Return the bytes of memory that this process can have at most."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min(limits)


def _cpu_limit(folder: Path) -> tuple[int, int]:
    """Return the microseconds granted in a period, -1 for all, and the period's."""
    version_2 = folder / "cpu.max"
    if version_2.exists():
        quota, period = version_2.read_text().split()
        return -1 if quota == "max" else int(quota), int(period)
    quota, period = ((folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
    return int(quota), int(period)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Give the folders of the groups that this process is in, up to the root of each hierarchy."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        # In a container the path may be the host's, of which only the root is to be seen.
        parts = PurePosixPath(path.lstrip("/"))
        for place in (parts, *parts.parents):
            yield top / place
