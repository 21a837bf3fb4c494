"""Arguments and options that several verbs share; they mean the same in all of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

# Paths come as texts: the API reads them.
EnsembleArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="ENSEMBLE",
        help="An ensemble directory.  \\[default: this folder, or the one ensemble in it]",
        show_default=False,
    ),
]
BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle directory.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Replace an output that is there.")
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print the result as JSON.")]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", metavar="", help="Show results, warnings and errors only.")
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", metavar="", help="Show every step on a line of its own.")
]


def named_output(what: str, default: str) -> Any:
    """Return the option of an output that is named after what is done where it is not given.

    Args:
        what: is written.
        default: its name.
    """
    return typer.Option("-o", "--output", metavar="PATH", help=f"{what}  \\[default: {default}]")


# They stand at the end of the common options.
LAST = ("overwrite", "as_json", "quiet", "verbose")
