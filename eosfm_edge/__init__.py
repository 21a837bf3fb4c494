"""Compress, export and run EoS-FM ensembles of remote-sensing specialists.

    import eosfm_edge as ee

    ee.prune("six", "six-50", ee.PruneOptions(ratio=0.5, data="scene.tif"))
    ee.export("six-50", "six-50.eosfm", ee.ExportOptions(data="scene.tif"))
    levels = ee.open("six-50.eosfm").run("scene.tif")

Names are imported when they are first used: importing the package takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eosfm_edge.api.opened import Bundle, Ensemble
    from eosfm_edge.api.opened import open_directory as open  # noqa: A004
    from eosfm_edge.api.options import (
        BenchOptions,
        BuildOptions,
        CalibrateOptions,
        DeployOptions,
        ExportOptions,
        HeadOptions,
        ImportOptions,
        PruneOptions,
        RunOptions,
        VerifyOptions,
    )
    from eosfm_edge.api.verbs.bench import bench
    from eosfm_edge.api.verbs.build import BuildReport, build
    from eosfm_edge.api.verbs.calibrate import calibrate
    from eosfm_edge.api.verbs.deploy import BudgetsNotMetError, DeployReport, deploy
    from eosfm_edge.api.verbs.doctor import doctor
    from eosfm_edge.api.verbs.export import export
    from eosfm_edge.api.verbs.head import fit_head, remove_head
    from eosfm_edge.api.verbs.import_ import import_ensemble
    from eosfm_edge.api.verbs.prune import PromiseBrokenError, prune
    from eosfm_edge.api.verbs.run import run
    from eosfm_edge.api.verbs.verify import verify
    from eosfm_edge.errors import CheckFailedError, UserError
    from eosfm_edge.formats.bench import BenchReport
    from eosfm_edge.native.header import get_include

__version__ = "0.1.0"

# Where each name is, in the order of the road.
_PLACES = {
    "open": ("api.opened", "open_directory"),
    **{name: ("api.opened", name) for name in ("Bundle", "Ensemble")},
    "import_ensemble": ("api.verbs.import_", "import_ensemble"),
    **{
        name: (f"api.verbs.{name}", name)
        for name in (
            "prune",
            "calibrate",
            "export",
            "deploy",
            "build",
            "verify",
            "run",
            "bench",
            "doctor",
        )
    },
    **{name: ("api.verbs.head", name) for name in ("fit_head", "remove_head")},
    "BuildReport": ("api.verbs.build", "BuildReport"),
    **{name: ("api.verbs.deploy", name) for name in ("DeployReport", "BudgetsNotMetError")},
    "PromiseBrokenError": ("api.verbs.prune", "PromiseBrokenError"),
    **{
        name: ("api.options", name)
        for name in (
            "ImportOptions",
            "PruneOptions",
            "CalibrateOptions",
            "ExportOptions",
            "DeployOptions",
            "BuildOptions",
            "VerifyOptions",
            "HeadOptions",
            "RunOptions",
            "BenchOptions",
        )
    },
    "BenchReport": ("formats.bench", "BenchReport"),
    "get_include": ("native.header", "get_include"),
    **{name: ("errors", name) for name in ("UserError", "CheckFailedError")},
}
__all__ = [
    "BenchOptions",
    "BenchReport",
    "BudgetsNotMetError",
    "BuildOptions",
    "BuildReport",
    "Bundle",
    "CalibrateOptions",
    "CheckFailedError",
    "DeployOptions",
    "DeployReport",
    "Ensemble",
    "ExportOptions",
    "HeadOptions",
    "ImportOptions",
    "PromiseBrokenError",
    "PruneOptions",
    "RunOptions",
    "UserError",
    "VerifyOptions",
    "__version__",
    "bench",
    "build",
    "calibrate",
    "deploy",
    "doctor",
    "export",
    "fit_head",
    "get_include",
    "import_ensemble",
    "open",
    "prune",
    "remove_head",
    "run",
    "verify",
]


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, there = _PLACES[name]
    found: object = getattr(import_module(f"{__name__}.{module}"), there)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
