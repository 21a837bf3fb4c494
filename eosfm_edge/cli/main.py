"""The command and its contract with scripts: messages on stderr, documented exit codes."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
import warnings
from io import TextIOWrapper
from typing import Any

import typer
from typer.completion import shell_complete
from typer.core import TyperOption

from eosfm_edge.cli.app import EXAMPLES, NAME, cli
from eosfm_edge.cli.output import say
from eosfm_edge.errors import ExitCode, UserError
from eosfm_edge.extras import extra_with, how_to_install
from eosfm_edge.machine import processor_quota

_COMPLETE = "_EOSFM_EDGE_COMPLETE"  # how completion scripts ask
_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
_TERMINATED = 128 + signal.SIGTERM  # 143, as shells have it


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, so that it cleans up."""


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end the cleaning
    raise Terminated


def main() -> None:
    """Run the command line; never prints a traceback unless EOSFM_DEBUG is set."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding cannot show, or that is no UTF-8, is shown escaped.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if quota := processor_quota():
        # Before torch is imported, which has as many threads as there are processors otherwise.
        os.environ.setdefault("OMP_NUM_THREADS", str(quota))
    try:
        if instruction := os.environ.get(_COMPLETE):
            sys.exit(shell_complete(cli, {}, NAME, _COMPLETE, instruction))
        # Not cli.main(), which has exit codes of its own.
        with cli.make_context(NAME, sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.TyperException as error:
        if error.format_message():  # else no verb was given, and help is printed
            say(f"error: {_of_wrong_use(error)}")
        sys.exit(ExitCode.WRONG_USE)
    except (typer.Abort, KeyboardInterrupt) as stop:
        terminated = isinstance(stop, Terminated)
        # progress_bars knows what of a command that goes on from what is finished was kept.
        outcome = getattr(stop, "outcome", "nothing was written")
        say(f"{'terminated' if terminated else 'interrupted'}; {outcome}")
        sys.exit(_TERMINATED if terminated else ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)
    except Exception as error:
        told = _as_user_error(error)
        if told is None:
            _report_bug(error)
            sys.exit(ExitCode.BUG)
        if os.environ.get("EOSFM_DEBUG"):
            traceback.print_exc()
        say(f"error: {told}")
        if error is not told and isinstance(error, OSError):
            # What could not be printed would be tried again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(told.exit_code)


def _of_wrong_use(error: typer.TyperException) -> UserError:
    """Return what to print of a command line that cannot be read."""
    context: Any = getattr(error, "ctx", None)
    message = error.format_message().strip().rstrip(".")
    found = message[:1].lower() + message[1:]
    if context is None:
        return UserError(found)
    usage = " ".join(re.sub(r"[{}]", "", context.get_usage()).split()).removeprefix("Usage: ")
    remedy = f"{context.command_path} --help"
    if hasattr(error, "param_type"):  # a parameter is missing: name all that are
        lacking = [
            one.opts[-1] if isinstance(one, TyperOption) else one.display_name_raw
            for one in context.command.params
            if one.required and one.name not in context.params
        ]
        found = f"{context.command_path} lacks {' and '.join(lacking)}"
        remedy = EXAMPLES[context.command_path.removeprefix(f"{NAME} ")][0]
    elif choices := re.fullmatch(r"(?:Value error, )?(.*) is not one of (.*)\.", error.message):
        option = getattr(error, "param", None)
        found = f"{option.opts[0] if option else 'a value'} is {choices[1]}"
        usage = f"one of {choices[2]}"
    return UserError(found, expected=usage, remedy=remedy)


def _as_user_error(error: Exception) -> UserError | None:
    """Return what the user can mend of an error; None: it is a bug."""
    if isinstance(error, UserError):
        return error
    extra = extra_with((getattr(error, "name", None) or "").partition(".")[0])
    if isinstance(error, ModuleNotFoundError) and extra:
        return UserError(
            f"this needs {error.name}, which is not installed", remedy=how_to_install(extra)
        )
    if isinstance(error, UnicodeEncodeError) and re.search("[\ud800-\udfff]", error.object):
        # Python has bytes of a name that are no UTF-8 as surrogates, which no library takes.
        return UserError(
            f"{error.object!r} is not UTF-8", remedy="rename what is called so, or its folder"
        )
    if isinstance(error, MemoryError):
        return UserError(
            "there is too little memory", remedy="use a machine with more, or a smaller tile"
        )
    if isinstance(error, OSError) and (error.filename or error.errno in _OUTPUT_ERRORS):
        # A file that cannot be read or written, and that no verb speaks of in better words.
        place = "the output" if error.filename is None else os.fsdecode(error.filename)
        return UserError(f"cannot read or write {place}: {error.strerror}")
    return None


def _report_bug(error: Exception) -> None:
    if os.environ.get("EOSFM_DEBUG"):
        traceback.print_exc()
    place = traceback.extract_tb(error.__traceback__)[-1]
    say(
        f"internal error: {type(error).__name__}: {error} ({place.filename}:{place.lineno})\n"
        "  this is a bug in eosfm-edge: please report it, with what EOSFM_DEBUG=1 prints"
    )


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    # Only what is meant for users; libraries' deprecations are for developers.
    if issubclass(category, UserWarning) and category.__module__.startswith("eosfm_edge."):
        say(f"warning: {message}")
