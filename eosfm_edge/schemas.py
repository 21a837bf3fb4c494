"""The JSON schemas of the file formats; ``python -m eosfm_edge.schemas export`` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from eosfm_edge.bundle.manifest import Manifest
from eosfm_edge.ensemble.spec import EnsembleSpec

MODELS: dict[str, type[BaseModel]] = {
    "ensemble.schema.json": EnsembleSpec,
    "manifest.schema.json": Manifest,
}


def schema_text(model: type[BaseModel]) -> str:
    """Return a format's JSON schema as it is kept in ``export/``."""
    return json.dumps(model.model_json_schema(), indent=1) + "\n"


def write_schemas(folder: Path) -> None:
    """Write every format's schema into a folder."""
    for name, model in MODELS.items():
        (folder / name).write_text(schema_text(model))


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
