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
from eosfm_edge.cli.head import fit, remove
from eosfm_edge.cli.head import list_ as list_heads
from eosfm_edge.cli.import_ import import_
from eosfm_edge.cli.inspect import inspect
from eosfm_edge.cli.packets import packets
from eosfm_edge.cli.prune import prune
from eosfm_edge.cli.run import run
from eosfm_edge.cli.targets import list_ as list_targets
from eosfm_edge.cli.targets import show
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
# Verbs of a noun, with what help says of it.
_NOUNS: dict[str, tuple[str, dict[str, Verb]]] = {
    "head": (
        "Fit, list and remove heads, which turn features into maps.",
        {"fit": fit, "list": list_heads, "remove": remove},
    ),
    "targets": (
        "Show the devices that bundles are made for.",
        {"list": list_targets, "show": show},
    ),
}
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
    "head": (
        "eosfm-edge head fit six.eosfm --labels landuse.gpkg --data scene.tif",
        "eosfm-edge head list six.eosfm",
    ),
    "head fit": (
        "eosfm-edge head fit six.eosfm --labels landuse.gpkg --data scene.tif -o landuse",
        "eosfm-edge head fit six.eosfm --labels mask.tif --classes 1=water,2=land --data s2.tif",
    ),
    "head list": ("eosfm-edge head list six.eosfm", "eosfm-edge head list six.eosfm --json"),
    "head remove": (
        "eosfm-edge head remove six.eosfm landuse",
        "eosfm-edge head remove six.eosfm clouds",
    ),
    "targets list": ("eosfm-edge targets list", "eosfm-edge targets list --json"),
    "targets show": ("eosfm-edge targets show jetson", "eosfm-edge targets show our-board.yaml"),
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


def _add(to: typer.Typer, verbs: dict[str, Verb], noun: str = "") -> None:
    for name, verb in verbs.items():
        examples = _examples(f"{noun} {name}".strip())
        to.command(name, help=help_of(verb), epilog=examples, context_settings=_CONTEXT)(verb)


app = typer.Typer(
    help=_HELP, context_settings=_CONTEXT, no_args_is_help=True, rich_markup_mode="rich"
)
app.callback()(_verbs)
_add(app, _VERBS)
for _noun, (_about, _verbs_of_noun) in _NOUNS.items():
    _group = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    _add(_group, _verbs_of_noun, _noun)
    app.add_typer(
        _group, name=_noun, help=_about, context_settings=_CONTEXT, epilog=_examples(_noun)
    )
cli: Any = get_command(app)
_of_nouns = (command for noun in _NOUNS for command in cli.commands[noun].commands.values())
for _command in (cli, *cli.commands.values(), *_of_nouns):
    _context = typer.Context(_command, help_option_names=_CONTEXT["help_option_names"])
    for _option in _command.get_params(_context):
        if getattr(_option, "is_flag", False):
            _option.metavar = ""  # help would say <bool>
