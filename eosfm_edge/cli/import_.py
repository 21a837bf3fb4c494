"""``eosfm-edge import``."""

from __future__ import annotations

from typing import Annotated

import typer

import eosfm_edge as ee
from eosfm_edge.api.options import ImportOptions
from eosfm_edge.cli.options import Json, Overwrite, Quiet, Verbose
from eosfm_edge.cli.output import console, print_json, say
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options

_PER_BAND = dict.fromkeys(("scale", "offset", "mean", "std", "nodata", "fill"), "[BAND=]VALUE")


@with_options(
    ImportOptions, name="NAME", prefix="PREFIX", specialist_bands="NAME=BANDS", **_PER_BAND
)
def import_(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCES", help="Trained weights.")],
    options: ImportOptions,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="PATH", help="The ensemble directory to write.")
    ],
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read trained weights and write an ensemble directory.

    SOURCES are EoS-FM ensemble files (.pth), whole encoders in Lightning or TerraTorch checkpoints
    (.ckpt), and single specialists (.safetensors, .pth, .ckpt, or a folder of a model hub), in the
    order that the ensemble shall have. Files are known by their content; names may be timm's, its
    classifiers', or those of ConvNeXt-V2's authors. No code in a file is run. Options supply what
    the files lack; the reference's defaults supply the rest.
    """
    with shown_progress(quiet=quiet, verbose=verbose) as progress:
        imported = ee.import_ensemble(
            sources, output, options, overwrite=overwrite, progress=progress
        )
    if not quiet:
        for note in imported.notes:
            say(f"note: {note}")
    spec = imported.spec
    if as_json:
        print_json({"output": output, "ensemble": spec, "notes": imported.notes})
        return
    console().print(
        f"{output}: {len(spec.specialists)} specialists, {len(spec.input)} input bands, "
        f"normalisation '{spec.normalisation}', fusion '{spec.fusion}'"
    )
