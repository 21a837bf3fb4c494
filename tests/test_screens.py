"""docs/screens.md shows what the command prints now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from support.command import run

from eosfm_edge.cli.main import cli

DOCS = Path(__file__).parent.parent / "docs"
MEND = "run python docs/screens.py"


@pytest.fixture(scope="module")
def screens() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("screens", DOCS / "screens.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("columns", [80, 120])
def test_screens_page_shows_every_help(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "screens.md").read_text()
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in ([], *([verb] for verb in cli.commands)):
        _, out, _ = run(*words, "--help")
        text = "\n".join(line.rstrip() for line in out.rstrip().splitlines())
        assert text in page, MEND


@pytest.mark.thorough
def test_screens_page_is_what_the_command_prints(screens: ModuleType) -> None:
    assert (DOCS / "screens.md").read_text() == screens.page(), MEND
