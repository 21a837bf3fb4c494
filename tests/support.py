"""What tests make for themselves: encoder states, weight files, scenes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.transform import from_origin

from eosfm_edge.ensemble.bands import S2_L1C
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.spec import InputBand
from eosfm_edge.ensemble.specialist import build_encoder
from eosfm_edge.errors import ExitCode, UserError

# Models this small gain nothing from threads, and beside other work on the machine they starve.
torch.set_num_threads(1)

State = dict[str, torch.Tensor]

S2_INPUT = tuple(InputBand(name=name, scale=1e-4, nodata=0) for name in S2_L1C)


def encoder_state(in_chans: int, seed: int = 0, backbone: str = "convnextv2_atto") -> State:
    """Return an encoder's state with every tensor random: GRN's and biases start at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            key: value + 0.1 * torch.randn(value.shape)
            for key, value in build_encoder(backbone, in_chans).state_dict().items()
        }


class Bomb:
    """Makes a directory when it is unpickled without care."""

    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.crater),)


def write_pth(path: Path, wants: Sequence[int]) -> Path:
    """Write an EoS-FM ensemble file with one random specialist for each number of bands."""
    config = {"backbone": "timm_convnextv2_atto"}
    torch.save([(n, encoder_state(n, seed), config) for seed, n in enumerate(wants)], path)
    return path


def refusal(folder: Path, sources: Sequence[Path], options: ImportOptions | None = None) -> str:
    """Return the message of an import into a folder that must fail and leave nothing there."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as error:
        import_ensemble(sources, folder / "out", options or ImportOptions(input=S2_INPUT))
    assert error.value.exit_code == ExitCode.WRONG_USE
    assert sorted(folder.rglob("*")) == before
    return str(error.value)


def scene_pixels(bands: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    """Return smooth imagery with some texture, digital numbers from 100 to 4000."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 64
    waves = [np.sin(x * rng.uniform(0.5, 3) + y * rng.uniform(0.5, 3) + i) for i in range(bands)]
    noise = rng.normal(0, 0.1, (bands, height, width))
    return (2000 + 1500 * np.clip(np.stack(waves) + noise, -1.2, 1.2)).astype(np.uint16)


def write_scene(
    path: Path,
    pixels: NDArray[np.generic],
    names: Sequence[str] | None = None,
    *,
    resolution: float = 10.0,
    nodata: float | None = None,
) -> Path:
    """Write a GeoTIFF (bands, H, W) in UTM with its corner at (500000, 4000000)."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype=pixels.dtype,
        count=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        crs="EPSG:32633",
        transform=from_origin(500_000, 4_000_000, resolution, resolution),
        nodata=nodata,
    ) as dataset:
        dataset.write(pixels)
        if names:
            dataset.descriptions = tuple(names)
    return path
