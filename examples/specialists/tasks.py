"""The six training sets behind the example specialists, read from a folder of real data.

Each task gives its images in physical units: reflectance (0..1, top of atmosphere unless
said otherwise) for optical bands, dB for radar. Specialists trained on 8-bit stretched
images therefore take the same input as those trained on calibrated bands.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

IGNORE = 255  # label of a pixel that counts neither in the loss nor in the score

Pixels = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True)
class Chips:
    """Labelled chips: one class for each.

    ``images`` (N, C, H, W) in any dtype; ``scale`` and ``offset`` turn a stored value into
    physical units, as ``value * scale + offset``.
    """

    images: Pixels
    labels: NDArray[np.int64]
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Region:
    """A labelled raster: ``image`` (C, H, W) in physical units, ``labels`` (H, W) with IGNORE."""

    image: NDArray[np.float32]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
    """The task that one specialist is trained and tested on.

    ``train`` is either :class:`Chips` (one label per chip) or a list of :class:`Region` (one
    label per pixel); each entry of ``tests`` is of the same kind. The first entry of
    ``tests`` is the figure that the specialist is known by.
    """

    bands: tuple[str, ...]
    classes: tuple[str, ...]
    train: Chips | list[Region]
    tests: dict[str, Chips | list[Region]]
    units: str


S2_L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
S2_L2A = tuple(band for band in S2_L1C if band != "B10")
RGB = ("B04", "B03", "B02")


def eurosat_rgb(data: Path) -> Task:
    """EuroSAT RGB: 24,000 chips for training, 1,000 for the test, 10 classes.

    The JPEGs are Sentinel-2 L1C digital numbers 0..2750 stretched to 1..255
    (https://github.com/jensleitloff/CNN-Sentinel/issues/1), undone here.
    """
    scale = 0.2750 / 254
    stretch = {"scale": scale, "offset": -scale}
    with open(data / "eurosat_rgb" / "index.csv", newline="") as index:
        rows = [row for row in csv.DictReader(index) if row["split"] == "test"]
    classes = tuple(sorted({row["class"] for row in rows}))
    test = np.stack([_rgb(data / "eurosat_rgb" / row["path"]) for row in rows])
    test_labels = np.array([classes.index(row["class"]) for row in rows])
    images, labels = [], []
    with tarfile.open(data / "eurosat_rgb_train.tar") as archive:
        for member in archive:
            if member.name.endswith(".jpg") and (stream := archive.extractfile(member)):
                images.append(_rgb(io.BytesIO(stream.read())))
                labels.append(classes.index(member.name.split("/")[-2]))
    train = Chips(np.stack(images), np.array(labels), **stretch)
    return Task(
        RGB, classes, train, {"test split": Chips(test, test_labels, **stretch)}, "TOA reflectance"
    )


def mining_rgb(data: Path) -> Task:
    """Amazon Mining Watch chips: mine or not. 8-bit images of L1C digital numbers 0..3000."""
    root = data / "amazon_mine_s2rgb"
    with open(root / "index.csv", newline="") as index:
        rows = list(csv.DictReader(index))
    sheets = {name: _rgb(root / "sheets" / name) for name in {row["sheet"] for row in rows}}

    def chips(keep: Callable[[dict[str, str]], bool]) -> Chips:
        kept = [row for row in rows if keep(row)]
        images = np.stack([_cell(sheets[r["sheet"]], int(r["row"]), int(r["col"])) for r in kept])
        return Chips(images, np.array([int(row["label"]) for row in kept]), scale=0.3 / 255)

    return Task(
        RGB,
        ("not_mine", "mine"),
        chips(lambda r: r["split_rows"] == "train" and r["split_sheet"] == "train"),
        {
            "last rows of the training sheets": chips(
                lambda r: r["split_rows"] == "test" and r["split_sheet"] == "train"
            ),
            "held-out sheets": chips(lambda r: r["split_sheet"] == "test"),
        },
        "TOA reflectance",
    )


def landuse_s2(data: Path) -> Task:
    """OpenStreetMap land use, 13 Sentinel-2 L1C bands; every fourth block of columns tests."""
    root = data / "s2_osm_landuse"
    image = _read(root / "s2_l1c_13band_10m_utm33n.tif") * np.float32(1e-4)
    ids = _read(root / "landuse_osm_8class.tif")[0].astype(np.uint8)
    labels = np.where(ids == 0, IGNORE, ids - 1).astype(np.uint8)
    classes = ("forest", "meadow", "farm", "scrub", "grass", "wetland", "residential", "water")
    block = 128
    is_test = np.arange(image.shape[2]) // block % 4 == 2
    train, test = _split_columns(image, labels, is_test)
    return Task(S2_L1C, classes, train, {"held-out column blocks": test}, "TOA reflectance")


LULC = {
    1: "water",
    2: "trees",
    3: "flooded vegetation",
    4: "crops",
    5: "built",
    6: "bare",
    7: "snow",
    9: "rangeland",
}


def landcover_l2a(data: Path) -> Task:
    """TerraMesh land cover from Sentinel-2 L2A surface reflectance, 12 bands."""
    return _terramesh(data, "S2L2A", S2_L2A, "surface reflectance", _l2a_reflectance)


def landcover_sar(data: Path) -> Task:
    """TerraMesh land cover from Sentinel-1 RTC backscatter in dB, VV and VH."""
    return _terramesh(data, "S1RTC", ("VV", "VH"), "dB", lambda image: image)


def clouds_6band(data: Path) -> Task:
    """UKIS cloud and shadow masks, six bands that Sentinel-2 and Landsat 5 and 7 share."""
    train, test = [], []
    for sensor in ("sentinel2", "landsat5", "landsat7"):
        with np.load(data / "cloudmask_6band" / f"{sensor}.npz") as chip:
            image, mask = chip["img"].astype(np.float32), chip["mask"]
        labels = np.select([mask == 4, mask == 0], [2, 1], 0).astype(np.uint8)
        left, right = _split_columns(image, labels, np.arange(512) >= 384)
        train += left
        test += right
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    return Task(
        bands,
        ("clear", "shadow", "cloud"),
        train,
        {"right quarter of every image": test},
        "TOA reflectance",
    )


TASKS: dict[str, Callable[[Path], Task]] = {
    "eurosat_rgb": eurosat_rgb,
    "mining_rgb": mining_rgb,
    "landuse_s2": landuse_s2,
    "landcover_l2a": landcover_l2a,
    "landcover_sar": landcover_sar,
    "clouds_6band": clouds_6band,
}


def _terramesh(
    data: Path,
    modality: str,
    bands: tuple[str, ...],
    units: str,
    calibrate: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Task:
    train, test = [], []
    ids = np.full(256, IGNORE, np.uint8)
    ids[list(LULC)] = range(len(LULC))
    root = data / "terramesh_s1s2_lulc"
    for path in sorted((root / modality).glob("*.tif")):
        image = calibrate(_read(path))
        labels = ids[_read(root / "LULC" / path.name)[0].astype(np.uint8)]
        left, right = _split_columns(image, labels, np.arange(224) >= 160)
        train += left
        test += right
    return Task(
        bands, tuple(LULC.values()), train, {"right 64 columns of every place": test}, units
    )


def _l2a_reflectance(image: NDArray[np.float32]) -> NDArray[np.float32]:
    # Processing baseline 04.00 adds 1000 to every digital number; a chip whose darkest values
    # are all about 1000 or more carries the offset. (38D, a desert, has darker bands.)
    offset = 1000 if np.all(image.min(axis=(1, 2)) >= 950) else 0
    return (image - offset) * np.float32(1e-4)


def _split_columns(
    image: NDArray[np.float32], labels: NDArray[np.uint8], is_test: NDArray[np.bool_]
) -> tuple[list[Region], list[Region]]:
    """Cut a raster into runs of columns that train and runs that test."""
    edges = np.flatnonzero(np.diff(is_test)) + 1
    train: list[Region] = []
    test: list[Region] = []
    for columns in np.split(np.arange(is_test.size), edges):
        part = slice(columns[0], columns[-1] + 1)
        region = Region(np.ascontiguousarray(image[:, :, part]), labels[:, part])
        (test if is_test[columns[0]] else train).append(region)
    return train, test


def _rgb(source: Path | io.BytesIO) -> NDArray[np.uint8]:
    with Image.open(source) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _cell(sheet: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    size = 48
    return sheet[:, row * size : (row + 1) * size, column * size : (column + 1) * size]


def _read(path: Path) -> NDArray[np.float32]:
    with rasterio.open(path) as dataset:
        pixels: NDArray[np.float32] = dataset.read(out_dtype="float32")
    return pixels
