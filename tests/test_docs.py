"""The documentation's command lines are those that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from eosfm_edge.cli.main import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """Return every eosfm-edge command line of the pages, and of the demo, with its place."""
    found = []
    for page in [*PAGES, *sorted((ROOT / "examples").rglob("*.sh"))]:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"^(?: {4}|step )?(eosfm-edge [a-z].*)$", text, re.MULTILINE):
            found.append((page.name, line.split("  #")[0].split(" > ")[0]))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_documented_commands_are_accepted(page: str, line: str) -> None:
    verb, *words = shlex.split(line.replace("...", ""))[1:]
    cli.commands[verb].make_context(verb, words)


def test_the_pages_show_every_verb() -> None:
    assert {line.split()[1] for _, line in commands()} == set(cli.commands)


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_the_reference_lists_every_option(verb: str) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    section = page.split(f"## {verb}\n")[1].split("\n## ")[0]
    common = page.partition("These options mean the same")[2].partition("\n## ")[0]
    command = cli.commands[verb]
    parts = [command, *getattr(command, "commands", {}).values()]
    options = [p for part in parts for p in part.params if p.param_type_name == "option"]
    missing = [p.opts[0] for p in options if f"`{p.opts[0]}" not in section + common]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
