"""Read-only views of ensembles and bundles on disk, as ``open`` gives them."""

from __future__ import annotations

import html
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.api.options import RunOptions, as_path, as_scene
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import MANIFEST_NAME, Manifest, read_manifest
from eosfm_edge.formats.calibration import CALIBRATION_NAME, Calibration, read_scales
from eosfm_edge.formats.ensemble import LEVEL_STRIDES, SPEC_NAME, EnsembleSpec, read_spec
from eosfm_edge.formats.heads import HeadSpec, head_file
from eosfm_edge.progress import Progress, silent

if TYPE_CHECKING:
    from eosfm_edge.bundle.sizes import BundleSizes
    from eosfm_edge.native.binding import Model
    from eosfm_edge.native.stream import Patch, Stream

_ROWS_AT_ONCE = 48


class Opened(ABC):
    """An ensemble or a bundle on disk, as it was when it was opened.

    Attributes:
        path: its directory.
    """

    def __init__(self, path: Path, described: EnsembleSpec | Manifest) -> None:
        self.path = path
        self._described = described

    @property
    def name(self) -> str:
        """Its name."""
        return self._described.name

    @property
    def bands(self) -> tuple[str, ...]:
        """The input's bands, in order."""
        return tuple(str(band) for band in self._described.input)

    @property
    def specialists(self) -> tuple[str, ...]:
        """The names of the specialists."""
        return tuple(specialist.name for specialist in self._described.specialists)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    @property
    @abstractmethod
    def levels(self) -> tuple[str, ...]:
        """The levels of its features, with their strides in pixels."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """The precision of its matrices."""

    def _facts(self) -> dict[str, str]:
        return {
            "path": str(self.path),
            "bands": " ".join(self.bands),
            "levels": ", ".join(self.levels),
            "specialists": ", ".join(self.specialists),
            "precision": self.precision,
            "size": f"{self.size / 1e6:,.1f} MB",
        }

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self.specialists)} specialists, "
            f"{len(self.bands)} bands, {self.precision}, {self.size / 1e6:,.1f} MB>"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for key, value in self._facts().items()
        )
        title = html.escape(f"{type(self).__name__} {self.name}")
        return f"<table><caption>{title}</caption>{rows}</table>"


class Ensemble(Opened):
    """An ensemble directory.

    Attributes:
        spec: the content of ``ensemble.json``.
    """

    def __init__(self, path: Path) -> None:
        self.spec = read_spec(path)
        super().__init__(path, self.spec)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of its features, with their strides in pixels."""
        return tuple(
            f"level{number}: stride {stride}" for number, stride in enumerate(LEVEL_STRIDES, 1)
        )

    @property
    def precision(self) -> str:
        """The precision of its weights: ensembles are kept in fp32."""
        return "fp32"


class Bundle(Opened):
    """A bundle directory.

    Attributes:
        manifest: the content of ``manifest.json``.
    """

    def __init__(self, path: Path) -> None:
        self.manifest = read_manifest(path)
        super().__init__(path, self.manifest)

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels of its features, with their channels and their strides in pixels."""
        return tuple(
            f"{level.name}: {level.channels} channels, stride {level.stride}"
            for level in self.manifest.levels
        )

    @property
    def precision(self) -> str:
        """The precision of its matrices."""
        return self.manifest.precision

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """The heads that are here: what each is, by its file."""
        from eosfm_edge.bundle.heads import head_names, read_head

        names = head_names(self.path, self.manifest)
        return tuple(read_head(self.path / head_file(name)).spec for name in names)

    @property
    def sizes(self) -> BundleSizes:
        """The bytes that a device is sent of it, and the memory that a run takes."""
        from eosfm_edge.bundle.sizes import bundle_sizes

        return bundle_sizes(self.path, self.manifest)

    def _facts(self) -> dict[str, str]:
        size = self.manifest.tile.size
        return {
            **super()._facts(),
            "target": self.manifest.target,
            "tile": f"{size} x {size} pixels",
        }

    def run(
        self,
        image: NDArray[Any] | str | os.PathLike[str],
        options: RunOptions | None = None,
        *,
        progress: Progress = silent,
    ) -> tuple[NDArray[np.float32], ...]:
        """Return the feature levels of an image of any size, computed by the native engine.

        It is cut into tiles as :func:`eosfm_edge.run` does, which is for scenes whose levels do
        not fit in memory.

        Args:
            image: stored values (bands, height, width) as the bundle takes them: integers of 8, 16
                or 32 bits, float32 or float64. What equals a band's nodata value, or is not
                finite, is no data. Or a scene's path or name.
            options: threads, overlap and halo; for a path also how imagery is read.
            progress: told of tiles.

        Returns:
            Each level, float32 (channels, height / stride, width / stride) rounded up; NaN where
            less than half of a cell is valid.

        Raises:
            CheckFailedError: the bundle is damaged, or gives values that are not finite.
            UserError: the image does not fit the bundle, or an option is not for arrays.
        """
        options = options or RunOptions()
        if isinstance(image, str | os.PathLike):
            return self._run_scene(as_scene(image), options, progress)
        return self._run_array(image, options, progress)

    def _run_scene(
        self, name: Path | str, options: RunOptions, progress: Progress
    ) -> tuple[NDArray[np.float32], ...]:
        from eosfm_edge.runtime.run import tiling_of
        from eosfm_edge.runtime.scene_pass import ScenePass
        from eosfm_edge.scene.radiometry import require_plausible_scene
        from eosfm_edge.scene.reading import Radiometry
        from eosfm_edge.scene.scene import open_scene

        _require_only(options, {"threads", "overlap", "halo", *_OF_IMAGERY})
        radiometry = Radiometry(options.scale, options.offset, options.nodata, options.trust_values)
        tiling = tiling_of(options.overlap, options.halo, self.manifest.tile.size)
        with (
            open_scene(
                name, self.manifest.input, names=options.bands, radiometry=radiometry
            ) as scene,
            self._context(options.threads) as context,
        ):
            require_plausible_scene(scene)
            one_pass = ScenePass(context, scene, tiling)
            tiles = tiling.tiles(scene)
            patches = one_pass.patches(lambda done: progress("tiles", done, tiles))
            return self._gathered(patches, scene.height, scene.width)

    def _run_array(
        self, image: NDArray[Any], options: RunOptions, progress: Progress
    ) -> tuple[NDArray[np.float32], ...]:
        from eosfm_edge.native.header import DTYPES
        from eosfm_edge.native.stream import Stream, StreamBand, tile_count
        from eosfm_edge.runtime.run import tiling_of
        from eosfm_edge.runtime.scene_pass import LEAST_VALID_SHARE, not_finite_is_a_failed_check

        _require_only(options, {"threads", "overlap", "halo"})
        if isinstance(image, np.ma.MaskedArray):
            raise UserError(
                "the image is a masked array",
                expected="an array, whose pixels without data have the band's nodata value",
                remedy="give image.filled(nodata)",
            )
        image = np.asarray(image)
        if image.ndim != 3 or len(image) != len(self.bands) or 0 in image.shape:
            raise UserError(
                f"the image is of shape {image.shape}",
                expected=f"({len(self.bands)}, height, width): {' '.join(self.bands)}",
            )
        if image.dtype not in DTYPES:
            raise UserError(
                f"the image is {image.dtype}",
                expected="integers of 8, 16 or 32 bits, float32 or float64",
                remedy="convert it, as with image.astype('float32')",
            )
        _, height, width = image.shape
        tiling = tiling_of(options.overlap, options.halo, self.manifest.tile.size)
        tiles = tile_count(width, height, tiling.size, tiling.overlap)
        with self._context(options.threads) as context:
            stream = Stream(
                context,
                width,
                [StreamBand(image.dtype)] * len(image),
                overlap=tiling.overlap,
                halo=tiling.halo,
                least_valid=LEAST_VALID_SHARE,
            )
            patches = stream.patches(_feeder(stream, image))

            def told() -> Iterator[Patch]:
                for done in range(tiles):
                    progress("tiles", done, tiles)
                    with not_finite_is_a_failed_check(context):
                        patch = next(patches)
                    yield patch
                progress("tiles", tiles, tiles)

            try:
                return self._gathered(told(), height, width)
            finally:
                stream.close()

    def _gathered(
        self, patches: Iterator[Patch], height: int, width: int
    ) -> tuple[NDArray[np.float32], ...]:
        """Put the patches of each level together."""
        levels = tuple(
            np.full(
                (level.channels, -(-height // level.stride), -(-width // level.stride)),
                np.nan,
                np.float32,
            )
            for level in self.manifest.levels
        )
        for patch in patches:
            for whole, part in zip(levels, patch.levels, strict=True):
                assert part is not None, "all levels are wanted"
                _, rows, columns = part.features.shape
                whole[:, part.row : part.row + rows, part.column : part.column + columns] = (
                    part.features
                )
        return levels

    def _context(self, threads: int) -> Any:
        from eosfm_edge.machine import memory

        return self._model.context(threads=threads, memory_limit=memory())

    @cached_property
    def _model(self) -> Model:
        """The native engine with the bundle loaded, whose files are checked first."""
        from eosfm_edge.bundle.intact import require_intact
        from eosfm_edge.native.binding import Model

        require_intact(self.path, self.manifest, "native")
        return Model(self.path)


def describe(path: str | os.PathLike[str]) -> EnsembleSpec | Manifest | Calibration:
    """Read the description of an ensemble, a bundle or a calibration.

    Raises:
        UserError: the directory is none of these, or its description is not valid.
    """
    place = as_path(path)
    if (place / MANIFEST_NAME).exists():
        return read_manifest(place)
    if (place / SPEC_NAME).exists():
        return read_spec(place)
    if (place / CALIBRATION_NAME).exists():
        return read_scales(place)
    raise UserError(
        f"{place} is neither an ensemble nor a bundle nor a calibration",
        expected=f"a directory with {SPEC_NAME}, {MANIFEST_NAME} or {CALIBRATION_NAME}",
    )


def open_directory(path: str | os.PathLike[str]) -> Bundle | Ensemble:
    """Open an ensemble or a bundle.

    Raises:
        UserError: the directory is neither, or its description cannot be read.
    """
    place = as_path(path)
    if (place / MANIFEST_NAME).exists():
        return Bundle(place)
    if (place / SPEC_NAME).exists():
        return Ensemble(place)
    raise UserError(
        f"{place} is neither an ensemble nor a bundle",
        expected=f"a directory with {SPEC_NAME} or {MANIFEST_NAME}",
    )


_OF_IMAGERY = ("bands", "scale", "offset", "nodata", "trust_values")


def _require_only(options: RunOptions, usable: set[str]) -> None:
    """Refuse options that would change nothing."""
    defaults = RunOptions()
    for name in type(options).model_fields:
        if name not in usable and getattr(options, name) != getattr(defaults, name):
            raise UserError(
                f"{name} is given, which this cannot take",
                expected=f"some of {', '.join(sorted(usable))}",
                remedy="leave it out, or write files with eosfm_edge.run",
            )


def _feeder(stream: Stream, image: NDArray[Any]) -> Callable[[], bool]:
    """Return what pushes rows of every band, as many as there is room for."""
    at = [0] * len(image)

    def feed() -> bool:
        for band, rows in enumerate(image):
            if at[band] < len(rows):
                at[band] += stream.push_rows(band, rows[at[band] : at[band] + _ROWS_AT_ONCE])
        return any(done < image.shape[1] for done in at)

    return feed
