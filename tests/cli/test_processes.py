"""Verbs in processes of their own, as users start them; other tests call ``main`` in theirs.

Processes are limited, interrupted or lack modules where ``import``, ``prune``, ``export``, ``run``,
``verify``, ``inspect`` and ``packets`` are started.
"""

from __future__ import annotations

from pathlib import Path

from support.command import run_apart


def test_bench_times_a_bundle_in_a_process(bundle: Path) -> None:
    code, out, err = run_apart("bench", bundle, "--backend", "native", "--rounds", 2)
    assert code == 0, err
    assert "times as fast as native" in out


def test_targets_are_listed_by_a_process() -> None:
    code, out, err = run_apart("targets", "list")
    assert code == 0, err
    assert "desktop-tensorrt" in out
