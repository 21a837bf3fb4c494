"""Benchmarks: engines in alternation, each in a process of its own, and ratios within rounds.

A round runs every contender for a while, one after the other, so that what disturbs the machine
disturbs all of them alike. Ratios are taken within a round, and their median is reported.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import eosfm_edge
from eosfm_edge.bundle.intact import require_source, with_files
from eosfm_edge.errors import UserError
from eosfm_edge.formats.backends import CPU_BACKENDS
from eosfm_edge.formats.bench import BenchReport, Machine, Processor, Timing
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.progress import Progress, silent

WARM_UP = 5  # runs before the first round
RUNS = 10  # of a contender in a round


@dataclass(frozen=True)
class Contender:
    """An engine to be timed.

    Attributes:
        name: what it is called in the results.
        command: a program that speaks :mod:`eosfm_edge.runtime.bench_worker`'s lines.
        environment: added to this process's.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


def alternate(
    contenders: Sequence[Contender], rounds: int, progress: Progress = silent
) -> list[Timing]:
    """Time contenders in turn.

    Args:
        contenders: who.
        rounds: how often each has its turn, at least 2.
        progress: told of rounds done and all rounds.

    Raises:
        UserError: a contender cannot run; its complaint is in the message.
    """
    processes = [Process(contender) for contender in contenders]
    try:
        for process in processes:
            process.run(WARM_UP)
        samples: list[list[float]] = [[] for _ in processes]
        for done in range(rounds):
            progress("rounds", done, rounds)
            for process, mine in zip(processes, samples, strict=True):
                mine.append(statistics.median(process.run(RUNS)))
        progress("rounds", rounds, rounds)
        return [
            Timing(
                name=process.name,
                load_ms=process.load_ms,
                round_ms=tuple(mine),
                memory_mb=process.finish(),
            )
            for process, mine in zip(processes, samples, strict=True)
        ]
    finally:
        for process in processes:
            process.kill()


class Process:
    """A contender's process, which has loaded and waits.

    Attributes:
        name: the contender's.
        load_ms: from the first call to when it could run.
    """

    def __init__(self, contender: Contender) -> None:
        self.name = contender.name
        self._process = subprocess.Popen(
            contender.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **contender.environment},
        )
        loaded = self._answer()
        self.load_ms, self._base_mb = float(loaded["load_ms"]), float(loaded["base_mb"])

    def resident_mb(self) -> float:
        """Return the megabytes of it that are in memory now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def run(self, times: int) -> list[float]:
        """Run it so many times; returns the milliseconds of each."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        answer: list[float] = self._answer()
        return answer

    def finish(self) -> float:
        """End it; returns its peak of megabytes, less what the interpreter had before loading."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return float(self._answer()["peak_mb"]) - self._base_mb

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            complaint = self._process.stderr.read().strip().splitlines()
            reason = complaint[-1] if complaint else "it ended without a word"
            raise UserError(f"{self.name} cannot be timed: {reason}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise UserError(f"{self.name} cannot be timed: {answer['error']}")
        return answer


def bench_bundle(
    bundle: Path,
    backends: Sequence[str],
    threads: int,
    rounds: int,
    progress: Progress = silent,
) -> BenchReport:
    """Time a bundle's backends on its known answer's image.

    Args:
        bundle: the bundle directory.
        backends: which; none: those on the CPU whose files the bundle has.
        threads: of each; 0 for all cores.
        rounds: at least 2.
        progress: told of rounds done and all rounds.

    Raises:
        UserError: the bundle cannot be read, or a backend cannot run it or has no files in it.
    """
    manifest, machine = read_manifest(bundle), machine_facts()
    backends = backends or with_files(bundle, manifest, CPU_BACKENDS)
    for backend in backends:
        require_source(bundle, manifest, backend)
    worker = (sys.executable, "-m", "eosfm_edge.runtime.bench_worker", str(bundle))
    timings = alternate(
        [Contender(name, (*worker, name, str(threads))) for name in backends], rounds, progress
    )
    return BenchReport(
        machine=machine,
        bundle=str(bundle),
        threads=threads,
        macs=manifest.macs,
        timings=tuple(timings),
    )


def machine_facts() -> Machine:
    """Return what the figures depend on."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        eosfm_edge=eosfm_edge.__version__,
        onnxruntime=_version("onnxruntime"),
        openvino=_version("openvino"),
        torch=_version("torch"),
        load_average=os.getloadavg()[0],
    )


def _processor() -> Processor:
    wanted = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp"}
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return Processor(
        model=facts.get("model name", "unknown"), flags=tuple(sorted(wanted & set(flags)))
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
