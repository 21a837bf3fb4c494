"""``eosfm-edge inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from eosfm_edge.api.opened import describe
from eosfm_edge.api.options import as_path
from eosfm_edge.bundle.sizes import BundleSizes, bundle_sizes
from eosfm_edge.cli.calibrate import show_calibration
from eosfm_edge.cli.options import Json
from eosfm_edge.cli.output import console, facts, megabytes, print_json
from eosfm_edge.formats.adaptation import Indices
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import BundledSpecialist, Manifest
from eosfm_edge.formats.calibration import Calibration
from eosfm_edge.formats.ensemble import EnsembleSpec, InputBand, SpecialistSpec


def inspect(
    directory: Annotated[
        str, typer.Argument(metavar="DIRECTORY", help="An ensemble, a bundle or a calibration.")
    ],
    as_json: Json = False,
) -> None:
    """Show what is in an ensemble, a bundle or a calibration.

    --json prints its ensemble.json, manifest.json or calibration.json, checked against the schema;
    of a bundle also its sizes.
    """
    description = describe(directory)
    if isinstance(description, Manifest):
        sizes = bundle_sizes(as_path(directory), description)
        if as_json:
            print_json({**description.model_dump(), "sizes": sizes})
        else:
            _show_bundle(description, sizes)
    elif as_json:
        print_json(description)
    elif isinstance(description, Calibration):
        show_calibration(description)
    else:
        _show_ensemble(description)


def _show_ensemble(spec: EnsembleSpec) -> None:
    rows = facts()
    rows.add_row("ensemble", spec.name)
    _add_input(rows, spec.input)
    rows.add_row("normalisation", spec.normalisation)
    rows.add_row("projection", "yes" if spec.projection else "no")
    rows.add_row("selection", _selection(spec))
    rows.add_row("fusion", spec.fusion)
    console().print(rows)
    for specialist, runs in zip(spec.specialists, spec.feature_sets(), strict=True):
        console().print(_specialist(specialist, runs, spec.input))


def _show_bundle(manifest: Manifest, sizes: BundleSizes) -> None:
    batch = f"up to {manifest.tile.batch}" if manifest.tile.batch > 1 else "one"
    rows = facts()
    rows.add_row("bundle", f"{manifest.name}, by {manifest.created_with}")
    rows.add_row("target", f"{manifest.target}, {manifest.precision}, {_graphs(manifest)}")
    _add_input(rows, manifest.input)
    rows.add_row("tile", f"{manifest.tile.size} x {manifest.tile.size} pixels, {batch} at a time")
    if manifest.macs is not None:
        rows.add_row("cost", f"{manifest.macs / 1e6:,.0f} million MACs a tile")
    for level in manifest.levels:
        rows.add_row(level.name, f"{level.channels} channels, stride {level.stride}")
    for parity in manifest.parity:
        rows.add_row("parity", parity.summary)
    for name, entry in manifest.files.items():
        rows.add_row(name, f"{entry.role}, {megabytes(entry.size)}, SHA-256 {entry.sha256[:16]}...")
    console().print(rows)
    for specialist in manifest.specialists:
        console().print(_specialist(specialist, specialist.runs, manifest.input))
    for left_out in manifest.left_out:
        console().print(f"\n{left_out.name}: left out, {left_out.reason}")
    console().print(f"\n{sizes.summary}")


def _graphs(manifest: Manifest) -> str:
    if not manifest.graphs:
        return "no ONNX graph"
    count = len(manifest.graphs)
    return f"{manifest.layout}: {'one graph' if count == 1 else f'{count} graphs'}"


def _add_input(rows: Table, bands: Sequence[InputBand]) -> None:
    """Add a row for each group of bands that are read alike."""
    groups: dict[str, list[InputBand]] = {}
    for band in bands:
        nodata = "no nodata value" if band.nodata is None else f"nodata {band.nodata:g}"
        how = f"stored * {band.scale:g} + {band.offset:g}, {nodata}"
        if band.mean is not None:
            how += f"; specialists see (stored - {band.mean:g}) / {band.std:g}"
        groups.setdefault(how, []).append(band)
    for how, members in groups.items():
        rows.add_row("input", f"{_bands(members)}: {how}")


def _selection(spec: EnsembleSpec) -> str:
    text: str = spec.selection.mode
    if spec.selection.mode == "topk":
        text += f", {spec.selection.k or 'all'} of {len(spec.specialists)}"
    return text + (", features scaled" if spec.selection.scale_features else "")


def _specialist(
    specialist: SpecialistSpec | BundledSpecialist,
    runs: Sequence[Indices],
    bands: Sequence[InputBand],
) -> str:
    lines = [
        f"\n{specialist.name}: {specialist.backbone}, wants {_bands(specialist.bands)}",
        *(f"  is run on {_bands([bands[i] for i in run])}" for run in runs),
        f"  licence: {specialist.provenance.licence or 'not stated'}",
    ]
    lines += [
        f"  pruned from {one.macs_before:,.0f} to {one.macs_after:,.0f} MACs a pixel, {one.scope}, "
        f"{one.criterion}, repaired on {one.tiles} tiles: {', '.join(one.repair) or 'no repair'}"
        for one in specialist.pruning
    ]
    if not runs:
        lines.insert(1, "  is skipped: no rule for the input's bands")
    return "\n".join(lines)


def _bands(bands: Sequence[Band]) -> str:
    return " ".join(str(band) for band in bands)
