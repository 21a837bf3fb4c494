"""Docstrings in plain words: they start with what a thing is or does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("eosfm_edge", "tests", "benchmarks", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Give the docstrings of a file, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_start_with_a_subject_or_a_verb(folder: str) -> None:
    questions = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in FILES
        if path.is_relative_to(ROOT / folder)
        for line, text in docstrings(path)
        if re.match(r"(What|Which|Where|Whether|How|Why|Does|Is) ", text)
        and "?" not in text.splitlines()[0]
    ]
    assert not questions


def test_raises_say_when() -> None:
    vague = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in FILES
        for line, text in docstrings(path)
        if re.search(r"Error: (so|it is|it does)[.;]", text)
    ]
    assert not vague
