"""The command and its contract with scripts: messages on stderr, documented exit codes."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(eosfm_edge.__version__, prog_name="eosfm-edge")
def cli() -> None:
    r"""Make EoS-FM ensembles of remote-sensing specialists run at the edge.

    \b
    trained weights --import--> ensemble/ --export--> NAME.eosfm/ --run--> feature rasters
                              ├─prune─┤
                              └─calibrate─> int8 scales

    Exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 a bug in eosfm-edge;
    130 interrupted; 143 terminated.
    """


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

_TERMINATED = 128 + signal.SIGTERM  # 143, as shells have it


# What an environment may lack, and the extra that brings it.
_EXTRAS = {
    **dict.fromkeys(("onnx", "timm", "torch", "torchvision"), "export"),
    "elftools": "cross",
    "matplotlib": "calibrate",
    "torch_pruning": "prune",
    **dict.fromkeys(("PIL", "gguf", "onnxruntime", "rasterio"), "run"),
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
    try:
        # Not cli.main(), which has exit codes of its own.
        with cli.make_context("eosfm-edge", sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.WRONG_USE)
    except Terminated:
        _say("terminated; nothing was written")
        sys.exit(_TERMINATED)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; nothing was written")
        sys.exit(ExitCode.INTERRUPTED)
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
            extra = _EXTRAS[error.name]
            _say(
                f"error: this needs {error.name}, which is not installed\n"
                f"  to mend:  pip install 'eosfm-edge[{extra}]' "
                f"(from a checkout: pip install '.[{extra}]')"
            )
            sys.exit(ExitCode.WRONG_USE)
        _report_bug(error)
        sys.exit(ExitCode.BUG)


def _report_bug(error: Exception) -> None:
    if os.environ.get("EOSFM_DEBUG"):
        traceback.print_exc()
    place = traceback.extract_tb(error.__traceback__)[-1]
    _say(
        f"internal error: {type(error).__name__}: {error} ({place.filename}:{place.lineno})\n"
        "  this is a bug in eosfm-edge: please report it, with what EOSFM_DEBUG=1 prints"
    )


def _say(message: str) -> None:
    click.echo(message, err=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    # Only what is meant for users; libraries' deprecations are for developers.
    if issubclass(category, UserWarning) and category.__module__.startswith("eosfm_edge."):
        _say(f"warning: {message}")
