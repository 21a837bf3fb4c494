"""Holds the manifest against what the engine reads.

``manifest.json`` has the digests and no digest of its own: whoever edits it changes what values
mean, and no file differs. So all that is also in ``chain.gguf`` and the specialists' files must be
equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import CHAIN_NAME, MANIFEST_NAME, BundledSpecialist, Manifest
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.native.gguf import Gguf, read_gguf

Fields = dict[str, Any]


def disagreements(bundle: Path, manifest: Manifest) -> list[str]:
    """Return a complaint for every field of the manifest that another file contradicts.

    Specialists' files that are not there are left out.
    """
    try:
        chain = read_gguf(bundle / CHAIN_NAME)
        complaints = _compared(_of_manifest(manifest), _of_chain(chain), CHAIN_NAME)
        # By the chain's own names, since those are what the engine opens.
        names = _texts(chain, "eosfm.specialists.files")
        if len(set(names)) < len(names):
            complaints.append(f"{CHAIN_NAME} names a file for two specialists")
        for index, (name, one) in enumerate(zip(names, manifest.specialists, strict=False)):
            if name not in manifest.files:
                if manifest.of_role("native"):  # else none is: the bundle is for graphs alone
                    complaints.append(f"{CHAIN_NAME} names {name}, which is not in {MANIFEST_NAME}")
            elif (bundle / name).exists():
                place = f"specialists.{index}"
                file = read_gguf(bundle / name)
                found = _of_specialist(file, place, pruned=one.shape is not None)
                complaints += _compared(_of_bundled(one, place), found, name)
    except UserError as error:
        return [str(error).partition("\n")[0].replace(f"{bundle}/", "")]
    return complaints


def _compared(manifest: Fields, file: Fields, name: str) -> list[str]:
    return [
        f"{field} is {_shown(manifest.get(field))} in {MANIFEST_NAME} "
        f"and {_shown(file.get(field))} in {name}"
        for field in sorted({*manifest, *file})
        if manifest.get(field) != file.get(field)
    ]


def _shown(value: object) -> str:
    if value is None:
        return "not there"
    return f"{value:.9g}" if isinstance(value, float) else repr(value)


def _of_manifest(manifest: Manifest) -> Fields:
    fields: Fields = {"name": manifest.name, "tile.size": manifest.tile.size}
    for index, band in enumerate(manifest.input):
        fields |= _of_band(index, band)
    for index, level in enumerate(manifest.levels):
        fields[f"levels.{index}.name"] = level.name
        fields[f"levels.{index}.channels"] = level.channels
        fields[f"levels.{index}.stride"] = level.stride
    for index, specialist in enumerate(manifest.specialists):
        fields[f"specialists.{index}.name"] = specialist.name
        fields[f"specialists.{index}.factor"] = _rounded(specialist.factor)
        fields[f"specialists.{index}.runs"] = [list(run) for run in specialist.runs]
    for parity in manifest.parity:
        fields[f"parity.{parity.backend}.tolerance"] = _rounded(parity.tolerance)
    fields["graphs"] = list(manifest.graphs) or None
    return fields


def _of_band(index: int, band: InputBand) -> Fields:
    return {
        f"input.{index}.name": band.name or "",
        f"input.{index}.wavelength_nm": _rounded(band.wavelength_nm or 0.0),
        f"input.{index}.scale": _rounded(band.scale),
        f"input.{index}.offset": _rounded(band.offset),
        f"input.{index}.seen": [_rounded(value) for value in band.seen],
        f"input.{index}.fill": _rounded(band.fill),
        f"input.{index}.nodata": None if band.nodata is None else _rounded(band.nodata),
    }


def _of_chain(chain: Gguf) -> Fields:
    """Return what ``chain.gguf`` says, under the manifest's names."""
    fields: Fields = {
        "name": chain.values.get("general.name"),
        "tile.size": chain.values.get("eosfm.tile"),
    }
    names = _texts(chain, "eosfm.input.names")
    # Where specialists see physical values there is one scale for both.
    prefix = "physical_" if "eosfm.input.physical_scales" in chain.values else ""
    columns = {
        field: _list(chain, f"eosfm.input.{key}", len(names))
        for field, key in (
            ("wavelength_nm", "wavelengths_nm"),
            ("scale", f"{prefix}scales"),
            ("offset", f"{prefix}offsets"),
            ("fill", "fills"),
            ("nodata", "nodata"),
        )
    }
    seen = [_list(chain, f"eosfm.input.{key}", len(names)) for key in ("scales", "offsets")]
    has_nodata = _list(chain, "eosfm.input.has_nodata", len(names))
    for index, name in enumerate(names):
        fields[f"input.{index}.name"] = name
        fields[f"input.{index}.seen"] = [seen[0][index], seen[1][index]]
        for field, column in columns.items():
            fields[f"input.{index}.{field}"] = column[index]
        if not has_nodata[index]:
            fields[f"input.{index}.nodata"] = None
    for index, channels in enumerate(_list(chain, "eosfm.levels.channels", 4)):
        fields[f"levels.{index}.name"] = f"level{index + 1}"
        fields[f"levels.{index}.channels"] = channels
        fields[f"levels.{index}.stride"] = 4 << index
    specialists = _texts(chain, "eosfm.specialists.names")
    factors = _list(chain, "eosfm.specialists.factors", len(specialists))
    runs = _runs(chain, len(specialists))
    for index, name in enumerate(specialists):
        fields[f"specialists.{index}.name"] = name
        fields[f"specialists.{index}.factor"] = factors[index]
        fields[f"specialists.{index}.runs"] = runs[index]
    # None of what was not exported.
    fields["parity.native.tolerance"] = _one(chain, "eosfm.known.tolerances")
    fields["graphs"] = chain.values.get("eosfm.graphs.files")
    fields["parity.onnxruntime.tolerance"] = _one(chain, "eosfm.graphs.tolerances")
    return fields


def _runs(chain: Gguf, specialists: int) -> list[list[list[int]]]:
    """Return for each specialist the bands of its runs."""
    owners = _list(chain, "eosfm.runs.specialists")
    lengths = _list(chain, "eosfm.runs.lengths", len(owners))
    bands, at = _list(chain, "eosfm.runs.bands"), 0
    runs: list[list[list[int]]] = [[] for _ in range(specialists)]
    for owner, length in zip(owners, lengths, strict=True):
        if owner >= specialists:
            raise UserError(f"a run in {CHAIN_NAME} is of specialist {owner} of {specialists}")
        runs[owner].append(bands[at : at + length])
        at += length
    return runs


def _of_bundled(one: BundledSpecialist, place: str) -> Fields:
    """Return what the manifest says that a specialist's own file says too."""
    fields: Fields = {
        f"{place}.name": one.name,
        f"{place}.backbone": one.backbone,
        f"{place}.bands": len(one.bands),
        f"{place}.weights_sha256": one.weights_sha256,
        f"{place}.provenance.licence": one.provenance.licence or "",
        f"{place}.provenance.source": one.provenance.source,
    }
    if one.shape is not None:
        fields[f"{place}.shape.widths"] = list(one.shape.widths)
        fields[f"{place}.shape.hidden"] = [h for stage in one.shape.hidden for h in stage]
    return fields


def _of_specialist(file: Gguf, place: str, *, pruned: bool) -> Fields:
    """Return what a specialist's file says; its writer leaves empty texts out.

    The shape is compared where the manifest has one: else it is the backbone's, of which nothing
    but the name is there.
    """
    values = file.values
    fields = {
        f"{place}.name": values.get("general.name"),
        f"{place}.backbone": values.get("eosfm.backbone"),
        f"{place}.bands": values.get("eosfm.bands"),
        f"{place}.weights_sha256": values.get("eosfm.weights_sha256"),
        f"{place}.provenance.licence": values.get("eosfm.licence", ""),
        f"{place}.provenance.source": values.get("eosfm.source", ""),
    }
    if pruned:
        fields[f"{place}.shape.widths"] = values.get("eosfm.widths")
        fields[f"{place}.shape.hidden"] = values.get("eosfm.hidden")
    return fields


def _rounded(value: float) -> float:
    """Return a number as float32 holds it, which is how files of weights have it."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _list(file: Gguf, key: str, count: int | None = None) -> Sequence[Any]:
    """Return an array of numbers.

    Raises:
        UserError: it is missing, or of another length.
    """
    found = file.values.get(key)
    if not isinstance(found, list) or (count is not None and len(found) != count):
        length = len(found) if isinstance(found, list) else "no"
        raise UserError(
            f"{key} of {CHAIN_NAME} has {length} elements",
            expected=f"{'some' if count is None else count}",
        )
    if not all(isinstance(value, (int, float)) for value in found):
        raise UserError(f"{key} of {CHAIN_NAME} is not of numbers", expected="an array of numbers")
    return found


def _texts(file: Gguf, key: str) -> list[str]:
    found = file.values.get(key)
    if not isinstance(found, list) or not all(isinstance(value, str) for value in found):
        raise UserError(f"{CHAIN_NAME} has no {key}", expected="an array of texts")
    return found


def _one(file: Gguf, key: str) -> float | None:
    """Return the smallest of an array of numbers, of which writers make all equal."""
    return min(_list(file, key)) if key in file.values else None
