"""Draw tiles from an open scene: from a grid, or wherever they are valid where pixels are missing.

Calibration wants tiles that do not overlap, in random order; a check of an exported bundle wants a
few that differ, from all over the scene. Both look at more places than they take, of which only
the position and a score are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from eosfm_edge.errors import UserError
from eosfm_edge.scene.places import Place, valid_places
from eosfm_edge.scene.radiometry import Values
from eosfm_edge.scene.reading import FloatImage
from eosfm_edge.scene.scene import Scene

_GRID = 4  # candidates along each side of the scene, for a spread


@dataclass(frozen=True)
class Candidate:
    """A tile that can be taken.

    Attributes:
        left, top: its corner.
        whole: every pixel is valid.
        score: what the caller measures of its stored values.
    """

    left: int
    top: int
    whole: bool
    score: float


def sample_tiles(scene: Scene, size: int, count: int) -> list[FloatImage]:
    """Return up to ``count`` tiles, spread over the scene, wholly valid ones first.

    Args:
        scene: where from.
        size: pixels of a tile's side.
        count: how many tiles; fewer where the scene is small or has much nodata.

    Returns:
        Stored values, each (bands, size, size); the tile with the most contrast first, so that
        a single one taken is not plain sea.

    Raises:
        UserError: the scene is smaller than a tile, or no tile is half valid.
    """
    scene.require_room_for(size)
    columns = np.unique(np.linspace(0, scene.width - size, _GRID).astype(int))
    rows = np.unique(np.linspace(0, scene.height - size, _GRID).astype(int))
    grid = [(int(left), int(top)) for top in rows for left in columns]
    candidates = list(_look(scene, size, grid, _contrast, least=0.5))
    if sum(candidate.whole for candidate in candidates) < min(count, len(grid)):
        random = np.random.default_rng(0)
        places = valid_places(scene, size, random)
        some = random.permutation(len(places))[: _GRID**2]
        others = [places[i] for i in some if places[i] not in grid]
        candidates += _look(scene, size, others, _contrast)
    if not candidates:
        raise UserError(
            f"{scene.path} has no tile of {size} x {size} that is half valid",
            remedy="give a scene with less nodata",
        )
    candidates.sort(key=lambda candidate: (candidate.whole, candidate.score), reverse=True)
    return [scene.read(one.left, one.top, size, size)[0] for one in candidates[:count]]


def candidates_apart(
    scene: Scene,
    size: int,
    limit: int,
    seed: Sequence[int],
    measure: Callable[[FloatImage], float],
    *,
    centred: bool,
) -> tuple[list[Candidate], Values]:
    """Look at up to ``limit`` wholly valid tiles that do not overlap, in random order.

    The places of a grid are tried first. Where pixels without data leave too few of them, the
    whole scene is searched.

    Args:
        scene: where from; it has room for a tile.
        size: pixels of a tile's side.
        limit: how many, at most.
        seed: of the order and of where the grid begins.
        measure: the score of a tile's stored values (bands, size, size).
        centred: a scene that has room for one tile gives that in its centre.

    Returns:
        The tiles, and what values they have.
    """
    places = list(_grid(scene, size, np.random.default_rng(seed), centred=centred))
    found, seen = _first(scene, size, places, limit, measure)
    if len(found) < min(limit, len(places)):
        others = valid_places(scene, size, np.random.default_rng(seed))
        if len(others) > len(found):
            order = np.random.default_rng(seed).permutation(len(others))
            return _first(scene, size, [others[i] for i in order], limit, measure)
    return found, seen


def _grid(
    scene: Scene, size: int, random: np.random.Generator, *, centred: bool
) -> Iterator[Place]:
    """Give the corners of tiles that do not overlap, in random order.

    Their grid begins at a random place, so that another seed gives other tiles.
    """
    columns, rows = scene.width // size, scene.height // size
    spare = (scene.width % size, scene.height % size)
    if centred and columns == rows == 1:
        yield spare[0] // 2, spare[1] // 2
        return
    first_left, first_top = (int(random.integers(pixels + 1)) for pixels in spare)
    for place in random.permutation(columns * rows):
        row, column = divmod(int(place), columns)
        yield first_left + column * size, first_top + row * size


def _first(
    scene: Scene,
    size: int,
    places: Iterable[Place],
    limit: int,
    measure: Callable[[FloatImage], float],
) -> tuple[list[Candidate], Values]:
    """Return the first ``limit`` wholly valid tiles, and what values they have."""
    seen = Values([reading.declared for reading in scene.readings])

    def note(image: FloatImage) -> float:
        seen.add(image)
        return measure(image)

    return list(islice(_look(scene, size, places, note), limit)), seen


def _look(
    scene: Scene,
    size: int,
    places: Iterable[Place],
    measure: Callable[[FloatImage], float],
    least: float = 1.0,
) -> Iterator[Candidate]:
    """Read places, and give those of which at least a share of the pixels is valid."""
    for left, top in places:
        image, valid = scene.read(left, top, size, size)
        if valid.mean() >= least:
            yield Candidate(left, top, bool(valid.all()), measure(image))


def _contrast(image: FloatImage) -> float:
    return float(np.median(image.std(axis=(1, 2)) / (np.abs(image).mean() + 1e-9)))
