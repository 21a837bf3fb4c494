"""The command where names, terminals, files and installations are not as one would like them."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomllib
from support.command import MAIN, exit_code, leftovers, run, start
from support.programs import ROOT

import eosfm_edge
from eosfm_edge.cli.main import cli
from eosfm_edge.errors import ExitCode, UserError
from eosfm_edge.exporting import onnx as onnx_export
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.extras import extra_with
from eosfm_edge.files import atomic_directory, atomic_file
from eosfm_edge.native.header import version as library_version


@pytest.fixture(scope="module")
def small(motes: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "motes.eosfm"
    export_bundle(motes, imagery, path, ExportOptions(tile=64))
    return path


def refuse(*modules: str) -> str:
    """Return a prelude in which modules are not installed."""
    return (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {modules!r}:\n"
        "            raise ModuleNotFoundError(f'no {name}', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )


# ------------------------------------------------------------------------------ users' own words


def test_square_brackets_are_not_markup(small: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(small, tmp_path / "motes.eosfm")
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    licence = "CC BY-NC 4.0 [non-commercial use only] [/red] :smile:"
    manifest["specialists"][0]["provenance"]["licence"] = licence
    path.write_text(json.dumps(manifest))
    code, out, err = run("inspect", copied)
    assert code == ExitCode.DONE, err
    assert f"licence: {licence}" in out


def test_an_output_in_square_brackets_is_named(small: Path, imagery: Path, tmp_path: Path) -> None:
    code, out, err = run("run", small, imagery, "-o", tmp_path / "out[red]")
    assert code == ExitCode.DONE, err
    assert out.splitlines()[-1].rstrip().endswith(f"in {tmp_path}/out[red]")
    code, _, err = run("inspect", tmp_path / "nothing[/red]")
    assert code == ExitCode.WRONG_USE
    assert "nothing[/red]" in err


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_that_the_output_cannot_show_are_escaped(
    small: Path, imagery: Path, tmp_path: Path, encoding: str
) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}

    def done(*arguments: object) -> tuple[int, bytes, bytes]:
        command = [sys.executable, "-m", "eosfm_edge", *map(os.fsencode, map(str, arguments))]
        result = subprocess.run(command, capture_output=True, env=environment, check=False)
        return result.returncode, result.stdout, result.stderr

    code, out, err = done("run", small, imagery, "-o", tmp_path / "é€")
    assert code == ExitCode.DONE, err
    assert ("é€" if encoding == "utf-8" else "\\xe9\\u20ac").encode() in out.splitlines()[-1]
    code, _, err = done("inspect", tmp_path / "\udcff\udcfe")  # bytes that are no UTF-8
    assert code == ExitCode.WRONG_USE, err
    assert b"is neither an ensemble nor a bundle" in err
    # GDAL takes no such names.
    code, _, err = done("run", small, imagery, "-o", tmp_path / "\udcff")
    assert code == ExitCode.WRONG_USE, err
    assert b"is not UTF-8" in err
    assert leftovers(tmp_path) == ["é€"]


def test_lines_are_not_wrapped_where_there_is_no_terminal(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 40) / "deeper"
    folder.mkdir(parents=True)
    copied = shutil.copytree(small, folder / "motes.eosfm")
    for arguments in (("inspect", copied), ("verify", copied), ("inspect", folder / "nothing")):
        _, out, err = run(*arguments)
        assert all(len(line) < 5000 for line in (out + err).splitlines())
    assert str(folder / "nothing") in err
    prelude = (
        "from rich.table import Table\nfrom eosfm_edge.cli.output import console, error_console\n"
        "t = Table('a', box=None)\nt.add_row('word ' * 60)\n"
        "console().print(t)\nerror_console().print('word ' * 60)\n"
    )
    _, out, err = run("--version", prelude=prelude)
    assert "word " * 59 in out
    assert "word " * 59 in err


# ------------------------------------------------------------------------------ help and shells


def shown(*arguments: str, columns: int = 80) -> str:
    """Return what the command prints on a terminal of so many columns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        code, out, err = run(*arguments)
    assert code == 0, err
    return out


@pytest.mark.parametrize("columns", [80, 120])
def test_help_lists_the_verbs_in_the_roads_order_a_line_each(columns: int) -> None:
    text = shown("--help", columns=columns)
    listed = text.partition("─ Commands ─")[2].splitlines()[1:]
    verbs = [line.split()[1] for line in listed if line.startswith("│")]
    assert verbs == list(cli.commands)  # one line each: none is cut or wrapped
    assert verbs[:4] == ["import", "prune", "calibrate", "export"]
    assert all(len(line) <= columns for line in text.splitlines())
    assert "…" not in text and "\\b" not in text
    assert "--run--> feature rasters" in text
    weights, prune = (line for line in text.splitlines() if "weights --" in line or "├─" in line)
    assert prune.index("├─prune─┤") > weights.index("ensemble/") - 2


@pytest.mark.parametrize("verb", list(cli.commands))
@pytest.mark.parametrize("columns", [80, 120])
def test_every_help_has_two_examples_that_are_accepted(verb: str, columns: int) -> None:
    text = shown(verb, "--help", columns=columns)
    assert all(len(line) <= columns for line in text.splitlines())
    examples = [line for line in text.splitlines() if line.startswith(" $ eosfm-edge ")]
    assert len(examples) == 2
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])[2:]
        assert words[0] == verb
        cli.commands[verb].make_context(verb, words[1:])


def test_options_stand_in_panels_of_who_needs_them() -> None:
    common, imagery = shown("export", "--help").partition("─ Imagery ─")[::2]
    imagery, expert = imagery.partition("─ Expert ─")[::2]
    expert = expert.partition("Examples:")[0]
    assert "--target" in common and "--data,--scene" in common and "--json" in common
    assert "--scale" in imagery and "--nodata" in imagery
    assert "--batch" in expert and "--target" not in expert


def test_the_module_is_the_command() -> None:
    outputs = {
        subprocess.check_output([*command, "--version"], text=True)
        for command in (
            [sys.executable, "-m", "eosfm_edge"],
            [str(Path(sys.executable).parent / "eosfm-edge")],
        )
    }
    assert len(outputs) == 1


def test_the_version_names_all_parts_and_those_that_are_missing() -> None:
    code, out, err = run("--version", prelude=refuse("rasterio", "tensorrt", "tensorrt_rtx"))
    assert (code, err) == (0, "")
    first, *parts = out.splitlines()
    assert first == f"eosfm-edge {eosfm_edge.__version__}"
    said = {line[2:14].strip(): line[16:] for line in parts}
    assert list(said) == ["libeosfm", "ONNX Runtime", "GDAL", "CUDA", "TensorRT"]
    assert said["libeosfm"].startswith(library_version())
    assert said["GDAL"] == "not installed"
    assert said["TensorRT"] == "not installed"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    command = [sys.executable, "-m", "eosfm_edge"]
    environment = {**os.environ, "_EOSFM_EDGE_COMPLETE": f"source_{shell}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if shell == "bash" and "Bash" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "_EOSFM_EDGE_COMPLETE" in done.stdout


def completions_of(line: str) -> list[str]:
    """Return what bash would be given for an unfinished line."""
    words = line.split(" ")
    environment = {
        **os.environ, "_EOSFM_EDGE_COMPLETE": "complete_bash",
        "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    command = [sys.executable, "-m", "eosfm_edge"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("eosfm-edge ve", ["verify"]),
        ("eosfm-edge prune --rat", ["--ratio"]),
        ("eosfm-edge export six --target jetson-x", ["jetson-xavier"]),
        ("eosfm-edge bench b --backend on", ["onnxruntime", "onnxruntime-cuda"]),
        ("eosfm-edge run b s --backend te", ["tensorrt"]),
        ("eosfm-edge prune six --recipe na", ["narrow"]),
        ("eosfm-edge run b s --bands S2", ["S2L2A", "S2L1C"]),
        ("eosfm-edge targets sh", ["show"]),
    ],
)
def test_verbs_options_and_values_are_completed(line: str, expected: list[str]) -> None:
    assert completions_of(line) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_after_installing(tmp_path: Path) -> None:
    """Install in a home of its own, start bash as a user would, and press TAB."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "eosfm-edge").symlink_to(Path(sys.executable).parent / "eosfm-edge")
    environment = {"HOME": str(tmp_path), "PATH": f"{folder}:/usr/bin:/bin", "TERM": "dumb"}
    install = "eosfm-edge --install-completion"  # it asks which shell it was started by
    done = subprocess.run(
        ["bash", "-c", f"{install}; true"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "completion installed" in done.stdout, done.stdout + done.stderr
    press_tab = (
        f"source {tmp_path}/.bashrc; COMP_WORDS=(eosfm-edge cali); COMP_CWORD=1; "
        "$(complete -p eosfm-edge | sed 's/.*-F \\([^ ]*\\).*/\\1/') eosfm-edge cali eosfm-edge; "
        "echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", press_tab],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["calibrate"], done.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_completes_after_installing(tmp_path: Path) -> None:
    """The same in a zsh with a terminal: the first TAB of a session loads the completion."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "eosfm-edge").symlink_to(Path(sys.executable).parent / "eosfm-edge")
    environment = {"HOME": str(tmp_path), "PATH": f"{folder}:/usr/bin:/bin", "TERM": "dumb"}
    done = subprocess.run(
        ["zsh", "-c", "eosfm-edge --install-completion; true"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "completion installed" in done.stdout, done.stdout + done.stderr
    child, terminal = pty.fork()
    if child == 0:
        os.execve(shutil.which("zsh") or "", ["zsh", "-i"], environment)
    try:
        assert b"\x1b[?2004h" in read_until(terminal, b"\x1b[?2004h")  # it edits lines now
        os.write(terminal, b"eosfm-edge cali\t")
        read_until(terminal, b"\x07")
        os.write(terminal, b"\t")
        assert b"brate" in read_until(terminal, b"brate")
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(child, 0)


def read_until(terminal: int, word: bytes, seconds: float = 60) -> bytes:
    """Read what a terminal shows until it shows a word, or for so long."""
    seen, end = b"", time.monotonic() + seconds
    while word not in seen and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 4096)
    return seen


# ------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("lines", ["1", "0"])
def test_a_reader_that_stops_is_no_error(small: Path, lines: str) -> None:
    """``inspect | head``: the output is larger than what a pipe holds."""
    prelude = (
        "import eosfm_edge.cli.inspect as i\n"
        "old = i._show_bundle\n"
        "def often(*of):\n    for _ in range(300): old(*of)\n"
        "i._show_bundle = often"
    )
    process = start(("inspect", small), prelude)
    assert process.stdout is not None
    for _ in range(int(lines)):
        process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(timeout=60) == ExitCode.DONE, err
    assert err == ""


@pytest.mark.parametrize("arguments", [("inspect",), ("inspect", "--json"), ("verify",)])
def test_an_output_that_is_full_is_no_bug(small: Path, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", MAIN, *arguments, str(small)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == ExitCode.WRONG_USE
    assert "cannot read or write the output: No space left on device" in done.stderr
    assert "bug" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("option", ["--measured", "--plan"])
def test_measurements_that_are_not_there_are_named(
    motes: Path, imagery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    budget = ("--budget", "1ms", "--tile", "64") if option == "--measured" else ()
    arguments = ("prune", motes, "--data", imagery, "-o", tmp_path / "out", *budget,
                 option, tmp_path / "nowhere.json")  # fmt: skip
    assert exit_code(*arguments) == ExitCode.WRONG_USE
    assert "nowhere.json" in capsys.readouterr().err
    assert leftovers(tmp_path) == []


FIFO_ARGUMENTS = {
    "inspect": ["{}"],
    "verify": ["{}"],
    "packets": ["{}"],
    "run": ["{}", "scene.tif", "-o", "out"],
    "import": ["{}", "-o", "out", "--bands", "RGB"],
    "prune": ["{}", "-o", "out"],
}


@pytest.mark.parametrize("verb", FIFO_ARGUMENTS)
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path, verb: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    arguments = [one.format(tmp_path / "fifo") for one in FIFO_ARGUMENTS[verb]]
    code, _, err = run(verb, *arguments)
    assert code == ExitCode.WRONG_USE
    assert "fifo is a FIFO\n  expected: a file or a folder\n" in err


def test_a_scene_that_is_a_fifo_is_refused(small: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    code, _, err = run("run", small, tmp_path / "fifo", "-o", tmp_path / "out")
    assert code == ExitCode.WRONG_USE
    assert "is a FIFO" in err


@pytest.mark.parametrize("name", ["manifest.json", "ensemble.json", "calibration.json"])
def test_a_description_that_is_a_fifo_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    code, _, err = run("inspect", tmp_path)
    assert code == ExitCode.WRONG_USE
    assert f"{name} is a FIFO" in err


# ------------------------------------------------------------------------------ what is installed


def test_run_needs_zstandard_for_packets_alone(small: Path, imagery: Path, tmp_path: Path) -> None:
    prelude = refuse("zstandard", "torch", "gguf")
    code, _, err = run("run", small, imagery, "-o", tmp_path / "out", prelude=prelude)
    assert code == ExitCode.DONE, err
    arguments = ("run", small, imagery, "-o", tmp_path / "other", "--packets", "20kB")
    code, _, err = run(*arguments, prelude=prelude)
    assert code == ExitCode.WRONG_USE
    assert "pip install '.[run]'" in err
    assert leftovers(tmp_path) == ["out"]


def test_every_import_is_of_the_base_or_of_a_known_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {"yaml": "pyyaml", "PIL": "pillow", "elftools": "pyelftools", "cuda": "cuda-bindings",
             "tensorrt_rtx": "tensorrt-rtx-cu13", "torch_pruning": "torch-pruning"}  # fmt: skip

    def listed(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=;\[ ]", one)[0] for one in requirements}

    base = listed(project["dependencies"])
    extras = {k: listed(v) for k, v in project["optional-dependencies"].items()}
    imported = set()
    for path in Path(eosfm_edge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    # TensorRT itself comes with the device, and engines/library.py says so.
    foreign = imported - set(sys.stdlib_module_names) - {"eosfm_edge", "tensorrt", "__future__"}
    assert {"torch", "zstandard", "onnxruntime"} <= foreign
    for module in foreign:
        package = names.get(module, module)
        if package not in base:
            extra = extra_with(module)
            assert extra, f"{module} is in no extra that the command line knows"
            assert package in extras[extra]


def test_a_graph_that_no_file_can_hold_is_refused(
    motes: Path, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="--split"):
        export_bundle(motes, imagery, tmp_path / "b.eosfm", ExportOptions(tile=64))
    assert leftovers(tmp_path) == []


# ------------------------------------------------------------------------------ what is written


@pytest.mark.thorough
def test_import_needs_no_temporary_folder(tmp_path: Path) -> None:
    from support.weights import write_pth

    source = write_pth(tmp_path / "given.pth", (3,), "convnextv2_atto")
    prelude = (
        "import tempfile\n"
        "def none(*_): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile._get_default_tempdir = none\ntempfile.tempdir = None\n"
    )
    arguments = ("import", source, "-o", tmp_path / "out", "--bands", "RGB", "--scale", "1e-4")
    code, _, err = run(*arguments, prelude=prelude)
    assert code == ExitCode.DONE, err


class LibraryError(Exception):
    """Stands for a library's own, which is no OSError."""


@pytest.mark.parametrize(
    "error",
    [
        LibraryError("I/O error: No space left on device (os error 28)"),
        RuntimeError("Disk quota exceeded"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_full_disk_is_no_bug_whoever_says_so(tmp_path: Path, error: Exception) -> None:
    for write in (lambda p: atomic_directory(p, contents=("*",)), atomic_file):
        with pytest.raises(UserError, match="free some space"), write(tmp_path / "out"):
            raise error
    with pytest.raises(LibraryError, match="else"), atomic_file(tmp_path / "out"):
        raise LibraryError("something else")
    assert leftovers(tmp_path) == []


def test_an_interrupted_verb_that_resumes_does_not_say_that_nothing_was_written(
    motes: Path, imagery: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.work").mkdir()
    prelude = (
        "from eosfm_edge.cli import main, progress\nfrom pathlib import Path\n"
        "import eosfm_edge.formats.bundle as m\n"
        "def stop(*_):\n"
        f"    with progress.shown_progress(Path({str(tmp_path / 'out')!r})):\n"
        "        raise KeyboardInterrupt\n"
        "m.read_manifest = stop\nimport eosfm_edge.runtime.verify as v\nv.read_manifest = stop\n"
    )
    code, _, err = run("verify", motes, prelude=prelude)
    assert code == ExitCode.INTERRUPTED
    kept = f"what is finished is in {tmp_path}/out.work: the same command resumes from there"
    assert f"interrupted; {kept}" in err
    assert "nothing was written" not in err
