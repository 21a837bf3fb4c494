"""Random chains, and the native part of a bundle for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.exporting.graphs import write_graphs
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import Layout
from eosfm_edge.formats.ensemble import (
    EnsembleSpec,
    FusionMode,
    InputBand,
    NormalisationMode,
    Provenance,
    SelectionSpec,
    SpecialistSpec,
)
from eosfm_edge.formats.precision import Precision
from eosfm_edge.network.deployed import DeployedEncoder, Depthwise
from eosfm_edge.network.native_files import Graphs, write_chain, write_specialists

Array = NDArray[np.float32]


def input_band(index: int, *, last: bool) -> InputBand:
    """Return a band with a calibration of its own; the last has a nodata and a fill value too."""
    filled = {"fill": 3.0, "nodata": -7.0} if last else {}
    return InputBand(scale=0.5 + 0.1 * index, offset=0.01 * index, **filled)


def spec_of(
    wants: Sequence[int],
    bands: int,
    *,
    normalisation: NormalisationMode = "batch",
    projection: bool = False,
    selection: SelectionSpec | None = None,
    fusion: FusionMode = "none",
    backbone: str = "atto",
) -> EnsembleSpec:
    return EnsembleSpec(
        name="test",
        input=tuple(input_band(i, last=i == bands - 1) for i in range(bands)),
        specialists=tuple(
            SpecialistSpec(
                name=f"s{i}",
                backbone=f"convnextv2_{backbone}",
                bands=(Band(),) * count,
                weights=f"s{i}.safetensors",
                weights_sha256="0" * 64,
                provenance=Provenance(source="random"),
            )
            for i, count in enumerate(wants)
        ),
        normalisation=normalisation,
        projection=projection,
        selection=selection or SelectionSpec(),
        fusion=fusion,
        shared_sha256="0" * 64,
    )


def random_ensemble(spec: EnsembleSpec, seed: int = 0, **widths: object) -> Ensemble:
    """Build an ensemble with every tensor random, GRN's and variances too."""
    torch.manual_seed(seed)
    ensemble = Ensemble(spec, **widths)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for name, buffer in ensemble.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return ensemble


def narrow(ensemble: Ensemble, seed: int) -> None:
    """Cut every block's hidden width to some multiple of 8, as pruning does."""
    rng = np.random.default_rng(seed)
    for encoder in ensemble.encoders:
        for name, module in list(encoder.named_modules()):
            if not name.endswith(".mlp"):
                continue
            width, hidden = module.fc1.in_channels, module.fc1.out_channels
            kept = torch.from_numpy(
                np.sort(rng.permutation(hidden)[: 8 * rng.integers(1, hidden // 8 + 1)])
            )
            fc1, fc2 = nn.Conv2d(width, len(kept), 1), nn.Conv2d(len(kept), width, 1)
            fc1.weight.data, fc1.bias.data = module.fc1.weight[kept], module.fc1.bias[kept]
            fc2.weight.data, fc2.bias.data = module.fc2.weight[:, kept], module.fc2.bias
            module.fc1, module.fc2 = fc1, fc2
            module.grn.weight = nn.Parameter(module.grn.weight[kept])
            module.grn.bias = nn.Parameter(module.grn.bias[kept])


def image_of(bands: int, height: int, width: int, seed: int = 0) -> Array:
    """Return smooth stored values with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = [np.sin(x * rng.uniform(0.2, 2) + y * rng.uniform(0.2, 2) + i) for i in range(bands)]
    noise = rng.normal(0, 0.2, (bands, height, width))
    return np.asarray(np.stack(waves) + noise, np.float32)


@torch.inference_mode()
def expected_of(ensemble: Ensemble, image: Array) -> list[Array]:
    levels = ensemble(physical_units(ensemble.spec, torch.from_numpy(image[np.newaxis])))
    return [level[0].numpy() for level in levels]


def deployed_encoders(
    ensemble: Ensemble, image: Array, precision: Precision
) -> dict[int, DeployedEncoder]:
    """Return encoders with all matrices in a precision, with scales of one image."""
    physical = physical_units(ensemble.spec, torch.from_numpy(image[np.newaxis]))
    encoders = {}
    for owner, runs in enumerate(ensemble.sets):
        encoder = DeployedEncoder(ensemble.encoders[owner])
        if precision == "int8":
            set_scales(encoder, [physical[:, list(bands)] for bands in runs], "minmax", 0)
        for layer in encoder.layers().values():
            half = precision == "bf16" or isinstance(layer, Depthwise)
            layer.precision = "fp32" if precision == "fp32" else "half" if half else "int8"
        encoders[owner] = encoder
    return encoders


def write(
    folder: Path,
    ensemble: Ensemble,
    tile: int,
    precision: Precision = "fp32",
    change: Callable[[DeployedEncoder], None] = lambda encoder: None,
    seen: Array | None = None,
    layout: Layout | None = None,
) -> Path:
    """Write the native part of a bundle, and its graphs.

    Args:
        folder: where to.
        ensemble: what.
        tile: pixels of the known answer's side.
        precision: of all matrices.
        change: to be made to each encoder before it is written.
        seen: the image that int8 has its scales from, instead of the known answer.
        layout: of the graphs, which are in fp32; None: there are none.
    """
    folder.mkdir()
    chain = Chain(ensemble)
    image = image_of(len(ensemble.spec.input), tile, tile)
    levels = tuple(level[np.newaxis] for level in expected_of(ensemble, image))
    encoders = deployed_encoders(ensemble, image if seen is None else seen, precision)
    for encoder in encoders.values():
        change(encoder)
    digests = write_specialists(folder, chain, encoders)
    answer = KnownAnswer(image[np.newaxis], levels)
    tolerance = 1e-4 if precision == "fp32" else 0.5
    graphs = None
    if layout is not None:
        stored = torch.from_numpy(image[np.newaxis])
        files = write_graphs(
            chain, layout, stored, folder, dynamic_batch=False, integer_biases=False
        )
        graphs = Graphs(files, 1e-4)
    write_chain(folder, chain, "test", tile, precision, answer, tolerance, graphs, digests)
    return folder
