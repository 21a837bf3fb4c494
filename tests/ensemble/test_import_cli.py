"""``eosfm-edge import`` as scripts see it: exit codes, and messages without a traceback."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.command import leftovers, run_apart
from support.speck import SPECK
from support.weights import BACKBONE, Bomb, encoder_state, write_pth

from eosfm_edge.cli.main import main
from eosfm_edge.formats.ensemble import read_spec

SMALL = f"convnextv2_{SPECK}"
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs ``eosfm-edge import ... -o out`` in tmp_path; gives exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main sets its own

    def import_(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["eosfm-edge", "import", *arguments, "-o", "out"])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return import_


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_pth(tmp_path / "e.pth", (13, 3)).name


def test_options_reach_the_ensemble(command: Command, source: str, tmp_path: Path) -> None:
    code, message = command(
        source, "--bands", "S2L1C", "--scale", "1e-4", "--offset", "-0.1", "--nodata", "0",
        "--name", "mine", "--norm", "layer", "--selection", "smooth", "--scale-features",
        "--specialist-bands", "encoder_1=S2L1C", "--specialist-bands", "encoder_2=B12,B11,B04",
    )  # fmt: skip
    assert (code, message) == (0, "")
    spec = read_spec(tmp_path / "out")
    assert (spec.name, spec.normalisation) == ("mine", "layer")
    assert (spec.selection.mode, spec.selection.scale_features) == ("smooth", True)
    assert (spec.input[0].scale, spec.input[0].offset, spec.input[0].nodata) == (1e-4, -0.1, 0)
    assert spec.feature_sets()[1] == ((12, 11, 3),)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "add --bands"),
        (["--scale", "2"], "--scale without --bands"),
        (["--bands", "S2L1C", "--scale", "0"], "a band's scale must not be 0"),
        (["--bands", "S2L1C", "--nodata", "nan"], "nodata: Input should be a finite number"),
        (["--bands", "S2L1C", "--top-k", "3"], "selection.k is 3, specialists are 2"),
        (["--bands", "S2L1C", "--top-k", "1"], "no selection weights to take the largest of"),
        (["--bands", "S2L1C", "--top-k", "1", "--selection", "smooth"], "leave one of them out"),
        (["--bands", "S2L1C", "--fusion", "conv1x1"], "key feature_fusion.0.weight is missing"),
        (["--bands", "S2L1C", "--name", "../escape"], "name: String should match pattern"),
        (["--bands", "S2L1C", "--specialist-bands", "rgb=RGB"], "bands are given for 'rgb'"),
        (["--bands", "S2L1C", "--specialist-bands", "RGB"], "expected: NAME=BANDS"),
        (["--bands", "S2L1C", "--specialist-bands", "encoder_2=B04,B03"], "takes 3 bands"),
        (["--bands", "0nm"], "a wavelength of 0nm"),
        (["--bands", "S2L1D"], "'S2L1D' is no preset"),
        (["--bands", "S2L1C", "--nodata", "B99=0"], "--nodata 'B99=0': there is no band B99"),
        (["--bands", "S2L1C", "--nodata", "B10=dark"], "expected: a number or 'none', or BAND="),
        (["--bands", "S2L1C", "--fill", "none"], "expected: a number, or BAND="),
        (["--bands", "S2L1C", "--fill", "inf"], "fill: Input should be a finite number"),
        (["--fill", "2"], "--fill without --bands"),
        (["--bands", "VV,VH,B20,B21,B22"], "no specialist can be run on the input's 5 bands"),
    ],
)
def test_wrong_use_is_told_and_writes_nothing(
    command: Command, source: str, tmp_path: Path, options: list[str], complaint: str
) -> None:
    code, message = command(source, *options)
    assert code == 2
    assert complaint in message
    assert "Traceback" not in message
    assert leftovers(tmp_path) == [source]


def test_nodata_and_fill_can_differ_from_band_to_band(
    command: Command, source: str, tmp_path: Path
) -> None:
    # Where there is no cirrus B10 is 0, and that is a measurement.
    code, _ = command(
        source, "--bands", "S2L1C", "--nodata", "b10=none", "--nodata", "0", "--fill", "900",
        "--fill", "B10=12.5", "--fill", "B1=1500",
    )  # fmt: skip
    assert code == 0
    bands = {band.name: band for band in read_spec(tmp_path / "out").input}
    assert [name for name, band in bands.items() if band.nodata is None] == ["B10"]
    assert {band.nodata for band in bands.values()} == {0, None}
    assert (bands["B10"].fill, bands["B01"].fill, bands["B02"].fill) == (12.5, 1500, 900)


def test_a_band_known_by_its_wavelength_is_called_so(command: Command, tmp_path: Path) -> None:
    write_pth(tmp_path / "rgb.pth", (3,))
    options = ["--bands", "665nm,560nm,490nm", "--nodata", "560nm=7"]
    assert command("rgb.pth", *options)[0] == 0
    assert [band.nodata for band in read_spec(tmp_path / "out").input] == [None, 7, None]


@pytest.mark.filterwarnings("ignore::eosfm_edge.ensemble.model.SpecialistSkippedWarning")
@pytest.mark.parametrize(("options", "runs"), [([], 0), (["--adaptation", "name"], 1)])
def test_adaptation_is_the_references_unless_it_is_asked_for(
    command: Command, tmp_path: Path, options: list[str], runs: int
) -> None:
    write_pth(tmp_path / "e.pth", (13, 12))
    code, message = command("e.pth", "--bands", "S2L1C", *options)
    assert code == 0
    assert ("note: bands are matched by count" in message) == (not options)
    assert len(read_spec(tmp_path / "out").feature_sets()[1]) == runs


def test_an_output_that_exists_needs_overwrite(
    command: Command, source: str, tmp_path: Path
) -> None:
    assert command(source, "--bands", "S2L1C")[0] == 0
    code, message = command(source, "--bands", "S2L1C")
    assert code == 2
    assert "add --overwrite" in message
    assert command(source, "--bands", "S2L1C", "--name", "new", "--overwrite")[0] == 0
    assert read_spec(tmp_path / "out").name == "new"


def test_the_longest_names_stay_names_when_they_are_numbered(
    command: Command, tmp_path: Path
) -> None:
    config = {"backbone": f"timm_{BACKBONE}", "encoder_name": "x" * 80}
    torch.save([(13, encoder_state(13), config)] * 2, tmp_path / "e.pth")
    assert command("e.pth", "--bands", "S2L1C")[0] == 0
    names = [specialist.name for specialist in read_spec(tmp_path / "out").specialists]
    assert names == ["x" * 64, "x" * 62 + "_2"]


@pytest.mark.thorough
def test_a_hostile_file_ends_the_process_with_2_and_without_a_traceback(tmp_path: Path) -> None:
    # Once in a process of its own: what users run.
    source = tmp_path / "hostile.pth"
    torch.save(Bomb(tmp_path / "crater"), source)
    code, out, err = run_apart("import", source, "-o", tmp_path / "out", "--bands", "RGB")
    assert (code, out) == (2, "")
    assert "hostile.pth is a" in err
    assert "no code in a file is run" in err
    assert leftovers(tmp_path) == ["hostile.pth"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bands", "S2L1C"], True),
        (["--bands", "S2L1C", "--scale", "1"], False),
        (["--bands", "S2L1C", "--offset", "0"], False),
        (["--bands", "VV,VH", "--specialist-bands", "one=VV,VH"], False),
    ],
)
def test_sentinel_2_without_a_scale_is_told(
    command: Command, tmp_path: Path, options: list[str], told: bool
) -> None:
    bands = 2 if "VV,VH" in options else 13
    torch.save(encoder_state(bands, backbone=SMALL), tmp_path / "one.pth")
    code, message = command("one.pth", *options)
    assert code == 0
    assert ("say --scale 0.0001" in message) == told


def test_prefix_reaches_the_importer(command: Command, tmp_path: Path) -> None:
    both = {
        f"{prefix}.{key}": value
        for seed, prefix in enumerate(("model", "ema_model"))
        for key, value in encoder_state(3, seed, SMALL).items()
    }
    torch.save(both, tmp_path / "one.pth")
    code, message = command("one.pth", "--bands", "RGB")
    assert code == 2
    assert "--prefix" in message
    assert command("one.pth", "--bands", "RGB", "--prefix", "ema_model")[0] == 0
    written = load_file(tmp_path / "out" / "specialists" / "one.safetensors")
    assert torch.equal(written["stem_0.weight"], both["ema_model.stem_0.weight"])
