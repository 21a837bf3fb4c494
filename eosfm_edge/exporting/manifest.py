"""Describe an exported bundle in its manifest."""

from __future__ import annotations

from pathlib import Path

import eosfm_edge
from eosfm_edge.bundle.digests import file_entries
from eosfm_edge.ensemble.cost import ensemble_cost
from eosfm_edge.exporting.writing import Wanted, Written
from eosfm_edge.formats.bundle import (
    BundledSpecialist,
    Candidate,
    LeftOut,
    Level,
    Manifest,
)
from eosfm_edge.formats.ensemble import LEVEL_NAMES, LEVEL_STRIDES
from eosfm_edge.formats.target import Profile


def describe(
    folder: Path,
    wanted: Wanted,
    profile: Profile,
    written: Written,
    candidates: tuple[Candidate, ...],
) -> Manifest:
    """Return the manifest of a bundle whose other files are written.

    Args:
        folder: the files.
        wanted: what was to be written.
        profile: the target's.
        written: what the files are.
        candidates: for ``--precision auto``, what it chose from.
    """
    chain = written.chain
    spec, sets = chain.ensemble.spec, chain.ensemble.sets
    used, left_out = [], []
    for specialist, runs, factor in zip(spec.specialists, sets, chain.factors, strict=True):
        if not runs:
            left_out.append(LeftOut(name=specialist.name, reason="no rule for the input's bands"))
        elif factor == 0:
            left_out.append(LeftOut(name=specialist.name, reason="not selected"))
        else:
            used.append(
                BundledSpecialist(
                    name=specialist.name,
                    backbone=specialist.backbone,
                    bands=specialist.bands,
                    runs=runs,
                    factor=factor,
                    weights_sha256=specialist.weights_sha256,
                    provenance=specialist.provenance,
                    shape=specialist.shape,
                    pruning=specialist.pruning,
                )
            )
    int8 = written.precision == "int8"
    return Manifest(
        name=wanted.name,
        created_with=f"eosfm-edge {eosfm_edge.__version__}",
        target=profile.name,
        profile=profile,
        precision=written.precision,
        candidates=candidates,
        calibration=wanted.scales.record if wanted.scales and int8 else None,
        tile=wanted.tile,
        macs=round(ensemble_cost(chain.ensemble).macs * wanted.tile.size**2),
        input=spec.input,
        levels=tuple(
            Level(name=name, stride=stride, channels=channels)
            for name, stride, channels in zip(
                LEVEL_NAMES, LEVEL_STRIDES, written.channels, strict=True
            )
        ),
        specialists=tuple(used),
        left_out=tuple(left_out),
        parity=written.parity,
        layout=wanted.layout,
        graphs=written.graphs,
        files=file_entries(folder),
    )
