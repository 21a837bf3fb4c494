"""Bundles of a few kilobytes with everything in them, for the native tests and the fuzzer's corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import timm
import torch

from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.bundle.manifest import Precision
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.ensemble.spec import EnsembleSpec
from eosfm_edge.export.chain import Chain
from eosfm_edge.export.native import write_chain, write_specialists
from eosfm_edge.export.ranges import measure_ranges

TILE = 32
DEPTHS, WIDTHS = (1, 1, 2, 1), (8, 16, 24, 16)


def shrink(ensemble: Ensemble) -> None:
    """Replace the encoders by very narrow ones; only what is exported of the ensemble works then."""
    for index, encoder in enumerate(ensemble.encoders):
        bands = encoder.stem_0.in_channels
        ensemble.encoders[index] = timm.create_model(
            "convnextv2_atto",
            features_only=True,
            in_chans=bands,
            depths=DEPTHS,
            dims=WIDTHS,
        ).eval()
    with torch.no_grad():
        for parameter in ensemble.encoders.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def write_tiny(folder: Path, spec: EnsembleSpec, precision: Precision, seed: int = 0) -> Path:
    """Write the native part of a bundle of the spec's chain over very narrow specialists."""
    torch.manual_seed(seed)
    ensemble = Ensemble(spec)
    shrink(ensemble)
    ensemble.feature_normalizers = torch.nn.ModuleList(
        torch.nn.ModuleList(_normaliser(old, width) for old, width in zip(levels, WIDTHS, strict=True))
        for levels in ensemble.feature_normalizers
    )
    folder.mkdir(parents=True)
    chain = Chain(ensemble)
    image = np.random.default_rng(seed).normal(1, 1, (1, len(spec.input), TILE, TILE))
    image = image.astype(np.float32)
    with torch.inference_mode():
        levels = ensemble(physical_units(spec, torch.from_numpy(image)))
    answer = KnownAnswer(image, tuple(level.numpy() for level in levels))
    ranges = measure_ranges(chain, [image[0]]) if precision == "int8" else {}
    write_specialists(folder, chain, precision, ranges)
    write_chain(folder, chain, "tiny", TILE, precision, answer, 0.5)
    return folder


def _normaliser(old: torch.nn.Module, width: int) -> torch.nn.Module:
    match old:
        case torch.nn.BatchNorm2d():
            return torch.nn.BatchNorm2d(width, affine=False).eval()
        case torch.nn.GroupNorm():
            return torch.nn.GroupNorm(1, width, affine=False)
        case _:
            return torch.nn.Identity()
