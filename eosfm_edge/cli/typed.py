"""Commands from typed options: their names, defaults, choices and help are the API's.

Typer gets texts, flags and choices. The API's models read numbers, paths and bands, so a wrong
value gives the same error in Python and on the command line.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from eosfm_edge.api.options import Expert, Imaging, Known, Options, flag
from eosfm_edge.cli.options import LAST
from eosfm_edge.formats.bands import Band

# The order of the panels in help; what has none is common.
_PANELS = {Imaging: "Imagery", Expert: "Expert"}
# Names that an option has besides its own.
_ALIASES = {"data": ("--data", "--scene")}
_METAVARS = {int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}
# What stands for values whose types say too little.
_OF_NAMES = {"bands": "BANDS", "nodata": "VALUE", "data": "SCENE", "sm": "8.6"}

Verb = Callable[..., None]


def with_options(kind: type[Options], **metavars: str) -> Callable[[Verb], Verb]:
    """Give a verb's function the options of a model, which it gets as its argument ``options``.

    Args:
        kind: the model.
        **metavars: what stands for an option's value in help, where its type says too little.
    """

    def decorate(verb: Verb) -> Verb:
        hints = get_type_hints(verb, include_extras=True)
        own = [
            parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(verb).parameters.items()
            if name != "options"
        ]
        typed = [_parameter(name, field, metavars.get(name)) for name, field in _fields(kind)]

        def command(**given: Any) -> None:
            chosen = {parameter.name: given.pop(parameter.name) for parameter in typed}
            chosen = {name: value for name, value in chosen.items() if value not in (None, [])}
            verb(**given, options=kind(**chosen))

        first = [parameter for parameter in own if parameter.name not in LAST]
        last = [parameter for parameter in own if parameter.name in LAST]
        parameters = [*first, *typed, *last]
        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        return command

    return decorate


def help_of(verb: Verb) -> str:
    """Return a docstring with a line for each paragraph: terminals wrap it at their own width."""
    text = inspect.cleandoc(verb.__doc__ or "")
    return escape("\n\n".join(" ".join(part.split()) for part in text.split("\n\n")))


def _fields(kind: type[Options]) -> list[tuple[str, FieldInfo]]:
    """Return a model's fields: the common ones, those of imagery, the expert ones."""
    places = [None, *_PANELS.values()]
    return sorted(kind.model_fields.items(), key=lambda item: places.index(_panel(item[1])))


def _panel(field: FieldInfo) -> str | None:
    return next((_PANELS[type(mark)] for mark in field.metadata if type(mark) in _PANELS), None)


def _parameter(name: str, field: FieldInfo, metavar: str | None) -> inspect.Parameter:
    wanted, shown = _on_the_command_line(field.annotation)
    default = field.get_default(call_default_factory=True)
    description = field.description or ""
    if default not in (None, (), {}, False):
        text = ", ".join(default) if isinstance(default, tuple) else str(default)
        description += f"  [default: {text}]"
    known = next((mark.names for mark in field.metadata if isinstance(mark, Known)), None)
    option = typer.Option(
        *_ALIASES.get(name, (flag(name),)),
        help=escape(description),
        show_default=False,
        rich_help_panel=_panel(field),
        metavar="" if wanted is bool else metavar or _OF_NAMES.get(name) or shown,
        autocompletion=None if known is None else completing(known),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if wanted is bool else None,
        annotation=Annotated[wanted if wanted is bool else wanted | None, option],
    )


def completing(names: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Return what gives shells the names that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _on_the_command_line(annotation: Any) -> tuple[Any, str | None]:
    """Return the type by which Typer reads an option, and what help calls its value."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _on_the_command_line(parts[0])
    if origin in (Union, types.UnionType):
        kinds = [_on_the_command_line(part) for part in parts if part is not type(None)]
        if all(get_origin(kind) is Literal for kind, _ in kinds):
            return Literal[tuple(value for kind, _ in kinds for value in get_args(kind))], None
        return kinds[0]
    if origin is tuple:
        if parts[0] is Band:
            return str, "BANDS"  # one text names all bands
        one, shown = _on_the_command_line(parts[0])
        # Typer has no lists of choices: the API checks them.
        return list[str], "|".join(get_args(one)) if get_origin(one) is Literal else shown
    if origin is dict:
        return list[str], None
    if origin is Literal or annotation is bool:
        return annotation, None
    return str, _METAVARS.get(annotation)
