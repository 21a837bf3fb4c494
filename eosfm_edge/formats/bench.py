"""The results of ``eosfm-edge bench``: what was measured of a bundle, and on what machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from eosfm_edge.formats.base import Strict, read_json_model

Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least two values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


class Processor(Strict):
    """A processor: its model's name, and those instruction sets that kernels are written for."""

    model: str
    flags: tuple[str, ...]


class Machine(Strict):
    """The machine and the software that the figures depend on.

    Attributes:
        processor: of the machine.
        cores: that this process may use.
        system: kernel, release and architecture.
        python: version; None of the program `eosfm`, which needs none.
        eosfm_edge: version.
        onnxruntime, openvino, torch: versions, of those that are installed.
        load_average: of the minute before the measurement.
    """

    processor: Processor
    cores: int
    system: str
    python: str | None
    eosfm_edge: str
    onnxruntime: str | None
    openvino: str | None
    torch: str | None
    load_average: float


class Timing(Strict):
    """The measurements of one backend or engine.

    Attributes:
        name: its.
        load_ms: from the first call to when it could run.
        round_ms: the median run of each round.
        memory_mb: resident memory at most, less what the interpreter had before loading.
    """

    name: str
    load_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    round_ms: tuple[Milliseconds, ...] = Field(min_length=1)
    memory_mb: Annotated[float, Field(allow_inf_nan=False)]

    @property
    def ms(self) -> Spread:
        """Milliseconds of a run."""
        return Spread.of(self.round_ms)

    def ratio_to(self, other: Timing) -> Spread:
        """Return how many times as long the other takes, round by round."""
        return Spread.of([b / a for a, b in zip(self.round_ms, other.round_ms, strict=True)])


class BenchReport(Strict):
    """Timings of a bundle's backends on one machine.

    Attributes:
        machine: what the figures depend on.
        bundle: its path.
        threads: of each backend; 0 for all cores.
        macs: multiply-accumulates of a tile, if the bundle says.
        timings: of the backends, in the order they were named; ratios are to the last.
    """

    schema_version: Literal[1] = 1
    machine: Machine
    bundle: str
    threads: int = Field(ge=0)
    macs: int | None = Field(ge=1)
    timings: tuple[Timing, ...] = Field(min_length=1)


def read_bench_report(path: Path) -> BenchReport:
    """Read what ``eosfm-edge bench`` wrote as JSON.

    Raises:
        UserError: it cannot be read, or is something else; names the field.
    """
    return read_json_model(BenchReport, path, what="results of eosfm-edge bench")
