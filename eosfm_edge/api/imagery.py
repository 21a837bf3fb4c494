"""The imagery that is kept with an ensemble, and used by verbs that are given none."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from eosfm_edge.api.checks import require_there
from eosfm_edge.api.options import (
    CalibrateOptions,
    DeployOptions,
    ExportOptions,
    ImageryOptions,
    Options,
    PruneOptions,
    Scene,
)
from eosfm_edge.errors import UserError
from eosfm_edge.files import atomic_file, sha256_file
from eosfm_edge.formats.bands import parse_bands
from eosfm_edge.formats.base import read_json_model
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.formats.imagery import IMAGERY_NAME, KeptFile, KeptImagery

if TYPE_CHECKING:
    from eosfm_edge.scene.reading import Radiometry

IMAGERY = "a scene, a folder of bands or chips, or a manifest (.yaml)"

WithImagery = TypeVar("WithImagery", PruneOptions, CalibrateOptions, DeployOptions, ExportOptions)


def describe_imagery(data: Sequence[Scene], *, seed: int) -> KeptImagery:
    """Describe imagery as it is now, with the digests of its files.

    Raises:
        UserError: a file cannot be read.
    """
    return KeptImagery(files=tuple(map(_described, data)), seed=seed)


def used_imagery(
    options: PruneOptions | DeployOptions, kept: KeptImagery | None, seed: int
) -> KeptImagery:
    """Describe the imagery that a verb has used, and how it has read it.

    Args:
        options: of the verb, with what was kept in them.
        kept: the description of the files, if they were not given; they are as they were then.
        seed: of the choice of tiles, where neither of these says it.

    Raises:
        UserError: a file cannot be read.
    """
    if options.seed is not None:
        seed = options.seed
    elif kept is not None:
        seed = kept.seed
    return KeptImagery(
        files=kept.files if kept else tuple(map(_described, options.data)),
        seed=seed,
        bands=tuple(map(str, options.bands)) if options.bands else None,
        scale=options.scale,
        offset=options.offset,
        nodata=options.nodata,
    )


def keep_imagery(ensemble: Path, imagery: KeptImagery) -> None:
    """Write the description of imagery into an ensemble's directory.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_file(ensemble / IMAGERY_NAME) as scratch:
        scratch.write_text(imagery.model_dump_json(indent=1) + "\n")


def kept_imagery(ensemble: Path) -> KeptImagery | None:
    """Return the imagery that is kept with an ensemble, if any is.

    Raises:
        UserError: its description is not valid.
    """
    path = ensemble / IMAGERY_NAME
    if not path.exists():
        return None
    return read_json_model(KeptImagery, path, what="the imagery of an ensemble")


def with_kept(options: WithImagery, kept: KeptImagery | None) -> WithImagery:
    """Return options in which what is not given of imagery is as it was kept."""
    if kept is None:
        return options
    data = tuple(_name(file) for file in kept.files)
    found: dict[str, object] = {
        "data": data[0] if isinstance(options, ExportOptions) else data,
        "bands": parse_bands(",".join(kept.bands)) if kept.bands else None,
        "scale": kept.scale,
        "offset": kept.offset,
        "nodata": kept.nodata,
        "seed": kept.seed,
    }
    if isinstance(options, ExportOptions):
        del found["seed"]  # exports choose no tiles by it
    elif isinstance(options, PruneOptions) and (options.plan or Path(options.recipe).suffix):
        del found["seed"]  # plans and recipes of the user's own have theirs
    given = {name for name in found if name != "data" and getattr(options, name) is not None}
    return options.model_copy(update={k: v for k, v in found.items() if k not in given})


def require_imagery(data: Sequence[Scene], ensemble: Path, kept: KeptImagery | None) -> None:
    """Check that imagery is there, and that what was kept with an ensemble is what it was then.

    Args:
        data: the imagery.
        ensemble: the ensemble's directory.
        kept: the imagery's description, if it is that which is kept there.

    Raises:
        UserError: a file is missing or another.
    """
    if kept is None:
        require_there(data, IMAGERY)
        return
    for file in kept.files:
        path = _name(file)
        if not isinstance(path, Path):
            continue
        where = f"{path}, the imagery kept with {ensemble},"
        if not path.exists():
            raise UserError(f"{where} does not exist", remedy="give other imagery: --data SCENE")
        if _described(path) != file:
            raise UserError(
                f"{where} is not what it was then",
                expected=f"files with the SHA-256 that {ensemble / IMAGERY_NAME} lists",
                remedy=f"to use it as it is now, add --data {path}",
            )


def require_readable(data: Sequence[Scene], bands: Sequence[InputBand]) -> None:
    """Check that an ensemble's input bands can be read from imagery.

    Raises:
        UserError: one cannot be opened, lacks a band, or has values that cannot be right.
    """
    from eosfm_edge.scene.radiometry import require_plausible_scene
    from eosfm_edge.scene.scene import open_scene
    from eosfm_edge.scene.sources import find_sources

    for source in find_sources(data):
        part = source.parts[0]
        with open_scene(part.path, bands, names=part.names, radiometry=part.radiometry) as scene:
            require_plausible_scene(scene)


def _name(file: KeptFile) -> Path | str:
    return file.path if file.sha256 is None else Path(file.path)


def _described(name: Scene) -> KeptFile:
    if not isinstance(name, Path):
        return KeptFile(path=name, sha256=None)
    path = name.resolve()
    if not path.is_dir():
        return KeptFile(path=str(path), sha256=sha256_file(path))
    files = sorted(one for one in path.rglob("*") if one.is_file())
    digests = {one.relative_to(path).as_posix(): sha256_file(one) for one in files}
    return KeptFile(path=str(path), sha256=digests)


def radiometry_of(options: ImageryOptions) -> Radiometry:
    """Return how values are read, as the options say."""
    from eosfm_edge.scene.reading import Radiometry

    return Radiometry(options.scale, options.offset, options.nodata, options.trust_values)


def no_imagery(verb: str, ensemble: Path, options: Options) -> UserError:
    """Return the error of a verb that has no imagery, with the line that gives it some."""
    words = ["eosfm-edge", verb, str(ensemble), *options.as_arguments(), "--data", "SCENE"]
    return UserError(
        f"no imagery was given to {verb} {ensemble} on", expected=IMAGERY, remedy=shlex.join(words)
    )
