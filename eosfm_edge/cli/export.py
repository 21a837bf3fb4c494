"""``eosfm-edge export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import eosfm_edge as ee
from eosfm_edge.api.options import ExportOptions, as_path
from eosfm_edge.cli.options import (
    EnsembleArgument,
    Json,
    Overwrite,
    Quiet,
    Verbose,
    named_output,
)
from eosfm_edge.cli.output import console, megabytes, print_json
from eosfm_edge.cli.places import bundle_place, the_ensemble
from eosfm_edge.cli.progress import shown_progress
from eosfm_edge.cli.typed import with_options

if TYPE_CHECKING:
    from eosfm_edge.formats.bundle import Manifest


@with_options(ExportOptions, target="TARGET", precision="<auto|fp32|fp16|bf16|int8>")
def export(
    options: ExportOptions,
    ensemble: EnsembleArgument = None,
    output: Annotated[
        str | None,
        named_output("The bundle to write: NAME.eosfm.", "ENSEMBLE-TARGET.eosfm"),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export an ensemble as a bundle for a target.

    The engines that the bundle is for, libeosfm and ONNX Runtime, run the exported model on tiles
    of the imagery, and the levels are compared with PyTorch's. Exits with 1, and writes nothing, if
    a level differs by more than 1e-4 of its largest value in fp32, or loses too much in another
    precision. For desktop-rtx, TensorRT engines are built here too, with a GPU or without.
    """
    from eosfm_edge.bundle.sizes import bundle_sizes
    from eosfm_edge.formats.engines import read_index
    from eosfm_edge.targets.registry import describe_choice, find_target

    source = the_ensemble(ensemble, "export", options)
    place = as_path(output or bundle_place(source, find_target(str(options.target))))
    with shown_progress(quiet=quiet, verbose=verbose) as progress:
        manifest = ee.export(source, place, options, overwrite=overwrite, progress=progress)
    sizes = bundle_sizes(place, manifest)
    if as_json:
        engines = read_index(place).engines
        print_json({"output": place, "manifest": manifest, "engines": engines, "sizes": sizes})
        return
    profile = manifest.profile
    assert profile is not None
    out = console()
    if choice := describe_choice(str(options.target), profile):
        out.print(choice)
    if options.precision is None and not manifest.candidates:
        out.print(f"precision: {manifest.precision}, the default for {profile.name}")
    out.print(
        f"{place}: {megabytes(sum(entry.size for entry in manifest.files.values()))}, "
        f"{len(manifest.specialists)} specialists in, {len(manifest.left_out)} left out"
    )
    for candidate in manifest.candidates:
        out.print(candidate.summary)
    if manifest.candidates:
        out.print(f"the fastest that is faithful: {manifest.precision}")
    for parity in manifest.parity:
        out.print(parity.summary)
    for engine in read_index(place).engines:
        out.print(engine.summary)
    if profile.name != "cpu":
        out.print(_prospect(manifest))
    out.print(sizes.summary)


def _prospect(manifest: Manifest) -> str:
    """Say what will run on the target, how fast at best, and what was ever tried there."""
    from eosfm_edge.targets.expectation import expected_time

    profile = manifest.profile
    assert profile is not None and manifest.macs is not None
    native = manifest.of_role("native")
    if not manifest.graphs:
        computes = "libeosfm"
    elif profile.engine == "onnxruntime":
        computes = "libeosfm, or ONNX Runtime on the CPU" if native else "ONNX Runtime on the CPU"
    else:
        computes = "TensorRT, after eosfm-edge build there"
        computes += "; without it libeosfm on the CPU" if native else ""
    weights = sum(manifest.files[name].size for name in native or manifest.graphs)
    bound = expected_time(profile, manifest.precision, manifest.macs, weights)
    speed = bound.summary if bound else "nothing is known of its speed"
    return f"on {profile.name} in {manifest.precision}: {computes}; {speed}; {profile.experience}"
