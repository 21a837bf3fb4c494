"""Threads that are not asked for a number: as many as control groups grant, in C and in Python."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.programs import run

from eosfm_edge.machine import memory, processor_quota, processors

SEEN = len(os.sched_getaffinity(0))

# What files there are, and how many processors they grant; None: all.
GROUPS = {
    "none": ({}, None),
    "no limit": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    "one": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
    "half": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "many": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, None),
    "of a parent": (
        {
            "proc/self/cgroup": "0::/a/b/c\n",
            "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "90000 100000\n",
        },
        1,
    ),
    "the host's path": (
        {"proc/self/cgroup": "0::/docker/123\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"},
        1,
    ),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/x\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
    "version 1, no limit": (
        {
            "proc/self/cgroup": "4:cpuset,cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        None,
    ),
    "nonsense": (
        {"proc/self/cgroup": "0\n::\n0::/\n:", "sys/fs/cgroup/cpu.max": "-3 0 x\n"}, None,
    ),
}  # fmt: skip


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("case", GROUPS)
def test_python_counts_what_is_granted(tmp_path: Path, case: str) -> None:
    files, granted = GROUPS[case]
    root = written(tmp_path, files)
    expected = SEEN if granted is None else min(granted, SEEN)
    assert processors(root) == expected
    assert processor_quota(root) == (granted if granted is not None and granted < SEEN else None)


@pytest.mark.parametrize("case", GROUPS)
def test_a_context_has_as_many_threads_as_are_granted(
    programs: Path, specks: dict[str, Path], tmp_path: Path, case: str
) -> None:
    files, granted = GROUPS[case]
    root = written(tmp_path, files)
    expected = SEEN if granted is None else min(granted, SEEN)
    said = run([programs / "test_processors", specks["fp32"]], {"EOSFM_TEST_ROOT": str(root)})
    assert int(said) == expected


def test_memory_is_what_is_granted(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}
    whole = memory(written(tmp_path, files))
    assert whole == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    files = {"sys/fs/cgroup/memory.max": "1000000\n"}
    assert memory(written(tmp_path, files)) == 1_000_000
