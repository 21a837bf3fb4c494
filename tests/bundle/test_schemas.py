"""The schemas beside the format pages are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from eosfm_edge.formats.schemas import MODELS, schema_text

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "name"), [(folder, name) for folder, models in MODELS.items() for name in models]
)
def test_the_schema_is_up_to_date(folder: str, name: str) -> None:
    # To mend: python -m eosfm_edge.formats.schemas FOLDER
    assert (ROOT / folder / name).read_text() == schema_text(MODELS[folder][name])
