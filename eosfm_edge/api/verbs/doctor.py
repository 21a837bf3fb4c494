"""Look at this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eosfm_edge.runtime.doctor import Diagnosis


def doctor() -> Diagnosis:
    """Return what this machine has: processor, GPU and libraries, and which backends it can use.

    A backend is usable if its libraries and its device are here. That it computes right is proven
    by a bundle's known answer: :func:`verify`.
    """
    from eosfm_edge.runtime.doctor import diagnose

    return diagnose()
