"""``eosfm-edge import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from eosfm_edge.cli.options import PATH, console, overwrite
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.bands import PRESETS, S2_L1C, canonical, parse_bands
from eosfm_edge.formats.ensemble import FusionMode, NormalisationMode

if TYPE_CHECKING:
    from eosfm_edge.api.options import ImportOptions
    from eosfm_edge.ensemble.importer import Imported
    from eosfm_edge.formats.ensemble import EnsembleSpec


@click.command("import")
@click.argument("sources", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The ensemble directory to write.")
@click.option("--name", help="The ensemble's name.  [default: the directory's]")
@click.option(
    "--bands",
    type=parse_bands,
    metavar="BANDS",
    help="The ensemble's input: names (B04,B03,B02), wavelengths (665nm,560nm) or one of "
    f"{', '.join(PRESETS)}.",
)
@click.option(
    "--scale",
    multiple=True,
    metavar="[BAND=]VALUE",
    help="physical = stored * SCALE + OFFSET, of all bands or of one; may be repeated.  "
    "[default: 1]",
)
@click.option("--offset", multiple=True, metavar="[BAND=]VALUE", help="See --scale.  [default: 0]")
@click.option(
    "--mean",
    multiple=True,
    metavar="[BAND=]VALUE",
    help="Specialists see (stored - MEAN) / STD, as they were trained to. May be repeated; "
    "1354.4,1118.2,... is for each band in turn.",
)
@click.option("--std", multiple=True, metavar="[BAND=]VALUE", help="See --mean.")
@click.option(
    "--nodata",
    multiple=True,
    metavar="[BAND=]VALUE",
    help="Stored value of pixels without data, or 'none', of all bands or of one. "
    "May be repeated.  [default: none]",
)
@click.option(
    "--fill",
    multiple=True,
    metavar="[BAND=]VALUE",
    help="Stored value that specialists see in such pixels. May be repeated.  [default: 0]",
)
@click.option(
    "--specialist-bands",
    multiple=True,
    metavar="NAME=BANDS",
    help="What bands a specialist wants, if the files do not say so. May be repeated.",
)
@click.option(
    "--adaptation",
    type=click.Choice(get_args(AdaptationMode)),
    help="What says which bands a specialist gets: their number, as in the reference, or their "
    "names.  [default: count for EoS-FM ensembles over one of the presets, else name]",
)
@click.option(
    "--prefix",
    help="Which encoder to take of a file with several, by the beginning of its names: an "
    "averaged copy (ema_model.), a teacher.",
)
@click.option("--norm", type=click.Choice(get_args(NormalisationMode)), help="Normalisation.")
@click.option("--fusion", type=click.Choice(get_args(FusionMode)), help="How sets are fused.")
@click.option("--selection", type=click.Choice(["topk", "smooth"]), help="How encoders count.")
@click.option("--top-k", type=click.IntRange(min=1), help="How many encoders count, with topk.")
@click.option("--scale-features", is_flag=True, help="Scale features by the selection weights.")
@overwrite
def import_(sources: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Read trained weights and write an ensemble directory.

    SOURCES are EoS-FM ensemble files (.pth), whole encoders in Lightning or TerraTorch
    checkpoints (.ckpt), and single specialists (.safetensors, .pth, .ckpt, or a folder of a model
    hub), in the order that the ensemble shall have. Files are known by their content; names may
    be timm's, its classifiers', or those of ConvNeXt-V2's authors. No code in a file is run. What
    the files do not say is taken from the options, else it is what the reference starts with.
    """
    from eosfm_edge.api.options import ImportOptions
    from eosfm_edge.api.verbs import import_ensemble

    overwrite = options.pop("overwrite")
    chosen = ImportOptions(**options)
    imported = import_ensemble(sources, output, chosen, overwrite=overwrite)
    _note_of_scale(chosen, imported.spec)
    _report(imported, output)


def _note_of_scale(options: ImportOptions, spec: EnsembleSpec) -> None:
    """Tell that a sensor's values go in as they are stored, which seldom is what was trained on."""
    sentinel_2 = [band for band in spec.input if canonical(band.name or "") in S2_L1C]
    if options.scale or options.offset or not sentinel_2:
        return
    if all(band.scale == 1 and band.mean is None for band in sentinel_2):
        click.echo(
            "note: the input's scale is 1: specialists see what Sentinel-2 stores, 10000 for a "
            "reflectance of 1. If they were trained on reflectances, say --scale 0.0001; if on "
            "standardised values, --mean and --std",
            err=True,
        )


def _report(imported: Imported, output: Path) -> None:
    for note in imported.notes:
        click.echo(f"note: {note}", err=True)
    spec = imported.spec
    console().print(
        f"{output}: {len(spec.specialists)} specialists, {len(spec.input)} input bands, "
        f"normalisation '{spec.normalisation}', fusion '{spec.fusion}'"
    )
