"""``eosfm-edge targets``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from eosfm_edge.cli.options import Json
from eosfm_edge.cli.output import console, facts, print_json
from eosfm_edge.cli.typed import completing
from eosfm_edge.formats.target import Profile
from eosfm_edge.targets.registry import (
    ALIASES,
    describe_choice,
    find_target,
    known_targets,
    target_names,
)


def list_(as_json: Json = False) -> None:
    """List all targets, and what computes there."""
    profiles = [find_target(name) for name in target_names()]
    if as_json:
        print_json({"targets": profiles, "aliases": ALIASES})
        return
    table = Table("target", "device", "engines", "precisions", box=None, padding=(0, 2, 0, 0))
    for profile in profiles:
        table.add_row(
            profile.name, profile.summary, _engines(profile), " ".join(profile.precisions)
        )
    console().print(table)
    for alias, name in ALIASES.items():
        console().print(f"{alias} is {name}")


def show(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A name, or a profile of your own (.yaml).",
            autocompletion=completing(known_targets),
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show what is known of a target, and from where."""
    profile = find_target(target)
    if as_json:
        print_json(profile)
        return
    out = console()
    if choice := describe_choice(target, profile):
        out.print(choice)
    rows = facts()
    rows.add_column()
    rows.add_column(overflow="fold")  # addresses are to be copied
    rows.add_row("target", f"{profile.name}: {profile.summary}")
    rows.add_row("experience", profile.experience)
    rows.add_row("architecture", profile.architecture or "any")
    rows.add_row("engines", _engines(profile))
    rows.add_row("precisions", ", ".join(profile.precisions))
    rows.add_row("default", f"{profile.batch} tile of {profile.tile} pixels, opset {profile.opset}")
    if profile.gpu:
        capabilities = ", ".join(profile.gpu.compute_capabilities)
        rows.add_row("GPU", f"{profile.gpu.name}, SM {capabilities}")
    if profile.cores:
        rows.add_row("cores", str(profile.cores))
    if profile.memory_mb:
        rows.add_row("memory", f"{profile.memory_mb:,} MB")
    if profile.workspace_mb:
        rows.add_row("workspace", f"{profile.workspace_mb:,} MB")
    if profile.peak_tops:
        peaks = ", ".join(f"{peak:g} in {p}" for p, peak in profile.peak_tops.items())
        rows.add_row("peak", f"1e12 operations a second: {peaks}")
    if profile.bandwidth_gbs:
        rows.add_row("bandwidth", f"{profile.bandwidth_gbs:g} GB/s")
    for system in profile.systems:
        parts = system.model_dump(exclude={"name"}, exclude_none=True)
        rows.add_row(system.name, ", ".join(f"{part} {version}" for part, version in parts.items()))
    for mode in profile.power_modes:
        rows.add_row(f"mode {mode.name}", f"{mode.watts:g} W")
    for field, source in profile.sources.items():
        rows.add_row(f"source of {field}", source)
    out.print(rows)


def _engines(profile: Profile) -> str:
    """Return who computes a bundle there: libeosfm everywhere, and what the graphs are for."""
    return f"native, {profile.engine}"
