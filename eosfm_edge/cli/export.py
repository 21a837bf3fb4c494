"""``eosfm-edge export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from eosfm_edge.cli.options import (
    PATH,
    SCENE,
    console,
    megabytes,
    overwrite,
    radiometry,
    scene_bands,
)


@click.command()
@click.argument("ensemble", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The bundle to write: NAME.eosfm.")
@click.option("--target", type=click.Choice(["cpu", "tensorrt"]), default="cpu", show_default=True)
@click.option(
    "--scene",
    type=SCENE,
    required=True,
    help="Real imagery: tiles of it check the exported model and become its known answer.",
)
@click.option(
    "--tile", type=int, default=224, show_default=True, help="Pixels a side, a multiple of 32."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the matrices; int8 needs --calibration; 'auto' takes the fastest that is faithful.",
)
@click.option("--calibration", type=PATH, help="What eosfm-edge calibrate wrote, for int8.")
@click.option("--dynamic-batch", is_flag=True, help="Let the model take several tiles at once.")
@scene_bands
@radiometry
@overwrite
def export(ensemble: Path, output: Path, **options: Any) -> None:
    """Export an ENSEMBLE directory as a bundle.

    What is written is run on tiles of the scene, with ONNX Runtime and the native engine, and
    compared with PyTorch; no bundle is written if a level differs by more than 1e-4 of its largest
    value in fp32, or if other precisions leave too little of it, or not what was calibrated.
    """
    from eosfm_edge.export.exporter import ExportOptions, export_bundle
    from eosfm_edge.latency import time_precisions
    from eosfm_edge.scene.scene import Radiometry

    manifest = export_bundle(
        ensemble,
        options["scene"],
        output,
        ExportOptions(
            target=options["target"],
            precision=options["precision"],
            calibration=options["calibration"],
            timer=time_precisions,
            tile=options["tile"],
            dynamic_batch=options["dynamic_batch"],
            names=options["names"],
            radiometry=Radiometry(options["scale"], options["offset"], options["nodata"]),
            overwrite=options["overwrite"],
        ),
    )
    out = console()
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
