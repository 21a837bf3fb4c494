"""The JSON schemas of the file formats, beside the pages that explain them.

``python -m eosfm_edge.formats.schemas export`` writes those of the folder ``export``, and with
``calibration`` those of that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from eosfm_edge.formats.bundle import Manifest
from eosfm_edge.formats.calibration import Calibration
from eosfm_edge.formats.ensemble import EnsembleSpec
from eosfm_edge.formats.imagery import CalibrationManifest
from eosfm_edge.formats.target import Profile

# By the folder that they are kept in.
MODELS: dict[str, dict[str, type[BaseModel]]] = {
    "export": {
        "ensemble.schema.json": EnsembleSpec,
        "manifest.schema.json": Manifest,
    },
    "targets": {"profile.schema.json": Profile},
    "calibration": {
        "calibration.schema.json": Calibration,
        "manifest.schema.json": CalibrationManifest,
    },
}


def schema_text(model: type[BaseModel]) -> str:
    """Return a format's JSON schema as it is kept."""
    return json.dumps(model.model_json_schema(), indent=1) + "\n"


def write_schemas(folder: Path) -> None:
    """Write the schemas that are kept in a folder of that name."""
    for name, model in MODELS[folder.name].items():
        (folder / name).write_text(schema_text(model))


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]).absolute())
