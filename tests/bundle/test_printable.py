"""Texts of files that others wrote: none of them gives orders to a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from eosfm_edge.errors import UserError
from eosfm_edge.formats.base import Strict, read_json_model
from eosfm_edge.formats.ensemble import Provenance
from eosfm_edge.text import printable

ORDERS = ["\x1b[2J", "\x9b2J", "\a", "\x7f", "\b\b", "\r"]


class Part(Strict):
    names: tuple[str, ...] = ()
    files: dict[str, int] = Field(default_factory=dict)
    provenance: Provenance | None = None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "content",
    [
        {"names": ["fine", "not@"]},
        {"files": {"not@": 1}},
        {"provenance": {"source": "fine", "licence": "not@"}},
        {"unknown@": 1},
        {"names": {"wrong@": 1}},
    ],
)
def test_a_text_with_control_characters_is_refused(
    tmp_path: Path, content: dict[str, Any], order: str
) -> None:
    path = tmp_path / "part.json"
    path.write_text(json.dumps(content).replace("@", json.dumps(order)[1:-1]))
    with pytest.raises(UserError, match=r"part\.json is not valid") as error:
        read_json_model(Part, path, what="a part")
    assert order not in str(error.value)


def test_paragraphs_and_letters_of_all_scripts_stay() -> None:
    text = "Licence:\n\tΩé漢🛰\u00a0"
    assert Part(names=(text,)).names == (text,)
    assert str(UserError(text)) == text
    assert printable("a\x1b[31mb\x85c") == "a?[31mb?c"
