"""``eosfm-edge inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from eosfm_edge.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from eosfm_edge.cli.options import PATH, console, megabytes
from eosfm_edge.ensemble.bands import Band
from eosfm_edge.ensemble.spec import SPEC_NAME, EnsembleSpec, InputBand, read_spec
from eosfm_edge.errors import UserError


@click.command()
@click.argument("directory", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the description as it is on disk.")
def inspect(directory: Path, as_json: bool) -> None:
    """Show what an ensemble or a bundle DIRECTORY holds, takes and gives."""
    description = _read(directory)
    if as_json:
        click.echo(description.model_dump_json(indent=1))
    elif isinstance(description, Manifest):
        _show_bundle(description)
    else:
        _show_ensemble(description)


def _read(directory: Path) -> EnsembleSpec | Manifest:
    if (directory / MANIFEST_NAME).exists():
        return read_manifest(directory)
    if (directory / SPEC_NAME).exists():
        return read_spec(directory)
    raise UserError(
        f"{directory} is neither an ensemble nor a bundle",
        expected=f"a directory with {SPEC_NAME} or {MANIFEST_NAME}",
    )


def _show_ensemble(spec: EnsembleSpec) -> None:
    selection: str = spec.selection.mode
    if spec.selection.mode == "topk":
        selection += f", {spec.selection.k or 'all'} of {len(spec.specialists)}"
    if spec.selection.scale_features:
        selection += ", features scaled"
    facts = _facts()
    facts.add_row("ensemble", spec.name)
    facts.add_row("input", _input(spec.input))
    facts.add_row("normalisation", spec.normalisation)
    facts.add_row("projection", "yes" if spec.projection else "no")
    facts.add_row("selection", selection)
    facts.add_row("fusion", spec.fusion)
    specialists = _specialist_table()
    for specialist, sets in zip(spec.specialists, spec.feature_sets(), strict=True):
        runs = "; ".join(_bands([spec.input[i] for i in run]) for run in sets)
        specialists.add_row(
            specialist.name,
            specialist.backbone,
            _bands(specialist.bands),
            runs or "skipped: no rule for the input's bands",
            specialist.provenance.licence or "not stated",
        )
    console().print(facts, specialists, sep="\n")


def _show_bundle(manifest: Manifest) -> None:
    facts = _facts()
    facts.add_row("bundle", f"{manifest.name}, by {manifest.created_with}")
    facts.add_row("target", f"{manifest.target}, {manifest.precision}")
    facts.add_row("input", _input(manifest.input))
    batch = "any number" if manifest.tile.dynamic_batch else "one"
    facts.add_row("tile", f"{manifest.tile.size} x {manifest.tile.size} pixels, {batch} at a time")
    for level in manifest.levels:
        facts.add_row(level.name, f"{level.channels} channels, stride {level.stride}")
    worst = max(level.relative for level in manifest.parity.levels)
    facts.add_row(
        "parity",
        f"{worst:.1e} of the largest value at most, {manifest.parity.tiles} tiles, "
        f"{manifest.parity.backend} against PyTorch",
    )
    for name, entry in manifest.files.items():
        facts.add_row(name, f"{megabytes(entry.size)}, SHA-256 {entry.sha256[:16]}...")
    specialists = _specialist_table()
    for specialist in manifest.specialists:
        runs = "; ".join(_bands([manifest.input[i] for i in run]) for run in specialist.runs)
        specialists.add_row(
            specialist.name,
            specialist.backbone,
            _bands(specialist.bands),
            runs,
            specialist.provenance.licence or "not stated",
        )
    for left_out in manifest.left_out:
        specialists.add_row(left_out.name, "", "", f"left out: {left_out.reason}", "")
    console().print(facts, specialists, sep="\n")


def _facts() -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    return table


def _specialist_table() -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("specialist", "backbone", "wants", "is run on", "licence"):
        table.add_column(column)
    return table


def _bands(bands: Sequence[Band]) -> str:
    return " ".join(str(band) for band in bands)


def _input(bands: Sequence[InputBand]) -> str:
    radiometry = {(band.scale, band.offset, band.nodata) for band in bands}
    if len(radiometry) > 1:
        return f"{_bands(bands)} (scale, offset and nodata differ: see --json)"
    scale, offset, nodata = radiometry.pop()
    return f"{_bands(bands)} (stored * {scale:g} + {offset:g}, nodata {nodata})"
