"""The ensemble directory: ``ensemble.json`` and ``.safetensors`` files, never a pickle.

One file for each specialist, so that institutions can contribute, replace and sign them one by
one, and one for what they share. ``docs/ensemble.md`` is the format's page.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from eosfm_edge.bundle.palette import Palette, palette_bytes
from eosfm_edge.ensemble.model import Ensemble, build_from_state
from eosfm_edge.ensemble.state import check_shared, check_specialist
from eosfm_edge.errors import UserError
from eosfm_edge.files import atomic_directory, cannot_write, sha256_file
from eosfm_edge.formats.base import Sha256
from eosfm_edge.formats.ensemble import (
    CONTENTS,
    INPUT_ADAPTER,
    PALETTE_NAME,
    PRUNING_ADAPTER,
    SHARED_NAME,
    SPEC_NAME,
    EnsembleSpec,
    SpecialistSpec,
    read_spec,
)

_AGAIN = "import the ensemble again, or put the original file back"
PENDING = "0" * 64  # a digest that save_ensemble fills in


def load_ensemble(directory: Path) -> Ensemble:
    """Load an ensemble directory as a model in evaluation mode, fp32.

    Raises:
        UserError: a file is missing, is not what ``ensemble.json`` says, or does not fit.
    """
    spec = read_spec(directory)
    state: dict[str, Tensor] = {}
    for i, specialist in enumerate(spec.specialists):
        path = directory / specialist.weights
        tensors = read_tensors(path, specialist.weights_sha256, SPEC_NAME, _AGAIN)
        bands = len(specialist.bands)
        check_specialist(tensors, specialist.backbone, bands, str(path), specialist.shape)
        state |= {f"encoders.{i}.{key}": value for key, value in tensors.items()}
    path = directory / SHARED_NAME
    shared = read_tensors(path, spec.shared_sha256, SPEC_NAME, _AGAIN)
    check_shared(shared, spec, str(path))
    return build_from_state(spec, state | shared)


def read_tensors(path: Path, sha256: Sha256, beside: str, remedy: str) -> dict[str, Tensor]:
    """Read a safetensors file that another file gives the digest of.

    Args:
        path: the file.
        sha256: its digest.
        beside: the name of the file that says so.
        remedy: what to do if it is another.

    Raises:
        UserError: it is missing, cannot be read, or is another.
    """
    try:
        if sha256_file(path) != sha256:
            raise UserError(
                f"{path} is not the file that {beside} was written with",
                expected=f"SHA-256 {sha256}",
                remedy=remedy,
            )
        return load(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error


def save_ensemble(
    directory: Path,
    describe: EnsembleSpec,
    specialists: Sequence[Mapping[str, Tensor]],
    shared: Mapping[str, Tensor],
    *,
    palette: Palette | None = None,
    overwrite: bool = False,
) -> EnsembleSpec:
    """Write an ensemble directory, whole or not at all; returns its spec with the digests.

    Args:
        directory: where to.
        describe: the spec; its digests are replaced by those of the files written.
        specialists: each specialist's tensors, under timm's names, in the spec's order.
        shared: everything else, under the reference's names.
        palette: that its bundles shall have; None: one that is fitted when they are exported.
        overwrite: replace a directory that is there.
    """
    with atomic_directory(directory, contents=CONTENTS, overwrite=overwrite) as scratch:
        written: list[SpecialistSpec] = []
        for specialist, tensors in zip(describe.specialists, specialists, strict=True):
            path = scratch / specialist.weights
            path.parent.mkdir(exist_ok=True)
            _save(tensors, path, directory, header_of_specialist(specialist))
            written.append(specialist.model_copy(update={"weights_sha256": sha256_file(path)}))
        _save(shared, scratch / SHARED_NAME, directory, header_of_shared(describe))
        spec = describe.model_copy(
            update={
                "specialists": tuple(written),
                "shared_sha256": sha256_file(scratch / SHARED_NAME),
            }
        )
        (scratch / SPEC_NAME).write_text(spec.model_dump_json(indent=1) + "\n")
        if palette is not None:
            (scratch / PALETTE_NAME).write_bytes(palette_bytes(palette))
    return spec


def save_model(
    directory: Path,
    ensemble: Ensemble,
    name: str,
    *,
    palette: Palette | None = None,
    overwrite: bool = False,
) -> EnsembleSpec:
    """Write a model as an ensemble directory of a name; see :func:`save_ensemble`."""
    specialists: list[dict[str, Tensor]] = [{} for _ in ensemble.spec.specialists]
    shared: dict[str, Tensor] = {}
    for key, value in ensemble.state_dict().items():
        if key.startswith("encoders."):
            _, owner, own_key = key.split(".", 2)
            specialists[int(owner)][own_key] = value
        elif not key.endswith("num_batches_tracked"):
            shared[key] = value
    spec = ensemble.spec.model_copy(update={"name": name})
    return save_ensemble(directory, spec, specialists, shared, palette=palette, overwrite=overwrite)


def header_of_specialist(specialist: SpecialistSpec) -> dict[str, str]:
    """Return what a specialist's file says of itself, so that it can be imported elsewhere."""
    header = {"name": specialist.name, "backbone": specialist.backbone}
    if all(band.known for band in specialist.bands):
        header["bands"] = ",".join(map(str, specialist.bands))
    if specialist.provenance.licence:
        header["licence"] = specialist.provenance.licence
    if specialist.provenance.citation:
        header["citation"] = specialist.provenance.citation
    if specialist.pruning:
        header["pruning"] = PRUNING_ADAPTER.dump_json(specialist.pruning).decode()
    return header


def header_of_shared(spec: EnsembleSpec) -> dict[str, str]:
    """Return what the file with shared tensors says of how they are used."""
    return {
        "specialists": ",".join(specialist.name for specialist in spec.specialists),
        "input": INPUT_ADAPTER.dump_json(spec.input).decode(),
        "adaptation": spec.adaptation,
        "normalisation": spec.normalisation,
        "selection": spec.selection.model_dump_json(),
        "fusion": spec.fusion,
    }


def _save(
    tensors: Mapping[str, Tensor], path: Path, target: Path, header: Mapping[str, str]
) -> None:
    # Views into one storage and odd strides are normal in checkpoints; safetensors wants neither.
    plain = {
        key: torch.clone(value, memory_format=torch.contiguous_format)
        for key, value in tensors.items()
    }
    try:
        save_file(plain, path, dict(header))
    except SafetensorError as error:
        raise cannot_write(target, _system_error(error)) from error
    _sort_header(path)


def _sort_header(path: Path) -> None:
    """Bring the strings of a header into order: safetensors writes them in another each time.

    Equal ensembles are then equal files, with equal digests.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        file.seek(8)
        file.write(text.ljust(size))


def _system_error(error: SafetensorError) -> OSError | str:
    """Return what the system said, of which safetensors keeps just the words and the number."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else str(error)
