"""Wrong command lines are refused before torch is loaded, which takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs the command for each list of arguments, and prints exit code, message and what it loaded.
_EACH = """
import contextlib, io, json, sys
from eosfm_edge.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["eosfm-edge", *arguments]
    error = io.StringIO()
    try:
        with contextlib.redirect_stderr(error):
            main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    print(json.dumps([code, error.getvalue(), "torch" in sys.modules]))
"""

# By what is wrong: the arguments, and what the message must hold. {} are files of the test's.
WRONG = {
    "an option that is not there": ("prune six --rato 0.5", "no such option: --rato"),
    "a value beyond its limits": ("prune six --ratio 1.5 --data s.tif", "expected: less than 1"),
    "a value that is no number": ("calibrate six --tiles many", "tiles is 'many'"),
    "a budget that is none": ("prune six --budget fast --data s.tif", "the budget is 'fast'"),
    "two wishes": ("prune six --ratio 0.5 --budget 4ms --data s.tif", "a ratio and a budget"),
    "no wish and no imagery": ("prune six", "eosfm-edge prune six --ratio 0.5 --data SCENE"),
    "no imagery to prune on": (
        "prune six --ratio 0.5",
        "fix:      eosfm-edge prune six --ratio 0.5 --data SCENE",
    ),
    "no imagery to calibrate on": ("calibrate six", "eosfm-edge calibrate six --data SCENE"),
    "no imagery to export on": (
        "export six --target jetson",
        "fix:      eosfm-edge export six --target jetson --data SCENE",
    ),
    "no budget and no imagery": (
        "deploy six",
        "fix:      eosfm-edge deploy six --budget 40ms --data SCENE",
    ),
    "no budget": ("deploy six --data s.tif", "expected: one or more of --budget 40ms, 5MB"),
    "no imagery to deploy on": (
        "deploy six --budget 5MB",
        "fix:      eosfm-edge deploy six --budget 5MB --data SCENE",
    ),
    "one of several budgets that is none": (
        "deploy six --budget 40ms,fast --data s.tif",
        "the budget is 'fast'",
    ),
    "a budget of energy that is not known": (
        "deploy six --budget 300mJ --data s.tif",
        "power_modes in the profile",
    ),
    "a budget that pruning cannot search": (
        "prune six --budget 300mJ --data s.tif",
        "expected: one like 40ms, 5MB or fidelity=0.98",
    ),
    "imagery that is not there": ("calibrate six --data x.tif", "x.tif does not exist"),
    "a recipe that is not there": (
        "prune six --ratio 0.5 --recipe gentle --data s.tif",
        "there is no recipe 'gentle'",
    ),
    "a plan that is not there": ("prune six --plan p.yaml --data s.tif", "p.yaml does not exist"),
    "a target that is not there": ("export six --target abacus --data s.tif", "no target 'abacus'"),
    "a precision that a target lacks": (
        "export six --target cpu --precision fp8 --data s.tif",
        "cpu has no fp8",
    ),
    "int8 without a calibration": ("export six --precision int8 --data s.tif", "--calibration"),
    "a name that is no bundle's": ("export six -o out --data s.tif", "is no name for a bundle"),
    "a tile that cannot be": ("export six --tile 100 --data s.tif", "a multiple of 32"),
    "a calibration that is none": ("export six --calibration six --data s.tif", "calibration.json"),
    "an output that is there": ("prune six --ratio 0.5 --data s.tif -o there", "add --overwrite"),
    "an output with the input in it": (
        "calibrate six --data s.tif -o six --overwrite",
        "is in the output",
    ),
    "a weight file instead of an ensemble": (
        "export w.pth --data s.tif -o b.eosfm",
        "fix:      eosfm-edge import w.pth -o ENSEMBLE",
    ),
    "a folder of a model hub": (
        "export hub --data s.tif -o b.eosfm",
        "fix:      eosfm-edge import hub -o ENSEMBLE",
    ),
    "a sharded checkpoint": ("prune fsdp --ratio 0.5 --data s.tif", "dcp_to_torch fsdp"),
    "weights that are not there": ("import nowhere.pth -o e --bands RGB", "nowhere.pth does not"),
    "weights of another kind": ("import web.pth -o e --bands RGB", "a web page"),
    "bands that are none": ("import w.pth -o e --bands S2L1D", "'S2L1D' is no preset"),
    "values without bands": ("import w.pth -o e --scale 2", "--scale without --bands"),
}


@pytest.fixture(scope="module")
def told(specks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "six").symlink_to(specks)
    for name in ("s.tif", "w.pth"):
        (folder / name).write_bytes(b"PK anything")
    (folder / "web.pth").write_text("<html>")
    (folder / "there").mkdir()
    for name in ("hub/config.json", "hub/model.safetensors", "fsdp/.metadata", "fsdp/a.distcp"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    before = sorted(folder.rglob("*"))
    lines = [arguments.split() for arguments, _ in WRONG.values()]
    done = subprocess.run(
        [sys.executable, "-c", _EACH, json.dumps(lines)],
        cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert sorted(folder.rglob("*")) == before
    return dict(zip(WRONG, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_command_is_refused_before_torch_is_loaded(
    told: dict[str, list[object]], what: str
) -> None:
    code, message, loaded = told[what]
    assert code == 2, message
    assert isinstance(message, str) and WRONG[what][1] in message
    assert not loaded
