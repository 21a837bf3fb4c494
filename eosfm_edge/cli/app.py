"""The command: its verbs in the road's order, with two examples of each."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.main import get_command

from eosfm_edge.cli.bench import bench
from eosfm_edge.cli.build import build
from eosfm_edge.cli.calibrate import calibrate
from eosfm_edge.cli.deploy import deploy
from eosfm_edge.cli.doctor import doctor
from eosfm_edge.cli.export import export
from eosfm_edge.cli.import_ import import_
from eosfm_edge.cli.inspect import inspect
from eosfm_edge.cli.packets import packets
from eosfm_edge.cli.prune import prune
from eosfm_edge.cli.run import run
from eosfm_edge.cli.targets import list_, show
from eosfm_edge.cli.typed import Verb, help_of
from eosfm_edge.cli.verify import verify
from eosfm_edge.cli.version import parts

NAME = "eosfm-edge"
_HELP = """Make EoS-FM ensembles of remote-sensing specialists run at the edge.

weights --import--> ensemble/ --export--> NAME.eosfm/ --run--> feature rasters
                    ├─prune─┤
                    └─calibrate─> int8 scales

Exit codes: 0 done; 1 a check failed; 2 wrong use or bad input; 3 a bug in eosfm-edge; \
130 interrupted; 143 terminated.
"""
_VERBS: dict[str, Verb] = {
    "import": import_,
    "prune": prune,
    "calibrate": calibrate,
    "export": export,
    "deploy": deploy,
    "build": build,
    "verify": verify,
    "run": run,
    "bench": bench,
    "inspect": inspect,
    "packets": packets,
    "doctor": doctor,
}
_OF_TARGETS: dict[str, Verb] = {"list": list_, "show": show}
EXAMPLES = {
    "import": (
        "eosfm-edge import six.pth --bands S2L1C --scale 0.0001 -o six",
        "eosfm-edge import forest.safetensors water.ckpt --bands B04,B03,B02 -o two",
    ),
    "prune": (
        "eosfm-edge prune six --ratio 0.5 --data scene.tif",
        "eosfm-edge prune six --budget 40ms --data scene.tif -o fast",
    ),
    "calibrate": (
        "eosfm-edge calibrate six --data scene.tif",
        "eosfm-edge calibrate six --data tiles.yaml --min-cosine 0.99 -o scales",
    ),
    "export": (
        "eosfm-edge export six --target jetson --data scene.tif",
        "eosfm-edge export six --precision int8 --calibration six-int8 --data s2.tif",
    ),
    "deploy": (
        "eosfm-edge deploy six --budget 40ms --data scene.tif",
        "eosfm-edge deploy six --target raspberry-pi-5 --budget 40ms,5MB --max-drop 1",
    ),
    "build": ("eosfm-edge build six.eosfm", "eosfm-edge build six.eosfm --dry-run"),
    "verify": ("eosfm-edge verify six.eosfm", "eosfm-edge verify six.eosfm --backend cuda"),
    "run": (
        "eosfm-edge run six.eosfm scene.tif -o features --quicklook",
        "eosfm-edge run six.eosfm S2A_MSIL2A.SAFE -o features --backend cuda",
    ),
    "bench": (
        "eosfm-edge bench six.eosfm",
        "eosfm-edge bench six.eosfm --backend native --json > six.json",
    ),
    "inspect": ("eosfm-edge inspect six.eosfm", "eosfm-edge inspect six --json"),
    "packets": (
        "eosfm-edge packets features/features.eosp",
        "eosfm-edge packets features/features.eosp --json",
    ),
    "list": ("eosfm-edge targets list", "eosfm-edge targets list --json"),
    "show": ("eosfm-edge targets show jetson", "eosfm-edge targets show our-board.yaml"),
    "doctor": ("eosfm-edge doctor", "eosfm-edge doctor --json"),
    "targets": ("eosfm-edge targets list", "eosfm-edge targets show jetson"),
}
_CONTEXT = {"help_option_names": ["-h", "--help"]}


def _version(wanted: bool) -> None:
    if wanted:
        for line in parts():
            typer.echo(line)
        raise typer.Exit


def _verbs(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the versions of all parts."
        ),
    ] = False,
) -> None:
    """Hold the verbs."""


def _examples(name: str) -> str:
    return "\n".join(("Examples:", *(f"$ {line}" for line in EXAMPLES[name])))


def _add(to: typer.Typer, verbs: dict[str, Verb]) -> None:
    for name, verb in verbs.items():
        to.command(name, help=help_of(verb), epilog=_examples(name), context_settings=_CONTEXT)(
            verb
        )


app = typer.Typer(
    help=_HELP, context_settings=_CONTEXT, no_args_is_help=True, rich_markup_mode="rich"
)
app.callback()(_verbs)
_add(app, _VERBS)
_targets = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
_add(_targets, _OF_TARGETS)
app.add_typer(
    _targets,
    name="targets",
    help="Show the devices that bundles are made for.",
    context_settings=_CONTEXT,
    epilog=_examples("targets"),
)
cli: Any = get_command(app)
for _command in (cli, *cli.commands.values(), *cli.commands["targets"].commands.values()):
    _context = typer.Context(_command, help_option_names=_CONTEXT["help_option_names"])
    for _option in _command.get_params(_context):
        if getattr(_option, "is_flag", False):
            _option.metavar = ""  # help would say <bool>
