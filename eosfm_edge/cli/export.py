"""``eosfm-edge export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eosfm_edge.cli.options import (
    PATH,
    SCENE,
    compute_capabilities,
    console,
    imagery,
    megabytes,
    overwrite,
)
from eosfm_edge.cli.progress import progress_bars

if TYPE_CHECKING:
    from eosfm_edge.formats.bundle import Manifest


@click.command()
@click.argument("ensemble", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The bundle to write: NAME.eosfm.")
@click.option(
    "--target",
    default="cpu",
    show_default=True,
    help="The device: a name that eosfm-edge targets lists, or a profile of your own (.yaml).",
)
@click.option(
    "--scene",
    type=SCENE,
    required=True,
    help="Real imagery: tiles of it check the exported model and become its known answer.",
)
@click.option(
    "--tile", type=int, help="Pixels a side, a multiple of 32.  [default: the target's, mostly 224]"
)
@click.option(
    "--batch",
    type=int,
    help="Tiles that the ONNX graphs take at once, at most.  [default: the target's, mostly 1]",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "bf16", "int8", "fp8"]),
    default="fp32",
    show_default=True,
    help="Of the matrices; int8 needs --calibration; 'auto' takes the fastest that is faithful.",
)
@click.option("--calibration", type=PATH, help="What eosfm-edge calibrate wrote, for int8.")
@click.option(
    "--split",
    "layout",
    flag_value="split",
    help="An ONNX graph for each specialist, for small boards and updates of single specialists.",
)
@click.option(
    "--stack",
    "layout",
    flag_value="stacked",
    help="One graph that computes specialists of equal shape together, to fill a GPU.",
)
@compute_capabilities
@imagery
@overwrite
def export(ensemble: Path, output: Path, **options: Any) -> None:
    """Export an ENSEMBLE directory as a bundle for a target.

    What is written is run on tiles of the scene, with ONNX Runtime and the native engine, and
    compared with PyTorch; no bundle is written if a level differs by more than 1e-4 of its largest
    value in fp32, or if other precisions leave too little of it, or not what was calibrated. For
    desktop-rtx, TensorRT engines are built here too, with a GPU or without.
    """
    from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
    from eosfm_edge.formats.engines import read_index
    from eosfm_edge.network.latency import time_precisions
    from eosfm_edge.targets.registry import describe_choice, find_target

    profile = find_target(options["target"])
    with progress_bars(None) as progress:
        manifest = export_bundle(
            ensemble,
            options["scene"],
            output,
            ExportOptions(
                target=profile,
                precision=options["precision"],
                calibration=options["calibration"],
                timer=time_precisions,
                tile=options["tile"],
                batch=options["batch"],
                layout=options["layout"] or "whole",
                compute_capabilities=options["capabilities"],
                names=options["names"],
                radiometry=options["radiometry"],
                overwrite=options["overwrite"],
            ),
            progress,
        )
    out = console()
    if choice := describe_choice(options["target"], profile):
        out.print(choice)
    out.print(
        f"{output}: {megabytes(sum(entry.size for entry in manifest.files.values()))}, "
        f"{len(manifest.specialists)} specialists in, {len(manifest.left_out)} left out"
    )
    for candidate in manifest.candidates:
        out.print(candidate.summary)
    if manifest.candidates:
        out.print(f"the fastest that is faithful: {manifest.precision}")
    for parity in manifest.parity:
        out.print(parity.summary)
    for engine in read_index(output).engines:
        out.print(engine.summary)
    if profile.name != "cpu":
        out.print(_prospect(manifest))


def _prospect(manifest: Manifest) -> str:
    """Say what will run on the target, how fast at best, and what was ever tried there."""
    from eosfm_edge.targets.expectation import expected_time

    profile = manifest.profile
    assert profile is not None and manifest.macs is not None
    computes = "libeosfm, or ONNX Runtime on the CPU"
    if profile.engine != "onnxruntime":
        computes = "TensorRT, after eosfm-edge build there; without it libeosfm on the CPU"
    weights = sum(entry.size for name, entry in manifest.files.items() if name.endswith(".gguf"))
    bound = expected_time(profile, manifest.precision, manifest.macs, weights)
    speed = bound.summary if bound else "nothing is known of its speed"
    return f"on {profile.name} in {manifest.precision}: {computes}; {speed}; {profile.experience}"
