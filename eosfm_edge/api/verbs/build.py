"""Build TensorRT engines of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eosfm_edge.api.options import BuildOptions, PathLike, as_path
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.engines.build import Parsed
    from eosfm_edge.formats.engines import EngineEntry


@dataclass(frozen=True)
class BuildReport:
    """The engines of a bundle.

    Attributes:
        engines: that are there now; none of a dry run.
        parsed: what a dry run found.
    """

    engines: tuple[EngineEntry, ...] = ()
    parsed: Parsed | None = None


def build(
    bundle: PathLike, options: BuildOptions | None = None, *, progress: Progress = silent
) -> BuildReport:
    """Build the TensorRT engines of a bundle, on the device that is to run them.

    Args:
        bundle: the bundle directory, in which they are kept.
        options: for which GPUs.
        progress: told what TensorRT does.

    Raises:
        CheckFailedError: an engine does not compute in the exported precision; it is not kept.
        UserError: the bundle is not for TensorRT, or it cannot build here.
    """
    options = options or BuildOptions()
    place = as_path(bundle)
    from eosfm_edge.bundle.intact import require_intact
    from eosfm_edge.engines.build import build_engines, parse_graphs, require_tensorrt

    manifest = read_manifest(place)
    require_tensorrt(manifest)
    require_intact(place, manifest, "tensorrt")
    if options.dry_run:
        return BuildReport(parsed=parse_graphs(place, manifest, options.sm))
    return BuildReport(tuple(build_engines(place, manifest, options.sm, progress)))
