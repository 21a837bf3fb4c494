"""Sensitivities as a table and as a picture."""

from __future__ import annotations

import csv
import io

from matplotlib.figure import Figure

from eosfm_edge.formats.calibration import Calibration
from eosfm_edge.formats.ensemble import LEVEL_STRIDES

_SILENT_DB = 100.0  # above this a layer does not reach a level, or costs it nothing


def sensitivity_table(calibration: Calibration) -> str:
    """Return CSV: for each specialist and layer, what it alone in int8 leaves of each level."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    levels = [f"level{index + 1}_db" for index in range(len(LEVEL_STRIDES))]
    writer.writerow(["specialist", "layer", "precision", "method", *levels])
    for one in calibration.specialists:
        for layer in one.layers:
            figures = [f"{value:.2f}" for value in layer.sensitivity_db]
            writer.writerow([one.name, layer.name, layer.precision, layer.method, *figures])
    return text.getvalue()


def sensitivity_plot(calibration: Calibration) -> bytes:
    """Return a PNG: for each specialist, what each layer alone in int8 leaves of each level.

    Layers that are int8 in the end are filled, others hollow.
    """
    count = len(calibration.specialists)
    figure = Figure(figsize=(12, 3 * count), layout="constrained")
    axes = figure.subplots(count, 1, squeeze=False)[:, 0]
    for axis, one in zip(axes, calibration.specialists, strict=True):
        places = range(len(one.layers))
        for level in range(len(LEVEL_STRIDES)):
            points = [
                (place, layer.sensitivity_db[level], layer.precision == "int8")
                for place, layer in zip(places, one.layers, strict=True)
                if layer.sensitivity_db[level] < _SILENT_DB
            ]
            for filled in (True, False):
                some = [(x, y) for x, y, int8 in points if int8 == filled]
                axis.plot(
                    [x for x, _ in some],
                    [y for _, y in some],
                    linestyle="none",
                    marker="o",
                    markersize=4,
                    color=f"C{level}",
                    fillstyle="full" if filled else "none",
                    label=f"level{level + 1}" if filled else None,
                )
        axis.set_title(one.name, loc="left")
        axis.set_ylabel("SQNR, dB")
        axis.set_xticks(places, [layer.name for layer in one.layers], rotation=90, fontsize=6)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(ncols=len(LEVEL_STRIDES), fontsize=8)
    figure.suptitle("Signal to noise when one layer alone is int8; filled: int8 in the end")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()
