"""Write docs/api.md from the docstrings of the API: ``python docs/reference.py``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import eosfm_edge as ee

PAGE = Path(__file__).with_name("api.md")
VERBS = (
    "import_ensemble",
    "prune",
    "calibrate",
    "export",
    "deploy",
    "build",
    "verify",
    "fit_head",
    "remove_head",
    "run",
    "bench",
    "doctor",
)
OPTIONS = tuple(name for name in ee.__dict__["_PLACES"] if name.endswith("Options"))
HEAD = """# Python API

Written by `python docs/reference.py` from the docstrings: edit those.

    import eosfm_edge as ee

    ee.import_ensemble(["forest.pth", "water.pth"], "six", ee.ImportOptions(bands="S2L1C"))
    ee.prune("six", "six-50", ee.PruneOptions(ratio=0.5, data="scene.tif"))
    ee.export("six-50", "six-50.eosfm", ee.ExportOptions(data="scene.tif"))
    levels = ee.open("six-50.eosfm").run(array)

Paths are strings or path objects. What is wrong with the input is an `ee.UserError`, and a result
that is not what it must be an `ee.CheckFailedError`, which is one; nothing is left half-written.
`progress` is called as `progress(what, done, total)`.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for verb in VERBS:
        parts += [
            f"## {verb}\n",
            _signature(f"ee.{verb}", getattr(ee, verb)),
            _doc(getattr(ee, verb)),
        ]
    parts += ["## open\n", _signature("ee.open", ee.open), _doc(ee.open)]
    for kind in (ee.Bundle, ee.Ensemble):
        parts += [f"## {kind.__name__}\n", _doc(kind)]
        for name, member in inspect.getmembers(kind):
            if isinstance(member, property) and not name.startswith(("_", "model")):
                parts.append(f"- `{name}`: {inspect.getdoc(member.fget)}")
        parts.append("")
    parts += ["### Bundle.run\n", _signature("bundle.run", ee.Bundle.run), _doc(ee.Bundle.run)]
    for name in OPTIONS:
        parts += _options(name, getattr(ee, name))
    return "\n".join(parts).rstrip() + "\n"


def _signature(name: str, function: Any) -> str:
    parameters = [
        str(one).replace(": 'None", ": None")
        for key, one in inspect.signature(function).parameters.items()
        if key != "self"
    ]
    listed = ", ".join(_plain(one) for one in _with_star(function, parameters))
    return f"    {name}({listed})\n"


def _with_star(function: Any, parameters: list[str]) -> list[str]:
    kinds = [p.kind for k, p in inspect.signature(function).parameters.items() if k != "self"]
    first = next(
        (i for i, kind in enumerate(kinds) if kind is inspect.Parameter.KEYWORD_ONLY), None
    )
    return parameters if first is None else [*parameters[:first], "*", *parameters[first:]]


def _plain(parameter: str) -> str:
    """Return a parameter with its type and default as they are written."""
    parameter = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", parameter)
    return parameter.replace("'", "").replace("str | os.PathLike[str]", "PathLike")


def _doc(thing: Any) -> str:
    """Return a docstring as Markdown: sections as lists."""
    text = inspect.getdoc(thing) or ""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    lines, section = [], False
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises|Attributes):", line):
            lines += [f"**{line[:-1]}**", ""]
            section = line[:-1] != "Returns"
        elif section and re.match(r"    \w[\w ]*:", line):
            lines.append(re.sub(r"^    (\w+):", r"- `\1`:", line))
        elif line.startswith("        "):
            lines.append("  " + line.strip())
        else:
            lines.append(line.strip())
            section = section and bool(line)
    return "\n".join(lines) + "\n"


def _options(name: str, kind: Any) -> list[str]:
    rows = [f"## {name}\n", _doc(kind), "| option | default | |", "|---|---|---|"]
    for field, info in kind.model_fields.items():
        default = info.get_default(call_default_factory=True)
        shown = "" if default in (None, (), {}) else f"`{default!r}`"
        help_text = (info.description or "").replace("|", "\\|").replace("  [", " [")
        rows.append(f"| `{field}` | {shown} | {help_text} |")
    return [*rows, ""]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
