"""Results of benchmarks, as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

MACHINE = {
    "processor": {"model": "a processor", "flags": ["avx2"]},
    "cores": 4,
    "system": "Linux 6.1 x86_64",
    "python": "3.10.1",
    "eosfm_edge": "0.1.0",
    "onnxruntime": "1.20.0",
    "openvino": None,
    "torch": None,
    "load_average": 0.1,
}


def write_timings(path: Path, macs: int, **round_ms: Sequence[float]) -> Path:
    """Write what ``eosfm-edge bench`` would have measured of a bundle's backends."""
    timings = [
        {"name": name, "load_ms": 1.0, "round_ms": list(ms), "memory_mb": 1.0}
        for name, ms in round_ms.items()
    ]
    content = {"machine": MACHINE, "bundle": "b.eosfm", "threads": 1, "macs": macs}
    path.write_text(json.dumps({**content, "timings": timings}))
    return path
