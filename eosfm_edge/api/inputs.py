"""The input bands and selection that the options of an import describe."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from eosfm_edge.api.options import ImportOptions
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import S2_L1C, Band, canonical
from eosfm_edge.formats.base import explain
from eosfm_edge.formats.ensemble import InputBand, SelectionSpec


def input_bands(options: ImportOptions) -> tuple[InputBand, ...] | None:
    """Return the ensemble's input bands; None if the options give no bands.

    Raises:
        UserError: a value is none, of no band, or there are values without bands.
    """
    given = {
        key: getattr(options, key) for key in ("scale", "offset", "mean", "std", "nodata", "fill")
    }
    given = {key: value for key, value in given.items() if value}
    bands = options.bands
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
        raise UserError(f"the input's bands are not valid: {explain(error)}") from error


def selection(options: ImportOptions) -> SelectionSpec | None:
    """Return how encoders count; None if the options do not say.

    Raises:
        UserError: a number of encoders is given for smooth selection.
    """
    if options.selection is None and options.top_k is None and not options.scale_features:
        return None
    if options.selection == "smooth" and options.top_k is not None:
        raise UserError("--top-k with --selection smooth", remedy="leave one of them out")
    return SelectionSpec(
        mode=options.selection or "topk", k=options.top_k, scale_features=options.scale_features
    )


def notes_on_scale(options: ImportOptions, input: Sequence[InputBand]) -> list[str]:  # noqa: A002
    """Note that a sensor's values go in as they are stored, which seldom is what was trained on."""
    sentinel_2 = [band for band in input if canonical(band.name or "") in S2_L1C]
    if options.scale or options.offset or not sentinel_2:
        return []
    if any(band.scale != 1 or band.mean is not None for band in sentinel_2):
        return []
    return [
        "the input's scale is 1: specialists see what Sentinel-2 stores, 10000 for a reflectance "
        "of 1. If they were trained on reflectances, say --scale 0.0001; if on standardised "
        "values, --mean and --std"
    ]


def _per_band(option: str, texts: Sequence[str], bands: Sequence[Band]) -> dict[Band, float | None]:
    """Read ``0``, which is for every band, ``B10=none``, for one, and ``1,2``, for each in turn."""
    by_name = {canonical(str(band)): band for band in bands}
    values: dict[Band, float | None] = {}
    # A value for one band overrides a value for all, whichever came first.
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
