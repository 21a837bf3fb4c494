"""Backends that libeosfm loads when they are asked for, with libraries of ONNX Runtime's wheels."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import support.speck  # noqa: F401  (the backbone of these bundles)
from support.chains import random_ensemble, spec_of, write
from support.programs import run

from eosfm_edge.formats.bundle import MODEL_NAME

OTHER_VERSION = "1.19.2"  # the oldest whose wheel for this Python has the library by itself


def libraries_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("libonnxruntime.so.*"))


@pytest.fixture(scope="module")
def onnxruntime() -> Path:
    """The library of the installed wheel."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None
    (library,) = libraries_of(Path(spec.origin).parent / "capi")
    return library


@pytest.fixture(scope="module")
def other_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of another version's wheel."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    wanted = f"onnxruntime=={OTHER_VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", wanted]
    done = subprocess.run([*command, "--dest", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"{wanted} cannot be downloaded: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder)
    (library,) = libraries_of(folder / "onnxruntime" / "capi")
    return library


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles with graphs; those of ``wrong`` are another ensemble's."""
    folder = tmp_path_factory.mktemp("bundles")
    spec = spec_of((2, 2), 2, backbone="speck")
    whole = write(folder / "whole", random_ensemble(spec), 32, layout="whole")
    split = write(folder / "split", random_ensemble(spec), 32, layout="split")
    other = write(folder / "other", random_ensemble(spec, seed=1), 32, layout="whole")
    wrong = Path(shutil.copytree(whole, folder / "wrong"))
    shutil.copy(other / MODEL_NAME, wrong / MODEL_NAME)
    return {"whole": whole, "split": split, "wrong": wrong}


@pytest.mark.parametrize(
    ("layout", "times"),
    [("whole", "20"), ("split", "20"), pytest.param("whole", "1000", marks=pytest.mark.slow)],
)
def test_onnxruntime(
    layout: str, times: str, programs: Path, bundles: dict[str, Path], onnxruntime: Path
) -> None:
    program = programs / "test_backends"
    said = run([program, times, bundles[layout], bundles["wrong"], onnxruntime])
    assert said == "all checks hold\n", "ONNX Runtime writes to the host's streams"


def test_an_older_onnxruntime_and_both_in_one_process(
    programs: Path, bundles: dict[str, Path], onnxruntime: Path, other_onnxruntime: Path
) -> None:
    program = programs / "test_backends"
    both = (other_onnxruntime, onnxruntime)
    said = run([program, "20", bundles["whole"], bundles["wrong"], *both])
    assert said == "all checks hold\n", "ONNX Runtime writes to the host's streams"


def test_a_program_finds_backends_as_the_system_does(
    programs: Path, bundles: dict[str, Path], onnxruntime: Path
) -> None:
    """The example has libeosfm inside it, and no backend beside it."""
    where = {"EOSFM_ONNXRUNTIME": str(onnxruntime)}
    command = [programs / "verify", bundles["whole"], "onnxruntime native"]
    assert "(native, " in run(command, where)
    assert "(onnxruntime, " in run(command, {**where, "LD_LIBRARY_PATH": str(programs.parent)})


@pytest.mark.parametrize("name", ["./verify", "verify", "{folder}/verify"])
def test_a_backend_is_not_looked_for_where_the_command_line_says(
    programs: Path, bundles: dict[str, Path], onnxruntime: Path, tmp_path: Path, name: str
) -> None:
    """A process's name is its parent's choice, and a relative name is of any folder."""
    shutil.copy(programs.parent / "libeosfm_onnxruntime.so", tmp_path)
    done = subprocess.run(
        [name.format(folder=tmp_path), str(bundles["whole"]), "onnxruntime native"],
        executable=programs / "verify",
        cwd=tmp_path,
        env={**os.environ, "EOSFM_ONNXRUNTIME": str(onnxruntime)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(native, " in done.stdout
    assert "libeosfm_onnxruntime.so, which does not lie beside libeosfm" in done.stderr
