"""Run a bundle over a scene."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from eosfm_edge.api.imagery import radiometry_of
from eosfm_edge.api.options import PathLike, RunOptions, as_path, as_scene
from eosfm_edge.errors import BackendWarning
from eosfm_edge.files import require_outside
from eosfm_edge.packets.words import PacketOptions, parse_levels, parse_size
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.runtime.run import RunReport


def run(
    bundle: PathLike,
    scene: PathLike,
    output: PathLike,
    options: RunOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> RunReport:
    """Run a bundle over a scene and write its levels, and maps, as cloud-optimised GeoTIFFs.

    Args:
        bundle: the bundle directory.
        scene: anything rasterio opens, a folder of single-band files, or a product of Sentinel-2,
            Landsat or Sentinel-1.
        output: the folder for ``level1.tif`` ... ``level4.tif``: float32, NaN where less than half
            of a cell is valid. For each head of the bundle ``NAME.tif``: codes of classes (uint8,
            255 without data) with their colours, and their names in ``NAME.tif.aux.xml``.
        options: how.
        overwrite: replace an output that is there.
        progress: told of tiles and of rasters written.

    Raises:
        CheckFailedError: the bundle is damaged, or gives values that are not finite.
        UserError: the scene does not fit, or the output cannot be written; nothing is left of it.
    """
    options = options or RunOptions()
    place, target, image = as_path(bundle), as_path(output), as_scene(scene)
    inputs = (place, image, options.beside)
    require_outside(target, [path for path in inputs if isinstance(path, Path)])
    levels = parse_levels(options.packet_levels)
    packets = None
    if options.packets is not None:
        packets = PacketOptions(parse_size(options.packets), levels, options.packet_encoding)
    from eosfm_edge.runtime import run as stage

    return stage.run_scene(
        place,
        image,
        target,
        stage.RunOptions(
            backend=options.backend,
            threads=options.threads,
            grn=options.grn,
            overlap=options.overlap,
            halo=options.halo,
            levels=options.levels,
            probabilities=options.probabilities,
            quicklook=options.quicklook,
            beside=options.beside,
            packets=packets,
            overwrite=overwrite,
            names=options.bands,
            radiometry=radiometry_of(options),
        ),
        progress=progress,
        tell=lambda sentence: warnings.warn(sentence, BackendWarning, stacklevel=2),
    )
