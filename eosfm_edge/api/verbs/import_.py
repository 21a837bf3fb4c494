"""Read trained weights and write an ensemble."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from eosfm_edge.api.checks import require_output, require_there
from eosfm_edge.api.imagery import IMAGERY, describe_imagery, keep_imagery, require_readable
from eosfm_edge.api.inputs import input_bands, notes_on_scale, selection
from eosfm_edge.api.options import ImportOptions, PathLike, as_path
from eosfm_edge.ensemble.kinds import require_weights
from eosfm_edge.formats.ensemble import CONTENTS as ENSEMBLE_CONTENTS
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.ensemble.importer import Imported


def import_ensemble(
    input: PathLike | Sequence[PathLike],  # noqa: A002
    output: PathLike,
    options: ImportOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Imported:
    """Read trained weights and write an ensemble directory.

    Args:
        input: EoS-FM ensemble files (.pth), Lightning or TerraTorch checkpoints (.ckpt) and single
            specialists, in the order that the ensemble shall have. No code in them is run.
        output: the ensemble directory to write.
        options: what the files do not say.
        overwrite: replace an ensemble that is there.
        progress: told of each file.

    Returns:
        The ensemble's description, and notes on how the files were read.

    Raises:
        UserError: a file cannot be read safely, its tensors do not fit, an input is in the output,
            or the output may not be replaced. Nothing is written then.
    """
    options = options or ImportOptions()
    given = [input] if isinstance(input, str | os.PathLike) else input
    sources, target = [as_path(path) for path in given], as_path(output)
    require_there(sources, "weights: .pth, .ckpt, .safetensors, or a folder of a model hub")
    require_output(target, [*sources, *options.data], ENSEMBLE_CONTENTS, overwrite)
    require_there(options.data, IMAGERY)
    bands, chosen = input_bands(options), selection(options)
    for source in sources:
        require_weights(source)
    imagery = None
    if options.data:
        if bands is not None:
            require_readable(options.data, bands)
        imagery = describe_imagery(options.data, seed=options.seed)
    from eosfm_edge.ensemble import importer

    progress("import", 0, 1)
    imported = importer.import_ensemble(
        sources,
        target,
        importer.ImportOptions(
            name=options.name,
            input=bands,
            specialist_bands=options.specialist_bands,
            adaptation=options.adaptation,
            normalisation=options.norm,
            selection=chosen,
            fusion=options.fusion,
            prefix=options.prefix,
        ),
        overwrite=overwrite,
    )
    if imagery is not None:
        keep_imagery(target, imagery)
    progress("import", 1, 1)
    return replace(imported, notes=(*imported.notes, *notes_on_scale(options, imported.spec.input)))
