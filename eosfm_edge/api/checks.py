"""Check what a verb was given before anything heavy is imported: none of this needs torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from eosfm_edge.errors import UserError
from eosfm_edge.files import require_outside, require_replaceable
from eosfm_edge.formats.bundle import CONTENTS, MANIFEST_NAME
from eosfm_edge.formats.ensemble import SPEC_NAME, EnsembleSpec, read_spec
from eosfm_edge.formats.heads import HEADS_FOLDER

_WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


def require_ensemble(path: Path) -> EnsembleSpec:
    """Read the description of an ensemble directory.

    Raises:
        UserError: it is none; says what to do with weights that are not imported yet.
    """
    if not (path / SPEC_NAME).exists() and not (path / MANIFEST_NAME).exists():
        what = f"an ensemble, which has {SPEC_NAME}"
        importing = f"eosfm-edge import {path} -o ENSEMBLE"
        if path.is_file():
            weights = path.suffix in _WEIGHTS
            raise UserError(
                f"{path} is a {'weight ' if weights else ''}file",
                expected=what,
                remedy=importing if weights else None,
            )
        if (path / ".metadata").is_file() and any(path.glob("*.distcp")):
            raise UserError(
                f"{path} is a sharded checkpoint, as FSDP saves it",
                expected=what,
                remedy="gather it with python -m torch.distributed.checkpoint.format_utils "
                f"dcp_to_torch {path} weights.pth, then eosfm-edge import weights.pth -o ENSEMBLE",
            )
        if any(any(path.glob(f"*{suffix}")) for suffix in _WEIGHTS):
            raise UserError(f"{path} is a folder of weights", expected=what, remedy=importing)
    return read_spec(path)


def require_there(paths: Iterable[object], expected: str) -> None:
    """Check that files and folders exist; names that only GDAL knows are not looked at.

    Raises:
        UserError: one does not.
    """
    for path in paths:
        if isinstance(path, Path) and not os.path.lexists(path):
            raise UserError(f"{path} does not exist", expected=expected)


def require_output(
    output: Path, inputs: Iterable[object], contents: Sequence[str], overwrite: bool
) -> None:
    """Check that an output can be written and holds none of the inputs.

    Args:
        output: the directory to write.
        inputs: those that are paths must lie outside of it.
        contents: patterns of the files that such a directory holds.
        overwrite: replace one that is there.

    Raises:
        UserError: it holds an input, or is there and may not be replaced.
    """
    require_outside(output, [path for path in inputs if isinstance(path, Path)])
    if os.path.lexists(output):
        require_replaceable(output.absolute(), contents, overwrite)


class HeadsGoWarning(UserWarning):
    """A bundle that is replaced has heads, which are of its features."""


def require_bundle_output(output: Path, inputs: Iterable[object], overwrite: bool) -> None:
    """Check that a bundle can be written; warn of the heads of one that it replaces.

    Raises:
        UserError: it holds an input, or is there and may not be replaced.
    """
    require_output(output, inputs, CONTENTS, overwrite)
    heads = sorted(path.stem for path in (output / HEADS_FOLDER).glob("*.gguf"))
    if heads:
        warnings.warn(
            f"the heads of {output} go with it: {', '.join(heads)}. They answer from its features: "
            "fit them again to the new ones, with eosfm-edge head fit",
            HeadsGoWarning,
            stacklevel=3,
        )
