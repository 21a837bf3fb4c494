"""A machine that only runs bundles has no torch: only import, prune and export may want it."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path

from support.command import run
from support.weights import write_pth

import eosfm_edge
from eosfm_edge.cli.main import cli

# Stands before everything else that is imported, and refuses what such a machine lacks.
REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "onnx", "torch_pruning"}:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
sys.meta_path.insert(0, Refuse())
"""

NEEDS_TORCH = ("ensemble", "network", "pruning", "calibration", "exporting", "deploying")


def test_every_other_module_can_be_imported() -> None:
    modules = [module.name for module in pkgutil.walk_packages(eosfm_edge.__path__, "eosfm_edge.")]
    free = [name for name in modules if name.split(".")[1] not in NEEDS_TORCH]
    imports = "\n".join(f"import {name}" for name in free)
    code, _, err = run("--help", prelude=REFUSE + imports)
    assert code == 0, err


def test_every_help_is_shown() -> None:
    every = (
        "from eosfm_edge.cli.main import cli\n"
        "for verb in sorted(cli.commands):\n"
        "    cli.main([verb, '--help'], standalone_mode=False)\n"
    )
    code, out, err = run("--help", prelude=REFUSE + every)
    assert code == 0, err
    assert out.count("Usage:") == len(cli.commands) + 1


def test_a_bundle_is_run_verified_and_inspected(bundle: Path, scene: Path, tmp_path: Path) -> None:
    arguments = ("run", bundle, scene, "-o", tmp_path / "f", "--quicklook")
    code, out, err = run(*arguments, prelude=REFUSE)
    assert code == 0, err
    assert "0.06 megapixels" in out
    assert (tmp_path / "f" / "level1.tif").exists()
    code, out, err = run("verify", bundle, prelude=REFUSE)
    assert code == 0, err
    assert "known answer, level4" in out
    code, out, err = run("inspect", bundle, prelude=REFUSE)
    assert code == 0, err
    assert "encoder_3: left out, no rule for the input's bands" in out


def test_bundles_and_ensembles_are_printed_as_json(bundle: Path, ensemble: Path) -> None:
    for directory, name in ((bundle, "manifest.json"), (ensemble, "ensemble.json")):
        code, out, err = run("inspect", directory, "--json", prelude=REFUSE)
        assert code == 0, err
        shown = json.loads(out)
        sizes = shown.pop("sizes", None)
        assert shown == json.loads((directory / name).read_text())
        assert (sizes is not None) == (directory == bundle)


def test_an_ensemble_is_inspected(ensemble: Path) -> None:
    code, out, err = run("inspect", ensemble, prelude=REFUSE)
    assert code == 0, err
    assert "encoder_1: convnextv2_slim, wants B04 B03 B02" in out
    assert "is run on B08 B04 B03" in out


def test_what_needs_torch_says_how_to_get_it(tmp_path: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (3,))
    arguments = ("import", source, "-o", tmp_path / "e", "--bands", "RGB")
    code, _, err = run(*arguments, prelude=REFUSE)
    assert code == 2
    assert "pip install '.[export]' in a checkout" in err
