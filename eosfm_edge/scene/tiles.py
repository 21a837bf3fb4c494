"""Calibration imagery: unlabelled tiles, and others, never learned on, to judge by."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.containers import SceneName
from eosfm_edge.scene.places import valid_places
from eosfm_edge.scene.radiometry import Values, require_plausible
from eosfm_edge.scene.reading import FloatImage, Radiometry
from eosfm_edge.scene.scene import Scene, open_scene
from eosfm_edge.scene.sources import Part, Source, find_sources
from eosfm_edge.text import runs_of_numbers

_HELD_OUT_SHARE = 8  # one tile in so many judges
_LEAST_TILES = 2
_CANDIDATES = 4  # times as many as are wanted
_CLASSES = 4  # of brightness
_LEAST_GAIN = 1e-3  # of the variance, for which a class is split


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
        found.append(f"{len(mine)} tiles of {source.title}")
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
class _Candidate:
    """A wholly valid tile: where it is, and how bright, in physical units.

    ``turn`` is how many of its part were found before it.
    """

    part: int
    left: int
    top: int
    turn: int
    brightness: float


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
        candidates = self._candidates(count * _CANDIDATES if balance else count)
        candidates.sort(key=lambda candidate: candidate.turn)
        chosen = (in_turn(candidates) if balance else candidates)[:count]
        images: dict[_Candidate, FloatImage] = {}
        for index in sorted({candidate.part for candidate in chosen}):
            with self._open(self._source.parts[index]) as scene:
                for one in (candidate for candidate in chosen if candidate.part == index):
                    images[one], _ = scene.read(one.left, one.top, self._size, self._size)
        return [images[candidate] for candidate in chosen]

    def _candidates(self, limit: int) -> list[_Candidate]:
        """Look at up to ``limit`` valid tiles, as many of each part as of the others."""
        parts = self._source.parts
        found: list[_Candidate] = []
        doubts = []
        looked_at = 0
        for done, index in enumerate(np.random.default_rng(self._seed).permutation(len(parts))):
            share = -(-(limit - len(found)) // (len(parts) - done))
            with self._open(parts[index]) as scene:
                mine, seen = self._candidates_of(scene, int(index), share)
            found += mine
            if not mine or parts[index].radiometry.trusted:
                continue
            looked_at += 1
            doubt = seen.doubt()
            if doubt:
                doubts.append((str(parts[index].path), doubt))
        require_plausible(self._source.title, doubts, looked_at)
        return found

    def _candidates_of(
        self, scene: Scene, part: int, limit: int
    ) -> tuple[list[_Candidate], Values]:
        """Look at up to ``limit`` valid tiles of a part, and at what values they have.

        The places of a grid are tried first. Where pixels without data leave too few of them, the
        whole scene is searched.
        """
        places = list(self._places(scene, part))
        found, seen = self._look(scene, part, places, limit)
        if len(found) < min(limit, len(places)):
            others = valid_places(scene, self._size, np.random.default_rng([self._seed, part]))
            if len(others) > len(found):
                order = np.random.default_rng([self._seed, part]).permutation(len(others))
                return self._look(scene, part, [others[i] for i in order], limit)
        return found, seen

    def _look(
        self, scene: Scene, part: int, places: Sequence[tuple[int, int]], limit: int
    ) -> tuple[list[_Candidate], Values]:
        scales = np.array([(band.scale, band.offset) for band in self._wanted])
        found: list[_Candidate] = []
        seen = Values([reading.declared for reading in scene.readings])
        for left, top in places:
            if len(found) == limit:
                break
            image, valid = scene.read(left, top, self._size, self._size)
            if valid.all():
                means = image.mean(axis=(1, 2), dtype=np.float64)
                brightness = float((means * scales[:, 0] + scales[:, 1]).mean())
                found.append(_Candidate(part, left, top, len(found), brightness))
                seen.add(image)
        return found, seen

    def _places(self, scene: Scene, part: int) -> Iterator[tuple[int, int]]:
        """Give the corners of tiles that do not overlap, in random order.

        Their grid begins at a random place, so that another seed gives other tiles. A chip that
        has room for one gives that in its centre.
        """
        size = self._size
        self._require_room(scene)
        random = np.random.default_rng([self._seed, part])
        columns, rows = scene.width // size, scene.height // size
        spare = (scene.width % size, scene.height % size)
        if self._source.chips and columns == rows == 1:
            yield spare[0] // 2, spare[1] // 2
            return
        first_left, first_top = (int(random.integers(pixels + 1)) for pixels in spare)
        for place in random.permutation(columns * rows):
            row, column = divmod(int(place), columns)
            yield first_left + column * size, first_top + row * size

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


def in_turn(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Reorder candidates: one of each class of brightness, another of each, and so on."""
    if not candidates:
        return []
    of = brightness_classes(np.array([candidate.brightness for candidate in candidates]))
    queues = [
        [candidate for candidate, mine in zip(candidates, of, strict=True) if mine == number]
        for number in range(_CLASSES)
    ]
    return [one for turn in zip_longest(*queues) for one in turn if one is not None]


def brightness_classes(brightness: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return which of up to four classes of like values each value is in, the lowest in class 0.

    Classes of equal numbers would be of no use: of a scene that is nearly all sea, they are nearly
    all sea. So a class is split, again and again, where that leaves the least variance.
    """
    order = np.argsort(brightness, kind="stable")
    values = brightness[order]
    least = _LEAST_GAIN * float(((values - values.mean()) ** 2).sum())
    starts = [0, len(values)]
    for _ in range(_CLASSES - 1):
        splits = [(*_split(values[a:b]), a) for a, b in pairwise(starts)]
        gain, place, start = max(splits)
        if gain <= least:
            break
        starts = sorted([*starts, start + place])
    classes = np.empty(len(values), np.intp)
    classes[order] = np.searchsorted(starts[1:], np.arange(len(values)), side="right")
    return classes


def _split(values: NDArray[np.float64]) -> tuple[float, int]:
    """Return by how much a split of sorted values in two lowers their squares, and where it is."""
    if len(values) < 2:
        return 0.0, 0
    sums = np.cumsum(values - values.mean())[:-1]
    left = np.arange(1, len(values))
    gains = sums**2 * len(values) / (left * (len(values) - left))
    gains[values[1:] == values[:-1]] = 0
    place = int(gains.argmax())
    return float(gains[place]), place + 1
