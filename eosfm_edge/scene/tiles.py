"""Calibration imagery: unlabelled tiles, and others, never learned on, to judge by."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.brightness import in_turn
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.radiometry import require_plausible
from eosfm_edge.scene.reading import FloatImage, Radiometry
from eosfm_edge.scene.sampling import Candidate, candidates_apart
from eosfm_edge.scene.scene import Scene, open_scene
from eosfm_edge.scene.sources import Part, Source, find_sources
from eosfm_edge.text import runs_of_numbers

_HELD_OUT_SHARE = 8  # one tile in so many judges
_LEAST_TILES = 2
_CANDIDATES = 4  # times as many as are wanted


@dataclass(frozen=True)
class Tiles:
    """Tiles that do not overlap: stored values, (bands, size, size) each.

    Attributes:
        calibration: for choosing and repairing.
        held_out: for judging.
        sha256: of the calibration tiles' values.
        source: which of them are from what.
    """

    calibration: list[FloatImage]
    held_out: list[FloatImage]
    sha256: str
    source: str


def load_tiles(
    data: Sequence[SceneName],
    wanted: Sequence[InputBand],
    size: int,
    count: int,
    seed: int,
    *,
    names: Sequence[Band] | None = None,
    radiometry: Radiometry | None = None,
    balance: bool = True,
) -> Tiles:
    """Take tiles from imagery, as many of each source as of the others where they have so many.

    Every source is read twice: once to look at more tiles than are wanted, of which only places
    and brightness are kept, and once for those that are chosen; and once more if pixels without
    data leave too few tiles on a grid. So memory depends on the tiles
    that are wanted, not on the scenes.

    Args:
        data: scenes, folders of bands or of chips, and manifests; see
            :func:`~eosfm_edge.scene.sources.find_sources`. Each is one source.
        wanted: the input's bands.
        size: pixels of a tile's side, a multiple of 32.
        count: tiles for calibration, at most. One for every eight of them is held out.
        seed: of the choice.
        names: what the bands of the scenes are, if their files do not say so.
        radiometry: scale, offset and nodata of the scenes, if their files do not say so.
        balance: take tiles of each class of brightness in turn, so that neither a dark sea nor
            a field of clouds fills the set.

    Raises:
        UserError: there is no data, it holds fewer than two valid tiles, or its values cannot be
            what they are said to be (:mod:`~eosfm_edge.scene.radiometry`).
    """
    if not data:
        raise UserError(
            "there is no calibration data",
            expected="unlabelled scenes like those that the specialists will see",
            remedy="give some with --data SCENE",
        )
    sources = find_sources(data, names, radiometry)
    each = -(-(count + -(-count // _HELD_OUT_SHARE)) // len(sources))
    stored: list[FloatImage] = []
    found = []
    for source in sources:
        mine = _Sampler(source, wanted, size, seed).take(each, balance=balance)
        found.append(f"{len(mine)} tiles of {source.record}")
        stored += mine
    if len(stored) < _LEAST_TILES:
        raise UserError(
            f"the scenes hold {len(stored)} valid tiles of {size} x {size} pixels",
            expected=f"at least {_LEAST_TILES}: one to calibrate on, another to judge by",
            remedy="give larger scenes, more of them, or a smaller --tile",
        )
    order = np.random.default_rng(seed).permutation(len(stored))
    held = max(1, len(stored) // (_HELD_OUT_SHARE + 1))
    judges, used = order[:held], order[held:][:count]
    digest = hashlib.sha256()
    for i in used:
        digest.update(stored[i].tobytes())
    numbers = runs_of_numbers(sorted(map(int, judges)))
    return Tiles(
        [stored[i] for i in used],
        [stored[i] for i in judges],
        digest.hexdigest(),
        f"{', '.join(found)}; held out: {numbers} of {len(stored)}",
    )


@dataclass(frozen=True)
class _Found:
    """A wholly valid tile of a source; its score is how bright it is, in physical units.

    ``turn`` is how many of its part were found before it.
    """

    part: int
    turn: int
    tile: Candidate


class _Sampler:
    """Takes tiles of one source."""

    def __init__(self, source: Source, wanted: Sequence[InputBand], size: int, seed: int) -> None:
        self._source = source
        self._wanted = wanted
        self._size = size
        self._seed = seed
        self._warned: set[tuple[type[Warning], str]] = set()

    def take(self, count: int, *, balance: bool) -> list[FloatImage]:
        """Return up to ``count`` tiles."""
        found = self._look(count * _CANDIDATES if balance else count)
        found.sort(key=lambda one: one.turn)
        if balance:
            found = in_turn(found, [one.tile.score for one in found])
        chosen = found[:count]
        images: dict[_Found, FloatImage] = {}
        for index in sorted({one.part for one in chosen}):
            with self._open(self._source.parts[index]) as scene:
                for one in (one for one in chosen if one.part == index):
                    tile = one.tile
                    images[one], _ = scene.read(tile.left, tile.top, self._size, self._size)
        return [images[one] for one in chosen]

    def _look(self, limit: int) -> list[_Found]:
        """Look at up to ``limit`` valid tiles, as many of each part as of the others."""
        parts = self._source.parts
        scales = np.array([(band.scale, band.offset) for band in self._wanted])

        def brightness(image: FloatImage) -> float:
            means = image.mean(axis=(1, 2), dtype=np.float64)
            return float((means * scales[:, 0] + scales[:, 1]).mean())

        found: list[_Found] = []
        doubts = []
        looked_at = 0
        for done, index in enumerate(np.random.default_rng(self._seed).permutation(len(parts))):
            share = -(-(limit - len(found)) // (len(parts) - done))
            part = int(index)
            with self._open(parts[part]) as scene:
                self._require_room(scene)
                mine, seen = candidates_apart(
                    scene,
                    self._size,
                    share,
                    (self._seed, part),
                    brightness,
                    centred=self._source.chips,
                )
            found += [_Found(part, turn, tile) for turn, tile in enumerate(mine)]
            if not mine or parts[part].radiometry.trusted:
                continue
            looked_at += 1
            doubt = seen.doubt()
            if doubt:
                doubts.append((str(parts[part].path), doubt))
        require_plausible(self._source.title, doubts, looked_at)
        return found

    def _require_room(self, scene: Scene) -> None:
        if self._source.chips and min(scene.width, scene.height) < self._size:
            raise UserError(
                f"the chip {scene.path} is {scene.width} x {scene.height} pixels, smaller than "
                "a tile",
                expected=f"chips of at least {self._size} x {self._size}",
                remedy="give larger chips, or a smaller --tile",
            )
        scene.require_room_for(self._size)

    @contextmanager
    def _open(self, part: Part) -> Iterator[Scene]:
        """Open a part. What is to be warned of many parts is said of the first."""
        with ExitStack() as stack:
            caught: list[warnings.WarningMessage] = []
            try:
                with warnings.catch_warnings(record=True) as caught:
                    scene = stack.enter_context(
                        open_scene(
                            part.path, self._wanted, names=part.names, radiometry=part.radiometry
                        )
                    )
            finally:
                for one in caught:
                    kind = (one.category, str(one.message).replace(str(part.path), ""))
                    if kind not in self._warned:
                        self._warned.add(kind)
                        warnings.warn(one.message, one.category, stacklevel=4)
            yield scene
