"""A palette for ensembles of tests, which have one then as most do: fitting takes a while."""

from __future__ import annotations

from pathlib import Path

import torch

from eosfm_edge.bundle.palette import palette_bytes
from eosfm_edge.ensemble.model import physical_units
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.ensemble import PALETTE_NAME
from eosfm_edge.network.palette import palette_of_tiles
from support.scenes import scene_pixels


def with_palette(folder: Path) -> Path:
    """Add a palette to an ensemble's directory, and return the directory."""
    ensemble = load_ensemble(folder)
    stored = scene_pixels(len(ensemble.spec.input), 64, 256).astype("float32")
    seen = physical_units(ensemble.spec, torch.from_numpy(stored[None]))[0]
    palette = palette_of_tiles(ensemble, seen.split(64, dim=2))
    (folder / PALETTE_NAME).write_bytes(palette_bytes(palette))
    return folder
