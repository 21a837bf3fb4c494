"""``eosfm-edge export``: an ensemble becomes a bundle, checked against PyTorch on real tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

import eosfm_edge
from eosfm_edge.bundle.digests import file_entries
from eosfm_edge.bundle.known_answer import KnownAnswer, relative_difference, write_known_answer
from eosfm_edge.bundle.manifest import (
    BUNDLE_SUFFIX,
    KNOWN_ANSWER_NAME,
    MANIFEST_NAME,
    MODEL_NAME,
    BundledSpecialist,
    LeftOut,
    Level,
    LevelDifference,
    Manifest,
    Parity,
    Tile,
)
from eosfm_edge.ensemble.bands import Band
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.ensemble.spec import LEVEL_STRIDES, NAME_PATTERN
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.export.chain import Chain
from eosfm_edge.export.onnx import level_names, write_onnx
from eosfm_edge.files import atomic_directory
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import Radiometry, open_scene

FloatArray = NDArray[np.float32]

TARGETS = ("cpu",)
TOLERANCE = 1e-4  # largest difference from PyTorch, relative to the level's largest value
PARITY_TILES = 4


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        target: the device profile.
        tile: pixels of a tile's side, a multiple of 32.
        dynamic_batch: let the model take several tiles at once.
        names: what the bands of the scene are, if its files do not say so.
        radiometry: scale, offset and nodata of the scene, if its files do not say so.
        overwrite: replace a bundle that is there.
    """

    target: str = "cpu"
    tile: int = 224
    dynamic_batch: bool = False
    names: Sequence[Band] | None = None
    radiometry: Radiometry | None = None
    overwrite: bool = False


def export_bundle(
    ensemble_directory: Path, scene: Path, bundle: Path, options: ExportOptions | None = None
) -> Manifest:
    """Export an ensemble as a bundle.

    Args:
        ensemble_directory: the ensemble.
        scene: real imagery, from which tiles are taken to check the exported model against the
            PyTorch ensemble, and one of them as the bundle's known answer.
        bundle: the directory to write; its name must end in ``.eosfm``.
        options: how to export.

    Raises:
        CheckFailedError: the exported model differs from PyTorch by more than 1e-4 of a level's
            largest value. No bundle is written then.
        UserError: the ensemble or the scene cannot be used.
    """
    options = options or ExportOptions()
    _require_bundle_name(bundle)
    tile = _tile(options)
    contents = (MANIFEST_NAME, MODEL_NAME, KNOWN_ANSWER_NAME)
    with atomic_directory(bundle, contents=contents, overwrite=options.overwrite) as scratch:
        ensemble = load_ensemble(ensemble_directory)
        chain = Chain(ensemble)
        tiles = _real_tiles(scene, ensemble, tile.size, options)
        example = torch.from_numpy(tiles[0][np.newaxis])
        write_onnx(chain, example, scratch / MODEL_NAME, dynamic_batch=tile.dynamic_batch)
        expected = [_reference(ensemble, image) for image in tiles]
        parity = _check_parity(scratch / MODEL_NAME, tiles, expected)
        names = level_names(len(LEVEL_STRIDES))
        answer = KnownAnswer(tiles[0][np.newaxis], tuple(expected[0]))
        write_known_answer(scratch, names, answer)
        manifest = Manifest(
            name=bundle.stem,
            created_with=f"eosfm-edge {eosfm_edge.__version__}",
            target=options.target,
            precision="fp32",
            tile=tile,
            input=ensemble.spec.input,
            levels=tuple(
                Level(name=name, stride=stride, channels=features.shape[1])
                for name, stride, features in zip(names, LEVEL_STRIDES, expected[0], strict=True)
            ),
            specialists=_bundled(ensemble, chain),
            left_out=_left_out(ensemble, chain),
            parity=parity,
            files=file_entries(scratch),
        )
        (scratch / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _require_bundle_name(bundle: Path) -> None:
    if bundle.suffix != BUNDLE_SUFFIX or not re.fullmatch(NAME_PATTERN, bundle.stem):
        raise UserError(
            f"{bundle} is no name for a bundle",
            expected=f"NAME{BUNDLE_SUFFIX}, NAME of letters, digits, '.', '_' and '-'",
        )


def _tile(options: ExportOptions) -> Tile:
    try:
        return Tile(size=options.tile, dynamic_batch=options.dynamic_batch)
    except ValidationError as error:
        raise UserError(
            f"tiles of {options.tile} pixels a side", expected="a multiple of 32 from 32 to 1024"
        ) from error


def _real_tiles(
    scene: Path, ensemble: Ensemble, size: int, options: ExportOptions
) -> list[FloatArray]:
    with open_scene(
        scene, ensemble.spec.input, names=options.names, radiometry=options.radiometry
    ) as opened:
        return sample_tiles(opened, size, PARITY_TILES)


@torch.inference_mode()
def _reference(ensemble: Ensemble, image: FloatArray) -> list[FloatArray]:
    """Return the levels (1, C, h, w) that PyTorch makes of stored values (bands, H, W)."""
    stored = torch.from_numpy(image[np.newaxis])
    return [level.numpy() for level in ensemble(physical_units(ensemble.spec, stored))]


def _check_parity(
    model: Path, tiles: Sequence[FloatArray], expected: Sequence[Sequence[FloatArray]]
) -> Parity:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst = dict.fromkeys(names, 0.0)
    for tile, levels in zip(tiles, expected, strict=True):
        got = session.run(names, {session.get_inputs()[0].name: tile[np.newaxis]})
        for name, mine, reference in zip(names, got, levels, strict=True):
            worst[name] = max(worst[name], relative_difference(mine, reference))
    wrong = {name: value for name, value in worst.items() if not value <= TOLERANCE}
    if wrong:
        raise CheckFailedError(
            "the exported model differs from the PyTorch ensemble: "
            + ", ".join(f"{name} by {value:.1e}" for name, value in wrong.items()),
            expected=f"at most {TOLERANCE:.0e} of the level's largest value",
        )
    return Parity(
        backend=f"onnxruntime {onnxruntime.__version__}",
        tiles=len(tiles),
        tolerance=TOLERANCE,
        levels=tuple(LevelDifference(level=k, relative=v) for k, v in worst.items()),
    )


def _bundled(ensemble: Ensemble, chain: Chain) -> tuple[BundledSpecialist, ...]:
    return tuple(
        BundledSpecialist(
            name=s.name,
            backbone=s.backbone,
            bands=s.bands,
            runs=sets,
            factor=factor,
            weights_sha256=s.weights_sha256,
            provenance=s.provenance,
        )
        for s, sets, factor in zip(
            ensemble.spec.specialists, ensemble.sets, chain.factors, strict=True
        )
        if sets and factor != 0
    )


def _left_out(ensemble: Ensemble, chain: Chain) -> tuple[LeftOut, ...]:
    return tuple(
        LeftOut(name=s.name, reason="not selected" if sets else "no rule for the input's bands")
        for s, sets, factor in zip(
            ensemble.spec.specialists, ensemble.sets, chain.factors, strict=True
        )
        if not sets or factor == 0
    )
