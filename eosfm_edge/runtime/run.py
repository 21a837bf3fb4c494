"""``eosfm-edge run``: a bundle over a scene, whose rows stream through it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eosfm_edge.bundle.heads import head_names
from eosfm_edge.bundle.intact import require_intact, with_files
from eosfm_edge.errors import UserError
from eosfm_edge.files import atomic_directory, cannot_write, require_outside, sha256_file
from eosfm_edge.formats.backends import LADDERS
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.bundle import MANIFEST_NAME, Level, read_manifest
from eosfm_edge.native.binding import GRN_GATHER, GRN_SCENE
from eosfm_edge.native.head import Head
from eosfm_edge.native.header import LEVELS
from eosfm_edge.packets.words import PacketOptions
from eosfm_edge.progress import Progress, silent
from eosfm_edge.runtime.backends import open_context
from eosfm_edge.runtime.fastest import fastest_backend
from eosfm_edge.runtime.features import LevelRaster, written_bytes
from eosfm_edge.runtime.maps import MapRasters, map_names, map_tags, open_heads
from eosfm_edge.runtime.quicklook import (
    GROUPS_NAME,
    QUICKLOOK_NAME,
    require_comparable,
    write_quicklook,
)
from eosfm_edge.runtime.scene_pass import ScenePass, Tiling
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.radiometry import require_plausible_scene
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.scene import Scene, open_scene

COARSEST = 32  # stride of the last level: tiles start on its grid, so that all levels' cells meet

PACKETS_NAME = "features.eosp"


Grn = Literal["tile", "scene"]
Levels = Literal["all", "none"]


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        backend: who computes; ``auto`` for the fastest that gives the known answer. What needs a
            GPU and cannot have it is replaced, see :data:`eosfm_edge.formats.backends.LADDERS`.
        threads: of the backend; 0 for all cores.
        grn: over what global response normalisation takes its norms. ``scene`` runs all tiles
            twice, and only the native backend can.
        overlap: pixels that neighbouring tiles share, a multiple of 32; None: a quarter of a
            tile, rounded up to that.
        halo: pixels along a tile's edges whose features are not used, a multiple of 32 up to half
            of the overlap.
        levels: write the levels, or ``none`` of them: the maps of the bundle's heads alone.
        probabilities: write those of the classes of each head too.
        quicklook: write ``quicklook.png`` and ``groups.tif`` too.
        beside: the output of another run over the same scene, which the quicklook shows beside
            this one; None: it shows this one alone.
        packets: write ``features.eosp`` too.
        overwrite: replace an output that is there.
        names: what the bands of the scene are, if its files do not say so.
        radiometry: scale, offset and nodata of the scene, if its files do not say so.
    """

    backend: str = "native"
    threads: int = 0
    grn: Grn = "tile"
    overlap: int | None = None
    halo: int = 0
    levels: Levels = "all"
    probabilities: bool = False
    quicklook: bool = False
    beside: Path | None = None
    packets: PacketOptions | None = None
    overwrite: bool = False
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None


@dataclass(frozen=True)
class RunReport:
    """The report of a run.

    ``seconds`` is the whole run's wall time, ``compute_seconds`` the backend's share of it.
    ``same_group`` is the share of cells that are in the same group of features as in the run that
    the quicklook shows beside this one, if there is one.
    """

    backend: str
    grn: Grn
    megapixels: float
    tiles: int
    skipped_tiles: int
    seconds: float
    compute_seconds: float
    bytes: dict[str, int]
    same_group: float | None = None

    @property
    def seconds_per_megapixel(self) -> float:
        """Wall seconds for a million scene pixels."""
        return self.seconds / self.megapixels


def run_scene(
    bundle: Path,
    scene_path: SceneName,
    output: Path,
    options: RunOptions | None = None,
    *,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda sentence: None,
) -> RunReport:
    """Run a bundle over a scene and write its levels, and maps, as cloud-optimised GeoTIFFs.

    Args:
        bundle: the bundle directory.
        scene_path: anything rasterio opens, or a folder of single-band files.
        output: a directory: ``level1.tif`` ... ``level4.tif`` (float32, NaN where there is no
            data), each on the pixel grid of its stride; and for each head of the bundle its maps
            (:mod:`~eosfm_edge.runtime.maps`).
        options: how to run.
        progress: called with the stage, and how many of its steps are done.
        tell: called with a sentence for every backend that cannot be used, before the next.

    Raises:
        CheckFailedError: a file of the bundle is missing, altered or surplus, or the model gives
            values that are not finite.
        UserError: the scene does not fit the bundle, has no valid pixel, or values that cannot be
            what they are read as (:mod:`~eosfm_edge.scene.radiometry`), or the output cannot be
            written. Nothing is left under the output's name then.
    """
    options = options or RunOptions()
    started = time.monotonic()
    backend = options.backend
    if options.grn == "scene" and backend == "auto":
        backend = "native"
    elif options.grn == "scene" and backend != "native":
        raise UserError(
            f"the {backend} backend normalises every tile by itself",
            expected="the native backend, for GRN over the scene",
            remedy="run without --grn scene, or with --backend native",
        )
    if options.beside is not None and not options.quicklook:
        raise UserError(
            f"{options.beside} is to be shown beside this run, and no quicklook is wanted",
            remedy="add --quicklook",
        )
    inputs = (bundle, scene_path, options.beside)
    require_outside(output, [path for path in inputs if isinstance(path, Path)])
    manifest = read_manifest(bundle)
    names = head_names(bundle, manifest)
    _require_outputs(bundle, names, options)
    if backend == "auto":
        backend = fastest_backend(bundle, manifest, tell, options.threads)
    # Before the manifest's bands and units are believed of the scene.
    require_intact(bundle, manifest, backend)
    tiling = tiling_of(options.overlap, options.halo, manifest.tile.size)

    with ExitStack() as stack:
        scene = stack.enter_context(
            open_scene(
                scene_path, manifest.input, names=options.names, radiometry=options.radiometry
            )
        )
        require_plausible_scene(scene)
        tiles = tiling.tiles(scene)
        if options.beside is not None:
            require_comparable(options.beside, manifest.levels, scene)

        maps = (file for name in names for file in map_names(name))
        levels = (f"{level.name}.tif" for level in manifest.levels)
        contents = (*levels, *maps, QUICKLOOK_NAME, GROUPS_NAME, PACKETS_NAME)
        folder = stack.enter_context(
            atomic_directory(output, contents=contents, overwrite=options.overwrite)
        )
        ladder = LADDERS.get(backend, (backend,))
        backends = with_files(bundle, manifest, ladder)
        context = stack.enter_context(
            open_context(bundle, manifest, backends, options.threads, tell)
        )
        heads = open_heads(context, bundle, manifest)
        wanted = manifest.levels if options.levels == "all" else ()
        _require_space(wanted, heads, scene, folder, output, options.probabilities)
        rasters = [
            stack.enter_context(
                LevelRaster(level, folder, _cells(scene, level), scene.transform, scene.crs)
            )
            for level in wanted
        ]
        drawn = [
            stack.enter_context(
                MapRasters(
                    head,
                    folder,
                    (scene.width, scene.height),
                    scene.transform,
                    scene.crs,
                    probabilities=options.probabilities and bool(head.classes),
                    tags=map_tags(head, manifest),
                )
            )
            for head in heads
        ]
        packets = None
        if options.packets:
            # zstandard, which it imports, is not needed without.
            from eosfm_edge.packets.writer import PacketWriter

            identity = bytes.fromhex(sha256_file(bundle / MANIFEST_NAME))
            packets = stack.enter_context(
                PacketWriter(folder / PACKETS_NAME, identity, options.packets)
            )

        compute_seconds = 0.0
        if options.grn == "scene":
            context.set_grn(GRN_GATHER)
            gather = ScenePass(context, scene, tiling, levels=(False,) * LEVELS)
            for _ in gather.patches(lambda done: progress("gathering", done, tiles)):
                pass
            compute_seconds += gather.seconds
            if gather.skipped < tiles:  # else there is nothing to normalise over
                context.set_grn(GRN_SCENE)

        blend = ScenePass(
            context,
            scene,
            tiling,
            levels=(bool(wanted),) * LEVELS,
            heads=heads,
            probabilities=options.probabilities,
        )
        for patch in blend.patches(lambda done: progress("tiles", done, tiles)):
            for number, raster in enumerate(rasters, start=1):
                part = patch.levels[number - 1]
                assert part is not None, "all levels are wanted"
                raster.write(part.features, part.column, part.row)
                if packets:
                    packets.write(number, part.features, part.column, part.row)
            for one, answer in zip(drawn, patch.maps, strict=True):
                one.write(answer)
        compute_seconds += blend.seconds
        if blend.skipped == tiles:
            raise UserError(
                f"{scene.path} has no valid pixel: every one is nodata or not a number",
                remedy="check the file, or its nodata value (--nodata)",
            )

        sizes = {}
        count = len(rasters) + len(drawn)
        for done, raster in enumerate(rasters):
            progress("writing", done, count)
            sizes[raster.path.name] = raster.finish()
        for done, one in enumerate(drawn, len(rasters)):
            progress("writing", done, count)
            sizes |= one.finish()
        progress("writing", count, count)
        if packets:
            sizes[PACKETS_NAME] = packets.finish()
        same_group = None
        if options.quicklook:
            same_group = write_quicklook(folder, bundle, manifest, scene, options.beside)
            for name in (GROUPS_NAME, QUICKLOOK_NAME):
                sizes[name] = (folder / name).stat().st_size
        return RunReport(
            backend=context.backend,
            grn=options.grn,
            megapixels=scene.width * scene.height / 1e6,
            tiles=tiles,
            skipped_tiles=blend.skipped,
            seconds=time.monotonic() - started,
            compute_seconds=compute_seconds,
            bytes=sizes,
            same_group=same_group,
        )


def tiling_of(overlap: int | None, halo: int, tile: int) -> Tiling:
    """Return how a scene is cut into tiles of ``tile`` pixels; see :class:`RunOptions`.

    Raises:
        UserError: overlap or halo is not one that tiles can have.
    """
    if overlap is None:
        overlap = -(-tile // 4 // COARSEST) * COARSEST if tile > COARSEST else 0
    if overlap % COARSEST or not 0 <= overlap < tile:
        raise UserError(
            f"overlap is {overlap} pixels",
            expected=f"a multiple of {COARSEST} from 0 to {tile - COARSEST}, tiles being {tile}",
        )
    most = overlap // 2 // COARSEST * COARSEST
    if halo % COARSEST or not 0 <= halo <= most:
        raise UserError(
            f"halo is {halo} pixels",
            expected=f"a multiple of {COARSEST} from 0 to {most}, half of the overlap",
        )
    return Tiling(tile, overlap, halo)


def _cells(scene: Scene, level: Level) -> tuple[int, int]:
    """Return (width, height) of a level over the scene, partial cells at the ends included."""
    return -(-scene.width // level.stride), -(-scene.height // level.stride)


def _require_outputs(bundle: Path, heads: Sequence[str], options: RunOptions) -> None:
    """Check that something is written, and what each output is made of.

    Raises:
        UserError: the options contradict each other, or need heads that the bundle lacks.
    """
    if not heads and (options.levels == "none" or options.probabilities):
        found = "no levels are wanted" if options.levels == "none" else "probabilities are wanted"
        raise UserError(
            f"{found}, and {bundle} has no heads, which give maps",
            remedy=f"fit one: eosfm-edge head fit {bundle} --labels LABELS --data SCENE",
        )
    if options.levels == "none":
        for name, given in (("--quicklook", options.quicklook), ("--packets", options.packets)):
            if given:
                raise UserError(
                    f"no levels are wanted, of which {name} is made",
                    remedy=f"leave {name} out, or --levels none",
                )


def _require_space(
    levels: Sequence[Level],
    heads: Sequence[Head],
    scene: Scene,
    folder: Path,
    output: Path,
    probabilities: bool,
) -> None:
    """Refuse at once what cannot end well.

    Beside the scratch files of levels to come and the GeoTIFFs of those done stand two files of
    the level that is being written: a plain one and the cloud-optimised.
    """
    sizes = [written_bytes(*_cells(scene, level), level.channels) for level in levels]
    sizes += [
        MapRasters.bytes(head, scene.width, scene.height, probabilities=probabilities)
        for head in heads
    ]
    needed = sum(sizes) + max(sizes)
    if shutil.disk_usage(folder).free < needed:
        raise cannot_write(output, "the disk is too full", needed)
