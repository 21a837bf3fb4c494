"""Heads before and after compression.

    python benchmarks/heads.py ORIGINAL COMPRESSED... --labels LABELS --data SCENE

ORIGINAL and COMPRESSED are bundles of one ensemble, before and after pruning and quantisation.
Blocks of the scenes are held out in turn. For each bundle two heads are judged there:

- ``kept``: fitted to the original's features, and applied unchanged to the compressed ones, as to a
  satellite that gets new weights under an old head;
- ``fitted``: fitted anew to the bundle's own features.

``moved`` is the share of held-out cells that a kept head puts into another class than it does on
the original's features. All bundles are asked about the same cells. With ``--json`` all figures are
printed as JSON. No PyTorch is needed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm_edge.api.options import HeadOptions
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.heads.cells import LabelledCells, deal, gather
from eosfm_edge.heads.labels import read_labels
from eosfm_edge.heads.ridge import fit
from eosfm_edge.packets.words import parse_levels
from eosfm_edge.runtime.backends import open_context
from eosfm_edge.scene.reading import Radiometry

Indices = NDArray[np.int64]


def cells_of(bundle: Path, options: HeadOptions) -> LabelledCells:
    """Return the labelled cells of the scenes with the features of a bundle."""
    manifest = read_manifest(bundle)
    with (
        open_context(bundle, manifest, [options.backend], options.threads) as context,
        tempfile.TemporaryDirectory() as folder,
    ):
        return gather(
            context,
            manifest,
            Path(folder),
            options.data,
            [read_labels(path, options.column) for path in options.labels],
            levels=parse_levels(options.levels),
            known=options.classes,
            most=options.cells,
            seed=options.seed,
            names=options.bands,
            radiometry=Radiometry(options.scale, options.offset, options.nodata),
        )


def held_out(
    cells: LabelledCells, others: Sequence[LabelledCells], labels: Indices, seed: int
) -> tuple[list[Indices], NDArray[np.bool_]]:
    """Fit to all folds of some cells but one, and classify that one, with each bundle's features.

    Returns:
        The classes (n,) by each of the features, and which cells were judged.
    """
    fold = deal(cells, seed)
    classes = int(labels.max()) + 1
    found = [np.full(len(labels), -1, np.int64) for _ in others]
    for one in range(int(fold.max()) + 1):
        learns, judges = fold != one, (fold == one) & cells.judges
        _, rest = np.unique(fold[learns], return_inverse=True)
        solved = fit(cells.features[learns], labels[learns], rest, cells.judges[learns], classes)
        for classified, other in zip(found, others, strict=True):
            scores = other.features[judges] @ solved.weights + solved.bias
            classified[judges] = scores.argmax(axis=1)
    return found, cells.judges


def figures(classified: Indices, labels: Indices, judged: NDArray[np.bool_]) -> dict[str, float]:
    """Return accuracy and mean F1 of the classes that were judged."""
    right = classified[judged] == labels[judged]
    scores = []
    for one in np.unique(labels[judged]):
        labelled, found = labels[judged] == one, classified[judged] == one
        scores.append(2 * (labelled & found).sum() / (labelled.sum() + found.sum()))
    return {"accuracy": float(right.mean()), "f1": float(np.mean(scores))}


def measure(bundles: Sequence[Path], options: HeadOptions) -> dict[str, Any]:
    """Return all figures."""
    started = time.monotonic()
    cells = [cells_of(bundle, options) for bundle in bundles]
    codes, labels = np.unique(cells[0].codes, return_inverse=True)
    for bundle, one in zip(bundles, cells, strict=True):
        if not np.array_equal(one.codes, cells[0].codes):
            raise UserError(
                f"{bundle} has other cells than {bundles[0]}",
                expected="bundles of the same tile and bands",
            )
    kept, judged = held_out(cells[0], cells, labels, options.seed)
    support = np.bincount(labels[judged])
    rows = []
    for bundle, own, classified in zip(bundles, cells, kept, strict=True):
        (fitted,), _ = held_out(own, [own], labels, options.seed)
        manifest = read_manifest(bundle)
        rows.append(
            {
                "bundle": bundle.name,
                "precision": manifest.precision,
                "macs": manifest.macs,
                "bytes": sum(entry.size for entry in manifest.files.values()),
                "kept": figures(classified, labels, judged),
                "moved": float((classified != kept[0])[judged].mean()),
                "fitted": figures(fitted, labels, judged),
            }
        )
    return {
        "labels": [path.name for path in options.labels],
        "levels": options.levels,
        "channels": cells[0].features.shape[1],
        "classes": len(codes),
        "cells": len(labels),
        "judged": int(judged.sum()),
        "places": int(cells[0].place.max()) + 1,
        "most_frequent": float(support.max() / support.sum()),
        "bundles": rows,
        "seconds": time.monotonic() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--labels", action="append", required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--classes")
    parser.add_argument("--levels", default="1,2,3")
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = vars(parser.parse_args())
    bundles, as_json = given.pop("bundles"), given.pop("json")
    found = measure(bundles, HeadOptions(**given))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"{found['judged']:,} held-out cells of {found['places']} places, {found['classes']} "
        f"classes; always the most frequent: {100 * found['most_frequent']:.1f} %"
    )
    print(f"{'bundle':<24} {'kept':>14} {'moved':>8} {'fitted':>14}")
    for row in found["bundles"]:
        kept, fitted = (
            f"{100 * row[name]['accuracy']:.1f} %, {row[name]['f1']:.3f}"
            for name in ("kept", "fitted")
        )
        print(f"{row['bundle']:<24} {kept:>14} {100 * row['moved']:>6.1f} % {fitted:>14}")


if __name__ == "__main__":
    main()
