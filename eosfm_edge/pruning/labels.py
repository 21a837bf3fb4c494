"""Labelled images for a probe: a CSV of files and labels."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from eosfm_edge.ensemble.model import physical_units
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import read_spec
from eosfm_edge.scene.scene import open_scene

COLUMNS = ("file", "label")


def read_chips(path: Path, ensemble: Path) -> list[tuple[Tensor, int]]:
    """Read the images that a CSV names.

    Args:
        path: a CSV with the columns ``file`` (relative to it) and ``label`` (any text).
        ensemble: the ensemble's directory, whose input bands are read.

    Returns:
        Images (bands, H, W) in physical units, sides cut to multiples of 32, and class numbers.

    Raises:
        UserError: the CSV or an image cannot be read, an image is smaller than 32 pixels, or there
            are fewer than two classes.
    """
    spec = read_spec(ensemble)
    rows = _rows(path)
    classes = sorted({label for _, label in rows})
    if len(classes) < 2:
        raise UserError(f"{path} has {len(classes)} classes", expected="at least two")
    chips = []
    for file, label in rows:
        with open_scene(path.parent / file, spec.input) as scene:
            width, height = scene.width // 32 * 32, scene.height // 32 * 32
            scene.require_room_for(32)
            stored, _ = scene.read(0, 0, width, height)
        image = physical_units(spec, torch.from_numpy(stored)[None])[0]
        chips.append((image, classes.index(label)))
    return chips


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise UserError(
                    f"{path} has the columns {', '.join(reader.fieldnames or ()) or 'none'}",
                    expected=" and ".join(COLUMNS),
                )
            return [(row["file"], row["label"]) for row in reader]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text") from error
