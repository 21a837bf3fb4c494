"""Time a bundle's backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosfm_edge.api.options import BenchOptions, PathLike, as_path
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.formats.bench import BenchReport


def bench(
    bundle: PathLike, options: BenchOptions | None = None, *, progress: Progress = silent
) -> BenchReport:
    """Time a bundle's backends in turn on its known answer, each in a process of its own.

    Args:
        bundle: the bundle directory.
        options: who, and how often.
        progress: told of rounds.

    Raises:
        UserError: the bundle cannot be read, or a backend cannot run it.
    """
    options = options or BenchOptions()
    place = as_path(bundle)
    from eosfm_edge.runtime.bench import bench_bundle

    return bench_bundle(place, options.backend, options.threads, options.rounds, progress)
