"""``eosfm-edge import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic import ValidationError

from eosfm_edge.cli.options import PATH, console, overwrite
from eosfm_edge.ensemble.bands import PRESETS, Band, parse_bands
from eosfm_edge.ensemble.spec import (
    FusionMode,
    InputBand,
    NormalisationMode,
    SelectionSpec,
    explain,
)
from eosfm_edge.errors import UserError

if TYPE_CHECKING:
    from eosfm_edge.ensemble.importer import Imported


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
@click.option("--scale", type=float, help="physical = stored * SCALE + OFFSET.  [default: 1]")
@click.option("--offset", type=float, help="See --scale.  [default: 0]")
@click.option("--nodata", type=float, help="Stored value of pixels without data.")
@click.option(
    "--specialist-bands",
    multiple=True,
    metavar="NAME=BANDS",
    help="What bands a specialist wants, if the files do not say so. May be repeated.",
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
    checkpoints (.ckpt), and single specialists (.safetensors, .pth, .ckpt), in the order that
    the ensemble shall have. No code in them is run. What the files do not say is taken from the
    options, else it is what the reference starts with.
    """
    from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble

    imported = import_ensemble(
        sources,
        output,
        ImportOptions(
            name=options["name"],
            input=_input(options),
            specialist_bands=dict(_named_bands(text) for text in options["specialist_bands"]),
            normalisation=options["norm"],
            selection=_selection(options),
            fusion=options["fusion"],
        ),
        overwrite=options["overwrite"],
    )
    _report(imported, output)


def _input(options: dict[str, Any]) -> tuple[InputBand, ...] | None:
    values = {
        key: options[key] for key in ("scale", "offset", "nodata") if options[key] is not None
    }
    if options["bands"] is None:
        if values:
            raise UserError(f"--{next(iter(values))} without --bands", remedy="add --bands")
        return None
    try:
        return tuple(
            InputBand(name=band.name, wavelength_nm=band.wavelength_nm, **values)
            for band in options["bands"]
        )
    except ValidationError as error:
        raise UserError(f"the input's bands cannot be read so: {explain(error)}") from error


def _named_bands(text: str) -> tuple[str, tuple[Band, ...]]:
    name, separator, bands = text.partition("=")
    if not separator:
        raise UserError(f"--specialist-bands {text!r}", expected="NAME=BANDS")
    return name, parse_bands(bands)


def _selection(options: dict[str, Any]) -> SelectionSpec | None:
    mode, k, scaled = options["selection"], options["top_k"], options["scale_features"]
    if mode is None and k is None and not scaled:
        return None
    if mode == "smooth" and k is not None:
        raise UserError("--top-k with --selection smooth", remedy="leave one of them out")
    return SelectionSpec(mode=mode or "topk", k=k, scale_features=scaled)


def _report(imported: Imported, output: Path) -> None:
    for note in imported.notes:
        click.echo(f"note: {note}", err=True)
    spec = imported.spec
    console().print(
        f"{output}: {len(spec.specialists)} specialists, {len(spec.input)} input bands, "
        f"normalisation '{spec.normalisation}', fusion '{spec.fusion}'"
    )
