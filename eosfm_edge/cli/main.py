"""The command and its contract with scripts: messages on stderr, documented exit codes."""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from click.shell_completion import shell_complete

import eosfm_edge
from eosfm_edge.cli.bench import bench
from eosfm_edge.cli.build import build
from eosfm_edge.cli.calibrate import calibrate
from eosfm_edge.cli.export import export
from eosfm_edge.cli.import_ import import_
from eosfm_edge.cli.inspect import inspect
from eosfm_edge.cli.packets import packets
from eosfm_edge.cli.prune import prune
from eosfm_edge.cli.run import run
from eosfm_edge.cli.targets import targets
from eosfm_edge.cli.verify import verify
from eosfm_edge.errors import ExitCode, UserError
from eosfm_edge.files import require_outside
from eosfm_edge.machine import processor_quota

_HELP = """Make EoS-FM ensembles of remote-sensing specialists run at the edge.

\b
trained weights --import--> ensemble/ --export--> NAME.eosfm/ --run--> feature rasters
                          ├─prune─┤
                          └─calibrate─> int8 scales

Exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 a bug in eosfm-edge;
130 interrupted; 143 terminated.
"""


@click.group(
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(eosfm_edge.__version__, prog_name="eosfm-edge")
def cli() -> None:
    """Hold the verbs."""


def _inputs(parameters: dict[str, Any]) -> Iterator[Path]:
    """Give every path among a verb's parameters but its output."""
    for name, value in parameters.items():
        values = value if isinstance(value, tuple) else (value,)
        if name != "output":
            yield from (path for path in values if isinstance(path, Path))


def _sparing_inputs(verb: click.Command) -> click.Command:
    """Make a verb refuse an output directory that one of its inputs is in."""
    callback = verb.callback
    assert callback is not None

    @functools.wraps(callback)
    def checked(**parameters: Any) -> Any:
        if parameters.get("output") is not None:
            require_outside(parameters["output"], _inputs(parameters))
        return callback(**parameters)

    verb.callback = checked
    return verb


for command in (import_, prune, calibrate, inspect, export, build, run, packets, verify, bench):
    cli.add_command(_sparing_inputs(command))

cli.add_command(targets)

_NAME = "eosfm-edge"
_COMPLETE = "_EOSFM_EDGE_COMPLETE"  # how click's completion scripts ask
_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
_TERMINATED = 128 + signal.SIGTERM  # 143, as shells have it


# What an environment may lack, and the extra that brings it.
_EXTRAS = {
    **dict.fromkeys(("onnx", "timm", "torch", "torchvision"), "export"),
    **dict.fromkeys(("elftools", "ziglang"), "cross"),
    "matplotlib": "calibrate",
    "torch_pruning": "prune",
    "cuda": "cuda",
    "tensorrt_rtx": "rtx",
    **dict.fromkeys(("PIL", "affine", "gguf", "onnxruntime", "rasterio", "zstandard"), "run"),
}


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
            sys.exit(shell_complete(cli, {}, _NAME, _COMPLETE, instruction))
        # Not cli.main(), which has exit codes of its own.
        with cli.make_context(_NAME, sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.WRONG_USE)
    except (click.Abort, KeyboardInterrupt) as stop:
        terminated = isinstance(stop, Terminated)
        # progress_bars knows what of a command that goes on from what is finished was kept.
        outcome = getattr(stop, "outcome", "nothing was written")
        _say(f"{'terminated' if terminated else 'interrupted'}; {outcome}")
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
        _say(f"error: {told}")
        if error is not told and isinstance(error, OSError):
            # What could not be printed would be tried again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(told.exit_code)


def _as_user_error(error: Exception) -> UserError | None:
    """Return what the user can mend of an error; None: it is a bug."""
    if isinstance(error, UserError):
        return error
    extra = _EXTRAS.get((getattr(error, "name", None) or "").partition(".")[0])
    if isinstance(error, ModuleNotFoundError) and extra:
        return UserError(
            f"this needs {error.name}, which is not installed",
            remedy=f"pip install 'eosfm-edge[{extra}]' (from a checkout: pip install '.[{extra}]')",
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
    _say(
        f"internal error: {type(error).__name__}: {error} ({place.filename}:{place.lineno})\n"
        "  this is a bug in eosfm-edge: please report it, with what EOSFM_DEBUG=1 prints"
    )


def _say(message: str) -> None:
    with suppress(OSError):  # there may be nobody who reads it
        click.echo(message, err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    # Only what is meant for users; libraries' deprecations are for developers.
    if issubclass(category, UserWarning) and category.__module__.startswith("eosfm_edge."):
        _say(f"warning: {message}")
