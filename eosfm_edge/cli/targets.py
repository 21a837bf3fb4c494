"""``eosfm-edge targets``."""

from __future__ import annotations

import click
from rich.table import Table

from eosfm_edge.cli.options import console


@click.group()
def targets() -> None:
    """Show the devices that bundles are made for."""


@targets.command("list")
def list_() -> None:
    """List all targets, and what computes there."""
    from eosfm_edge.targets.registry import ALIASES, find_target, target_names

    table = Table("target", "device", "engine", "precisions", box=None, padding=(0, 2, 0, 0))
    for name in target_names():
        profile = find_target(name)
        table.add_row(name, profile.summary, profile.engine, " ".join(profile.precisions))
    console().print(table)
    for alias, name in ALIASES.items():
        console().print(f"{alias} is {name}")


@targets.command()
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON.")
def show(target: str, as_json: bool) -> None:
    """Show what is known of a TARGET, a name or a profile of your own (.yaml), and from where."""
    from eosfm_edge.targets.registry import describe_choice, find_target

    profile = find_target(target)
    if as_json:
        click.echo(profile.model_dump_json(indent=1))
        return
    out = console()
    if choice := describe_choice(target, profile):
        out.print(choice)
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column()
    facts.add_column(overflow="fold")  # addresses are to be copied
    facts.add_row("target", f"{profile.name}: {profile.summary}")
    facts.add_row("experience", profile.experience)
    facts.add_row("architecture", profile.architecture or "any")
    facts.add_row("engine", profile.engine)
    facts.add_row("precisions", ", ".join(profile.precisions))
    facts.add_row(
        "default", f"{profile.batch} tile of {profile.tile} pixels, opset {profile.opset}"
    )
    if profile.gpu:
        capabilities = ", ".join(profile.gpu.compute_capabilities)
        facts.add_row("GPU", f"{profile.gpu.name}, SM {capabilities}")
    if profile.memory_mb:
        facts.add_row("memory", f"{profile.memory_mb:,} MB")
    if profile.workspace_mb:
        facts.add_row("workspace", f"{profile.workspace_mb:,} MB")
    if profile.peak_tops:
        peaks = ", ".join(f"{peak:g} in {p}" for p, peak in profile.peak_tops.items())
        facts.add_row("peak", f"1e12 operations a second: {peaks}")
    if profile.bandwidth_gbs:
        facts.add_row("bandwidth", f"{profile.bandwidth_gbs:g} GB/s")
    for system in profile.systems:
        parts = system.model_dump(exclude={"name"}, exclude_none=True)
        facts.add_row(
            system.name, ", ".join(f"{part} {version}" for part, version in parts.items())
        )
    for mode in profile.power_modes:
        facts.add_row(f"mode {mode.name}", f"{mode.watts:g} W")
    for field, source in profile.sources.items():
        facts.add_row(f"source of {field}", source)
    out.print(facts)


@targets.command()
def detect() -> None:
    """Say what this machine is, and which target fits it."""
    from eosfm_edge.device.detect import detect as look

    machine = look()
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_row("CPU", f"{machine.architecture}, glibc {machine.glibc}")
    if machine.board:
        facts.add_row("board", machine.board)
    if machine.l4t:
        facts.add_row("Jetson Linux", machine.l4t)
    gpu = machine.gpu
    facts.add_row(
        "GPU",
        f"{gpu.name}, SM {gpu.compute_capability}, {gpu.memory >> 20:,} MB, CUDA {gpu.cuda}"
        if gpu
        else "none that CUDA can use",
    )
    facts.add_row("TensorRT", ", ".join(map(str, machine.tensorrt)) or "none")
    profile, why = machine.target()
    facts.add_row("target", f"{profile.name}: {why}")
    console().print(facts)
