"""``eosfm-edge prune`` as its users run it, and what it makes in the other verbs."""

from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from support.command import KNOWN, exit_code, inside, leftovers, start
from support.scenes import scene_pixels, write_scene
from support.specimens import ensemble_of, write_ensemble

from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import ExitCode, UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.plan import read_plan
from eosfm_edge.network import distill
from eosfm_edge.pruning import promise

# One thread gives the same bits as the tests' own process.
SAME_BITS = f"""{KNOWN}
import support.specimens, torch
torch.set_num_threads(1)
import eosfm_edge.pruning.promise
eosfm_edge.pruning.promise._DECIBELS = (0.0, 0.0, 0.0)
"""
QUICK = ("--tile", 64, "--tiles", 12, "--criterion", "activation", "--ranking", "uniform")


@pytest.fixture(autouse=True)
def little_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of random weights have nothing to spare; test_promise.py is about what is kept."""
    monkeypatch.setattr(promise, "_DECIBELS", (0.0, 0.0, 0.0))


def weights(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.rglob("*.safetensors")}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


def test_what_is_pruned_is_exported_verified_and_run(
    motes: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", motes, "--data", imagery, "--ratio", 0.5, "-o", out / "half")
    inside(*arguments, "--tile", 64, "--tiles", 24)
    printed = capsys.readouterr().out
    assert leftovers(out) == ["half"]
    assert "s0" in printed and "prune" in printed
    assert "held-out tiles: cosine 0.9" in printed
    assert "MACs, million" in printed and "native ms, fp32" in printed
    bundle = out / "half.eosfm"
    arguments = ("export", out / "half", "--data", imagery, "-o", bundle, "--tile", 64)
    inside(*arguments, "--precision", "fp32", "--for", "all")
    manifest = json.loads((out / "half.eosfm" / "manifest.json").read_text())
    assert {parity["backend"] for parity in manifest["parity"]} == {"native", "onnxruntime"}
    for parity in manifest["parity"]:
        assert max(level["relative"] for level in parity["levels"]) <= 1e-4
    inside("verify", out / "half.eosfm")
    inside("run", out / "half.eosfm", imagery, "-o", out / "features")
    assert (out / "features" / "level4.tif").exists()
    capsys.readouterr()
    inside("inspect", out / "half", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["specialists"][0]["pruning"][0]["criterion"] == "reconstruction"


def test_without_data_nothing_is_written(
    specks: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("prune", specks, "--ratio", 0.5, "-o", out / "half") == ExitCode.WRONG_USE
    err = capsys.readouterr().err
    assert "no imagery was given" in err
    assert f"eosfm-edge prune {specks} --ratio 0.5 --data SCENE" in err
    assert leftovers(out) == []


@pytest.mark.thorough
def test_an_interrupted_run_goes_on_where_it_was(
    specks: Path, imagery: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = f"""{SAME_BITS}
import time
import eosfm_edge.network.distill as d
d.PIXELS_PER_STEP, d._SAVE_EVERY, draw = 2 * 64 * 64, 5, d._draw
d._draw = lambda *a: (time.sleep(0.1), draw(*a))[1]
"""
    arguments = ("prune", specks, "--data", imagery, "--ratio", 0.3, *QUICK, "--distill", 20, "-o")
    process = start((*arguments, out / "x"), slow)
    while process.poll() is None and not (out / "x.work" / "0.distillation").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "interrupted" in err and "Traceback" not in err
    assert "the same command resumes from there" in err
    assert leftovers(out) == ["x.work"]

    monkeypatch.setattr(distill, "PIXELS_PER_STEP", 2 * 64 * 64)
    drawn: list[int] = []
    draw = distill._draw
    monkeypatch.setattr(distill, "_draw", lambda *a: (drawn.append(a[-1]), draw(*a))[1])
    inside(*arguments, out / "x")
    assert len(drawn) <= 35
    assert leftovers(out) == ["x"]
    inside(*arguments, tmp_path / "x")
    assert weights(out / "x") == weights(tmp_path / "x")
    assert (out / "x" / "ensemble.json").read_text() == (
        tmp_path / "x" / "ensemble.json"
    ).read_text()


def test_a_saved_plan_is_replayed(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("prune", specks, "--data", imagery, "--tile", 64)
    wish = (*QUICK[2:], "--ratio", 0.3)
    inside(*common, *wish, "--save-plan", out / "p.yaml")
    assert "plan: " in capsys.readouterr().out
    assert leftovers(out) == ["p.yaml"]
    assert read_plan(out / "p.yaml").asked == "ratio 0.3 by macs"
    inside(*common, "--plan", out / "p.yaml", "-o", out / "replayed")
    inside(*common, *wish, "-o", out / "direct")
    assert weights(out / "replayed") == weights(out / "direct")


def refused(*arguments: object) -> str:
    with pytest.raises((UserError, typer.TyperException)) as error:
        inside(*arguments)
    return str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ratio", "1"), "ratio is '1'\n  expected: less than 1"),
        (("--ratio", "-0.1"), "expected: greater than or equal to 0"),
        (("--ratio", "half"), "expected: a valid number"),
        (("--budget", "fast"), "the budget is 'fast'"),
        (("--ratio", "0.5", "--budget", "4ms"), "a ratio and a budget are given"),
        (("--ratio", "0.5", "--plan", "p.yaml"), "a plan is given, and what to prune as well"),
        (("--specialists", "1", "--plan", "p.yaml"), "a plan is given"),
        (("--plan", "nowhere.yaml"), "nowhere.yaml does not exist"),
        (("--plan", "p.yaml", "--seed", "3"), "--plan has its recipe in it"),
        (("--plan", "p.yaml", "--recipe", "narrow"), "--plan has its recipe in it"),
        (("--specialists", "0"), "a number of at least 1, or 'useful'"),
        (("--specialists", "most"), "a number of at least 1, or 'useful'"),
        (("--specialists", "3"), "3 specialists shall stay of 2"),
        (("--ratio", "0.5", "--recipe", "gentle"), "there is no recipe 'gentle'"),
        (("--ratio", "0.5", "--align", "4"), "'4' is not one of"),
        (("--ratio", "0.5", "--rank-by", "probe"), "of --rank-by probe and --labels one is given"),
        (("--ratio", "0.5", "--tile", "100"), "a multiple of 32 from 32 to 1024"),
        ((), "nothing to prune was given"),
    ],
)
def test_wrong_wishes_are_refused(
    specks: Path, imagery: Path, out: Path, arguments: tuple[str, ...], message: str
) -> None:
    found = refused(
        "prune", specks, "--data", imagery, "--tile", 64, "-o", out / "half", *arguments
    )
    assert message in found
    assert not (out / "half").exists()


@pytest.mark.parametrize(
    "arguments", [("--seed", 2**31), ("--distill", 1_000_001), ("--tiles", 100_001)]
)
def test_options_beyond_what_a_recipe_allows_are_refused(
    specks: Path, imagery: Path, out: Path, arguments: tuple[object, ...]
) -> None:
    refused("prune", specks, "--data", imagery, "--ratio", 0.3, "-o", out / "half", *arguments)


def test_an_output_that_is_there_or_holds_an_input(
    specks: Path, imagery: Path, out: Path, tmp_path: Path
) -> None:
    (out / "half").mkdir()
    common = ("prune", specks, "--data", imagery, "--ratio", 0.3, *QUICK)
    assert "add --overwrite" in refused(*common, "-o", out / "half")
    assert leftovers(out) == ["half"]
    inside_it = refused(*common, "-o", specks, "--overwrite")
    assert f"the input {specks} is in the output {specks}" in inside_it
    assert weights(specks)


def test_options_override_the_recipe(specks: Path, imagery: Path, out: Path) -> None:
    recipe = out / "mine.yaml"
    recipe.write_text("align: 16\nseed: 3\ncriterion: magnitude\ntiles: 7\n")
    inside("prune", specks, "--data", imagery, "--ratio", 0.3, "--tile", 64, "--recipe", recipe,
           "--seed", 4, "--ranking", "uniform", "--save-plan", out / "p.yaml")  # fmt: skip
    made = read_plan(out / "p.yaml").recipe
    assert (made.align, made.seed, made.criterion, made.tiles) == (16, 4, "magnitude", 7)
    groups = read_plan(out / "p.yaml").specialists[0].groups
    assert groups and all(group.keeps % 16 == 0 for group in groups)


def test_useful_specialists_stay_and_why_the_others_go_is_shown(
    imagery: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensemble: Any = ensemble_of((3, 3))
    for part in (ensemble.encoders, ensemble.feature_normalizers):
        part[1].load_state_dict(part[0].state_dict())
    source = write_ensemble(tmp_path / "e", ensemble)
    common = ("prune", source, "--data", imagery, *QUICK)
    inside(*common, "--specialists", "useful", "-o", out / "useful")
    assert "says what s0 says" in capsys.readouterr().out
    assert [s.name for s in load_ensemble(out / "useful").spec.specialists] == ["s0"]


@pytest.mark.filterwarnings("ignore::eosfm_edge.scene.scene.SceneWarning")
def test_labelled_images_say_which_specialist_stays(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (out / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label"])
        for i in range(8):
            write_scene(out / f"{i}.tif", scene_pixels(3, 64, 64, seed=i) // (1 + i % 2))
            table.writerow([f"{i}.tif", "dark" if i % 2 else "bright"])
    common = ("prune", specks, "--data", imagery, *QUICK, "--specialists", 1)
    inside(*common, "--rank-by", "probe", "--labels", out / "labels.csv", "-o", out / "one")
    assert "accuracy is" in capsys.readouterr().out
    assert len(load_ensemble(out / "one").spec.specialists) == 1
    wrong = refused(*common, "--rank-by", "probe", "--labels", imagery, "-o", out / "two")
    assert "is not UTF-8 text" in wrong or "has the columns" in wrong


def test_what_bench_writes_can_be_measured_by(
    specks: Path, imagery: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside("export", specks, "--scene", imagery, "-o", out / "b.eosfm", "--tile", 64)
    capsys.readouterr()
    inside("bench", out / "b.eosfm", "--backend", "native", "--rounds", 2, "--json")
    (out / "b.json").write_text(capsys.readouterr().out)
    message = refused("prune", specks, "--data", imagery, "--budget", "1000ms", *QUICK,
                      "--measured", out / "b.json", "--save-plan", out / "p.yaml")  # fmt: skip
    assert "measurements of 1 costs" in message  # it is one that can be read
