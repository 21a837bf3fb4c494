"""Check a bundle."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from eosfm_edge.api.options import PathLike, VerifyOptions, as_path
from eosfm_edge.errors import BackendWarning
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.runtime.verify import Verification


def verify(
    bundle: PathLike, options: VerifyOptions | None = None, *, progress: Progress = silent
) -> Verification:
    """Check a bundle's files, and that it computes its known answer here.

    Args:
        bundle: the bundle directory.
        options: with which backend.
        progress: told when it starts and ends.

    Raises:
        CheckFailedError: a file is missing, altered or surplus, or a level is too far off.
        UserError: the bundle cannot be read, or the backend cannot run it.
    """
    options = options or VerifyOptions()
    place = as_path(bundle)
    from eosfm_edge.runtime.verify import verify_bundle

    progress("verify", 0, 1)
    found = verify_bundle(
        place,
        options.backend,
        tell=lambda sentence: warnings.warn(sentence, BackendWarning, stacklevel=2),
    )
    progress("verify", 1, 1)
    return found
