"""One contender of a benchmark, in a process of its own.

Speaks JSON lines: first what loading took and the memory before it, then for every number on
standard input the milliseconds of so many runs, and at the end of input the process's peak memory.
What a user can mend is one too, the last.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eosfm_edge.bundle.known_answer import read_known_answer
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.runtime.backends import open_context


def serve(load: Callable[[], Callable[[], object]]) -> None:
    """Time what ``load`` returns as often as standard input says.

    Args:
        load: loads an engine and returns a function that runs it once.
    """
    base_mb = _memory_mb("VmRSS")
    started = time.perf_counter()
    run = load()
    _say({"load_ms": (time.perf_counter() - started) * 1e3, "base_mb": base_mb})
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            before = time.perf_counter()
            run()
            times.append((time.perf_counter() - before) * 1e3)
        _say(times)
    _say({"peak_mb": _memory_mb("VmHWM")})


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def _memory_mb(key: str) -> float:
    # Not ru_maxrss, which counts what the parent had before it became this program.
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status[key].split()[0]) / 1024


def main() -> None:
    """Run ``bench_worker BUNDLE BACKEND THREADS``."""
    bundle, backend, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    try:
        manifest = read_manifest(bundle)
        bands = list(read_known_answer(bundle, manifest).image[0])

        def load() -> Callable[[], object]:
            context = open_context(bundle, manifest, [backend], threads)
            return lambda: context.run(bands)

        serve(load)
    except UserError as error:
        _say({"error": str(error)})


if __name__ == "__main__":
    main()
