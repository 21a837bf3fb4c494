"""``prune --ratio 0.5`` and ``export --target jetson`` without more words, anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.command import exit_code, inside, leftovers

from eosfm_edge.api.imagery import describe_imagery, keep_imagery
from eosfm_edge.device import cross, package
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.ensemble import read_spec

PRUNE = ("prune", "--ratio", "0.5")
EXPORT = ("export", "--target", "jetson")
# Less work than what is done by default.
QUICK = ("--tile", "64", "--tiles", "48", "--recipe", "closed-form")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert exit_code(*arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("command", "more"), [(PRUNE, "--ratio 0.5"), (EXPORT, "--target jetson")])
def test_in_an_empty_folder_both_lines_to_type_are_said(
    here: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], more: str
) -> None:
    err = message(capsys, *command)
    assert "error: no ensemble was named, and there is none in this folder" in err
    assert "eosfm-edge import WEIGHTS -o ENSEMBLE" in err
    assert f"eosfm-edge {command[0]} ENSEMBLE {more} --data SCENE" in err
    assert leftovers(here) == []


@pytest.mark.parametrize(("command", "more"), [(PRUNE, "--ratio 0.5"), (EXPORT, "--target jetson")])
def test_with_two_ensembles_both_are_named(
    here: Path,
    specks: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    more: str,
) -> None:
    for name in ("six", "two"):
        shutil.copytree(specks, here / name)
    err = message(capsys, *command)
    assert "there are 2 in this folder" in err and "expected: one of six, two" in err
    assert f"fix:      eosfm-edge {command[0]} six {more} --data SCENE" in err
    assert leftovers(here) == ["six", "two"]


@pytest.mark.parametrize(("command", "more"), [(PRUNE, "--ratio 0.5"), (EXPORT, "--target jetson")])
def test_with_one_ensemble_without_imagery_the_line_with_data_is_said(
    here: Path,
    specks: Path,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    more: str,
) -> None:
    shutil.copytree(specks, here / "six")
    assert f"fix:      eosfm-edge {command[0]} six {more} --data SCENE" in message(capsys, *command)
    assert leftovers(here) == ["six"]


@pytest.mark.filterwarnings("ignore::eosfm_edge.network.cells.FewTilesWarning")
@pytest.mark.parametrize("inside_it", [False, True])
def test_one_ensemble_is_pruned_and_the_output_is_named_and_printed(
    here: Path, motes: Path, imagery: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, inside_it: bool,
) -> None:  # fmt: skip
    six = Path(shutil.copytree(motes, here / "six"))
    keep_imagery(six, describe_imagery([imagery], seed=0))
    if inside_it:
        monkeypatch.chdir(six)
    inside(*PRUNE[:2], "0.3", *QUICK)
    assert leftovers(here) == ["six", "six-30"]
    assert len(read_spec(here / "six-30").specialists) == 2
    output = "../six-30" if inside_it else "six-30"
    assert capsys.readouterr().out.splitlines()[-1] == f"{output}: 2 specialists"


@pytest.mark.skipif(not cross.importlib.util.find_spec("ziglang"), reason="there is no ziglang")
def test_one_ensemble_is_exported_for_a_jetson_in_fp16(
    here: Path,
    motes: Path,
    imagery: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # tests/device builds the libraries and the program.
    def build_nothing(folder: Path, glibc: str, names: Sequence[str]) -> None:
        for name in names:
            (folder / name).write_bytes(b"built for the board")

    def build_no_program(folder: Path) -> None:
        (folder / "eosfm").write_bytes(b"built for the board")

    monkeypatch.setattr(package, "build_libraries", build_nothing)
    monkeypatch.setattr(package, "build_program", build_no_program)
    six = Path(shutil.copytree(motes, here / "six"))
    keep_imagery(six, describe_imagery([imagery], seed=0))
    inside(*EXPORT, "--tile", "64")
    assert leftovers(here) == ["six", "six-jetson-orin-nano.eosfm"]
    manifest = read_manifest(here / "six-jetson-orin-nano.eosfm")
    assert (manifest.target, manifest.precision) == ("jetson-orin-nano", "fp16")
    out = capsys.readouterr().out
    assert "six-jetson-orin-nano.eosfm: " in out
    assert "precision: fp16, the default for jetson-orin-nano" in out
