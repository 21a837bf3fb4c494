"""A picture to see at a glance: the scene, and what the features of a run make of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from eosfm_edge.bundle.palette import FloatArray, Palette, read_palette
from eosfm_edge.bundle.palette_fit import fit_palette
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import RGB, Band, find
from eosfm_edge.formats.bundle import Level, Manifest
from eosfm_edge.formats.ensemble import PALETTE_NAME
from eosfm_edge.runtime.canvas import (
    Legend,
    Panel,
    Row,
    ScaleBar,
    Shades,
    draw_page,
    panel_size,
)
from eosfm_edge.runtime.groups import COLOURS, Counts, share_in_the_same_group, write_groups
from eosfm_edge.scene.reading import FloatImage
from eosfm_edge.scene.scene import Mask, Scene

QUICKLOOK_NAME = "quicklook.png"
GROUPS_NAME = "groups.tif"

_STRIP_BYTES = 32 << 20  # of features that are read at once
_FITTED_SIDE = 64  # cells of a level's longer side to which a run's own palette is fitted
_METRES_PER_DEGREE = 111_320
_GAMMA = 0.7  # brightens what is dark: forests and water beside bright sand
_BAR = 0.3  # of a picture's width, at most

Cells = NDArray[Any]  # (C, H, W)


@dataclass(frozen=True)
class Seen:
    """The features of a run, as a picture shows them.

    Attributes:
        name: of the bundle, or of the folder that they are in.
        levels: their rasters.
        groups: the raster of their groups.
        counts: how many cells are in each.
    """

    name: str
    levels: Sequence[Path]
    groups: Path
    counts: Counts


@dataclass(frozen=True)
class Picture:
    """All that a quicklook shows.

    Attributes:
        scene: what was run.
        manifest: of the bundle that ran.
        palette: the colours and groups of all that is shown.
        kept: whether the palette came with the bundle; else it was fitted to this run.
        runs: this run, after the one that it is compared with, if there is one.
        same: with two, the share of cells that are in the same group of both.
    """

    scene: Scene
    manifest: Manifest
    palette: Palette
    kept: bool
    runs: Sequence[Seen]
    same: float | None = None


def write_quicklook(
    folder: Path, bundle: Path, manifest: Manifest, scene: Scene, beside: Path | None = None
) -> float | None:
    """Write ``quicklook.png`` and ``groups.tif`` beside the levels of a run.

    Args:
        folder: with the rasters of all levels.
        bundle: that made them. Its palette colours them; without one, one is fitted to them.
        manifest: the bundle's.
        scene: that was run.
        beside: the output of another run, which is shown before this one, in the same colours.

    Returns:
        With another run, the share of cells that are in the same group of features in both.

    Raises:
        UserError: the palette is damaged, or the disk is full.
    """
    palette = read_palette(bundle / PALETTE_NAME)
    levels = _levels(folder, manifest.levels)
    kept = palette is not None
    if palette is None:
        palette = _fitted_to(levels, manifest.name)
    elif palette.channels != tuple(level.channels for level in manifest.levels):
        raise UserError(
            f"{bundle / PALETTE_NAME} colours levels of {palette.channels} channels",
            expected="as many as the bundle's levels have",
            remedy="export the bundle again",
        )
    grouped = palette.grouped - 1
    groups = folder / GROUPS_NAME
    runs = [Seen(manifest.name, levels, groups, write_groups(groups, levels[grouped], palette))]
    same = None
    others = folder / ".beside.tif"
    if beside is not None:
        before = _levels(beside, manifest.levels)
        counts = write_groups(others, before[grouped], palette)
        runs.insert(0, Seen(beside.name, before, others, counts))
        same = share_in_the_same_group(groups, others)
    _draw(Picture(scene, manifest, palette, kept, runs, same)).save(folder / QUICKLOOK_NAME)
    others.unlink(missing_ok=True)
    return same


def require_comparable(folder: Path, levels: Sequence[Level], scene: Scene) -> None:
    """Check that the level rasters of another run lie cell on cell with those of a run.

    Args:
        folder: the other run's output.
        levels: of the bundle that is to run.
        scene: that it is to run on.

    Raises:
        UserError: the folder lacks a level, or it is of another scene or has other channels.
    """
    for path, level in zip(_levels(folder, levels), levels, strict=True):
        if not path.is_file():
            raise UserError(
                f"{folder} has no {path.name}", expected="what eosfm-edge run wrote over this scene"
            )
        wide, tall = (-(-pixels // level.stride) for pixels in (scene.width, scene.height))
        transform = scene.transform @ Affine.scale(level.stride)
        try:
            with rasterio.open(path) as raster:
                found = f"{raster.count} channels of {raster.width} x {raster.height} cells"
                elsewhere = not raster.transform.almost_equals(transform) or raster.crs != scene.crs
        except RasterioIOError as error:
            raise UserError(
                f"cannot read {path}: {error}", expected="what eosfm-edge run wrote"
            ) from error
        wanted = f"{level.channels} channels of {wide} x {tall} cells"
        if found != wanted or elsewhere:
            where = f", which lie elsewhere than {scene.path}" if elsewhere else ""
            raise UserError(
                f"{path} has {found}{where}",
                expected=f"{wanted}, as this run gives of {scene.path}",
                remedy="run the other bundle over this scene, and give that output",
            )


def _levels(folder: Path, levels: Sequence[Level]) -> list[Path]:
    return [folder / f"{level.name}.tif" for level in levels]


def _fitted_to(levels: Sequence[Path], name: str) -> Palette:
    """Fit a palette to the features of a run."""
    cells = [_read(path, _FITTED_SIDE, lambda features: features) for path in levels]
    flat = [level.reshape(len(level), -1).T for level in cells]
    valid = [level[np.isfinite(level).all(axis=1)] for level in flat]
    # A coarse level's cells may all be without data where some of a fine one's have some.
    return fit_palette([np.pad(level, ((0, not len(level)), (0, 0))) for level in valid], name)


def _draw(picture: Picture) -> Image.Image:
    """Draw the scene, groups of features, and the colours of each level."""
    scene, manifest = picture.scene, picture.manifest
    groups = [_groups(picture, seen) for seen in picture.runs]
    rows = [Row([_true_colour(picture), *groups])]
    for seen in picture.runs:
        colours = [_colours(picture, seen, number) for number in range(len(manifest.levels))]
        heading = "First three principal components of the features"
        rows.append(Row(colours, f"{heading}: {seen.name}" if len(picture.runs) > 1 else heading))
    name = str(scene.path).rsplit("/", 1)[-1]
    return draw_page(
        (scene.width, scene.height),
        f"{manifest.name} · {manifest.precision}",
        f"{name} · {_extent(scene)}",
        rows,
        _origin_of_colours(picture),
    )


def _origin_of_colours(picture: Picture) -> str:
    if picture.kept:
        return (
            f"Colours and groups were fitted on {picture.palette.of} and came with the bundle: "
            "they mean the same in each of its pictures."
        )
    return (
        "Colours and groups were fitted on this run, since the bundle brings none: "
        "they mean something else in other pictures."
    )


def _true_colour(picture: Picture) -> Panel:
    scene, bands = picture.scene, picture.manifest.input
    image, valid = scene.overview(max(panel_size((scene.width, scene.height), 2)))
    places = [find(Band(name=name), bands) for name in RGB]
    found = [place for place in places if place is not None]
    whole = len(found) == len(places)
    title = "Scene in true colour" if whole else f"Scene, band {bands[0]} in grey"
    shades = _stretched(image[found if whole else [0, 0, 0]], valid)
    step = (scene.width / shades.shape[1], scene.height / shades.shape[0])
    return Panel(title, shades, step, bar=_scale_bar(scene))


def _groups(picture: Picture, seen: Seen) -> Panel:
    level = picture.manifest.levels[picture.palette.grouped - 1]
    side = _side(picture, 1 + len(picture.runs))
    found, step = _read_with_step(seen.groups, level, picture.scene, side, lambda groups: groups)
    table = np.array([(255, 255, 255), *COLOURS], np.uint8)
    total = max(1, int(seen.counts[1:].sum()))
    shares = [round(100 * int(count) / total) for count in seen.counts[1:]]
    last = len(picture.palette.centres)
    legend = Legend([(COLOURS[i], f"{share} %") for i, share in enumerate(shares[:last])])
    title = f"Groups of features, level {picture.palette.grouped}{_cell(picture, level)}"
    note = ""
    if picture.same is not None:
        title = f"Groups of features: {seen.name}"
        if seen is picture.runs[-1]:
            note = f"{100 * picture.same:.1f} % of cells are in the same group as on the left"
    return Panel(title, table[found[0]], step, note, legend)


def _colours(picture: Picture, seen: Seen, number: int) -> Panel:
    level = picture.manifest.levels[number]
    colours = picture.palette.levels[number]
    side = _side(picture, len(picture.manifest.levels))

    def shades(features: FloatArray) -> NDArray[np.uint8]:
        found = colours.shades(features)
        found[:, np.isnan(features[0])] = 255
        return found

    found, step = _read_with_step(seen.levels[number], level, picture.scene, side, shades)
    title = f"Level {number + 1}{_cell(picture, level)}"
    return Panel(title, np.moveaxis(found, 0, -1), step)


def _side(picture: Picture, panels: int) -> int:
    return max(panel_size((picture.scene.width, picture.scene.height), panels))


def _read_with_step(
    path: Path,
    level: Level,
    scene: Scene,
    longest: int,
    use: Callable[[Cells], Cells],
) -> tuple[Cells, tuple[float, float]]:
    """Read a level's raster, and say how many of the scene's pixels a value covers each way."""
    found = _read(path, longest, use)
    wide, tall = (
        -(-pixels // level.stride) * level.stride for pixels in (scene.width, scene.height)
    )
    return found, (wide / found.shape[2], tall / found.shape[1])


def _read(path: Path, longest: int, use: Callable[[Cells], Cells]) -> Cells:
    """Read a raster at no more than ``longest`` cells a side, from its overviews where it has some.

    Args:
        path: the raster (C, H, W).
        longest: cells.
        use: what is made of a strip (C, rows, W): only a strip of all channels is in memory.
    """
    with rasterio.open(path) as raster:
        step = max(1.0, max(raster.shape) / longest)
        height, width = (max(1, round(side / step)) for side in raster.shape)
        bytes_of_row = raster.count * width * np.dtype(raster.dtypes[0]).itemsize
        rows = max(1, _STRIP_BYTES // bytes_of_row)
        down = raster.height / height
        strips = [
            use(
                raster.read(
                    window=Window(0, top * down, raster.width, min(rows, height - top) * down),
                    out_shape=(raster.count, min(rows, height - top), width),
                    resampling=Resampling.nearest,
                )
            )
            for top in range(0, height, rows)
        ]
    return np.concatenate(strips, axis=1)


def _metres(scene: Scene) -> tuple[float, float] | None:
    """Return the metres of a pixel, across and down; None if the scene does not say."""
    if scene.crs is None:
        return None
    t = scene.transform
    if scene.crs.is_geographic:
        _, latitude = t @ (scene.width / 2, scene.height / 2)
        east = _METRES_PER_DEGREE * math.cos(math.radians(latitude))
        north = float(_METRES_PER_DEGREE)
    else:
        east = north = scene.crs.linear_units_factor[1]
    return math.hypot(t.a * east, t.d * north), math.hypot(t.b * east, t.e * north)


def _scale_bar(scene: Scene) -> ScaleBar:
    metres = _metres(scene)
    across = scene.width * (metres[0] if metres else 1)
    length = _round_below(_BAR * across)
    if metres is None:
        return ScaleBar(length, f"{length:g} pixels")
    return ScaleBar(length / metres[0], _distance(length))


def _round_below(value: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, 50 ... that is not above a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return float(max(step for step in (1, 2, 5) if step * power <= value)) * power


def _distance(metres: float) -> str:
    return f"{metres / 1000:.4g} km" if metres >= 1000 else f"{metres:.4g} m"


def _extent(scene: Scene) -> str:
    metres = _metres(scene)
    if metres is None:
        return f"{scene.width} x {scene.height} pixels"
    wide, tall = (
        _distance(float(f"{n * m:.3g}"))
        for n, m in zip((scene.width, scene.height), metres, strict=True)
    )
    return f"{wide} x {tall}"


def _cell(picture: Picture, level: Level) -> str:
    metres = _metres(picture.scene)
    return f", cells of {_distance(level.stride * metres[0])}" if metres else ""


def _stretched(channels: FloatImage, valid: Mask) -> Shades:
    """Map the middle 96 % of each channel's values (3, H, W) to 0..255; white where not valid."""
    picture = np.full((*valid.shape, 3), 255, np.uint8)
    if not valid.any():
        return picture
    for i, channel in enumerate(channels):
        low, high = np.percentile(channel[valid], (2, 98))
        shade = np.clip((channel - low) / max(high - low, 1e-12), 0, 1) ** _GAMMA * 255
        picture[..., i] = np.where(valid, shade, 255)
    return picture
