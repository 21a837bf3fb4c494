"""The schemas beside the format pages are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from eosfm_edge.schemas import MODELS, schema_text

EXPORT = Path(__file__).parents[2] / "export"


@pytest.mark.parametrize("name", MODELS)
def test_the_schema_is_up_to_date(name: str) -> None:
    # To mend: python -m eosfm_edge.schemas export
    assert (EXPORT / name).read_text() == schema_text(MODELS[name])
