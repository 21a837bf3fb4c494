"""The ladder: a backend that cannot be had or computes wrong is followed by the next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.formats.bundle import Manifest
from eosfm_edge.runtime.backends import Backend, open_backend
from eosfm_edge.runtime.known_answer import require_known_answer

LADDERS = (("tensorrt", "onnxruntime-cuda", "native"), ("cuda", "native"))


def open_first(
    name: str, bundle: Path, manifest: Manifest, threads: int, tell: Callable[[str], None]
) -> Backend:
    """Open a backend; in the place of one that needs a GPU, the first of its ladder that works.

    What runs on a GPU must give the bundle's known answer before it is used.

    Args:
        name: the backend.
        bundle: its files are what the manifest says.
        manifest: the bundle's.
        threads: of a backend on the CPU; 0 for all cores.
        tell: called with a sentence for each rung that is left.

    Raises:
        UserError: none works; the last one's reason.
    """
    rungs = next((ladder[ladder.index(name) :] for ladder in LADDERS if name in ladder), (name,))
    for rung, after in pairwise(rungs):
        try:
            backend = open_backend(rung, bundle, manifest, threads)
            require_known_answer(backend, bundle, manifest)
        except (UserError, CheckFailedError) as error:
            tell(f"{rung} is not used: {error}; {after} is next")
        else:
            return backend
    return open_backend(rungs[-1], bundle, manifest, threads)
