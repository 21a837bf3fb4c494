"""``eosfm-edge import``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic import ValidationError

from eosfm_edge.cli.options import PATH, console, overwrite
from eosfm_edge.errors import UserError
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.bands import PRESETS, S2_L1C, Band, canonical, parse_bands
from eosfm_edge.formats.base import explain
from eosfm_edge.formats.ensemble import FusionMode, InputBand, NormalisationMode, SelectionSpec

if TYPE_CHECKING:
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
    from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble

    imported = import_ensemble(
        sources,
        output,
        ImportOptions(
            name=options["name"],
            input=_input(options),
            specialist_bands=dict(_named_bands(text) for text in options["specialist_bands"]),
            adaptation=options["adaptation"],
            normalisation=options["norm"],
            selection=_selection(options),
            fusion=options["fusion"],
            prefix=options["prefix"],
        ),
        overwrite=options["overwrite"],
    )
    _note_of_scale(options, imported.spec)
    _report(imported, output)


def _input(options: dict[str, Any]) -> tuple[InputBand, ...] | None:
    given = {key: options[key] for key in ("scale", "offset", "mean", "std", "nodata", "fill")}
    given = {key: value for key, value in given.items() if value}
    bands: tuple[Band, ...] | None = options["bands"]
    if bands is None:
        if given:
            raise UserError(f"--{next(iter(given))} without --bands", remedy="add --bands")
        return None
    per_band = {key: _per_band(f"--{key}", value, bands) for key, value in given.items()}
    try:
        return tuple(
            InputBand(
                **band.model_dump(),
                **{key: values[band] for key, values in per_band.items() if band in values},
            )
            for band in bands
        )
    except ValidationError as error:
        raise UserError(f"the input's bands cannot be read so: {explain(error)}") from error


def _per_band(option: str, texts: Sequence[str], bands: Sequence[Band]) -> dict[Band, float | None]:
    """Read ``0``, which is for every band, ``B10=none``, for one, and ``1,2``, for each in turn."""
    by_name = {canonical(str(band)): band for band in bands}
    values: dict[Band, float | None] = {}
    # What is said of one band counts more than what is said of all, whichever came first.
    for text in sorted(texts, key=lambda text: "=" in text):
        name, separator, value = text.rpartition("=")
        if not separator and "," in text:
            each = text.split(",")
            if len(each) != len(bands):
                raise UserError(
                    f"{option} {text!r} has {len(each)} values",
                    expected=f"one, or {len(bands)}: {', '.join(map(str, bands))}",
                )
            values |= {
                band: _value(option, text, one) for band, one in zip(bands, each, strict=True)
            }
            continue
        if separator and canonical(name) not in by_name:
            raise UserError(
                f"{option} {text!r}: there is no band {name}",
                expected=f"one of {', '.join(map(str, bands))}",
            )
        meant = [by_name[canonical(name)]] if separator else bands
        values |= dict.fromkeys(meant, _value(option, text, value))
    return values


def _value(option: str, text: str, value: str) -> float | None:
    may_be_none = option == "--nodata"
    if may_be_none and value.strip().lower() == "none":
        return None
    try:
        return float(value)
    except ValueError as error:
        expected = "a number or 'none'" if may_be_none else "a number"
        raise UserError(
            f"{option} {text!r}", expected=f"{expected}, or BAND= and such a value"
        ) from error


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


def _note_of_scale(options: dict[str, Any], spec: EnsembleSpec) -> None:
    """Tell that a sensor's values go in as they are stored, which seldom is what was trained on."""
    sentinel_2 = [band for band in spec.input if canonical(band.name or "") in S2_L1C]
    if options["scale"] or options["offset"] or not sentinel_2:
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
