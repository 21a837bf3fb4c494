"""Files have roles: a device needs those of its engine, and is asked for no others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command import run

from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.backends import BACKENDS, SOURCES
from eosfm_edge.formats.bundle import (
    CHAIN_NAME,
    MANIFEST_NAME,
    MODEL_NAME,
    Manifest,
    read_manifest,
    role_of,
)
from eosfm_edge.formats.ensemble import PALETTE_NAME
from eosfm_edge.native.gguf import read_gguf
from eosfm_edge.runtime.verify import verify_bundle
from eosfm_edge.targets.registry import find_target

SPECIALISTS = ["specialists/s0.gguf", "specialists/s1.gguf"]
FILES = {
    "native": [CHAIN_NAME, PALETTE_NAME, *SPECIALISTS],
    "onnx": [CHAIN_NAME, MODEL_NAME, PALETTE_NAME],
    "all": [CHAIN_NAME, MODEL_NAME, PALETTE_NAME, *SPECIALISTS],
}


@pytest.fixture
def copied(bundles: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundles / "all.eosfm", tmp_path / "all.eosfm")


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / MANIFEST_NAME
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_every_backend_says_what_it_computes_from() -> None:
    assert set(SOURCES) == set(BACKENDS)


@pytest.mark.parametrize("purpose", FILES)
def test_export_writes_only_the_files_of_its_purpose(bundles: Path, purpose: str) -> None:
    bundle = bundles / f"{purpose}.eosfm"
    there = [p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()]
    assert sorted(there) == sorted([MANIFEST_NAME, *FILES[purpose]])
    manifest = read_manifest(bundle)
    assert {name: entry.role for name, entry in manifest.files.items()} == {
        name: role_of(name) for name in FILES[purpose]
    }
    chain = read_gguf(bundle / CHAIN_NAME).values
    checked = {"native": ["native"], "onnx": ["onnxruntime"], "all": ["native", "onnxruntime"]}
    assert [one.backend for one in manifest.parity] == checked[purpose]
    assert ("eosfm.graphs.files" in chain) == (purpose != "native")
    assert ("eosfm.known.tolerances" in chain) == (purpose != "onnx")


@pytest.mark.parametrize(
    ("purpose", "backend"),
    [("native", "native"), ("onnx", "onnxruntime"), ("all", "native"), ("all", "onnxruntime")],
)
def test_a_bundle_for_one_engine_verifies_and_runs_on_it(
    bundles: Path, imagery: Path, tmp_path: Path, purpose: str, backend: str
) -> None:
    bundle = bundles / f"{purpose}.eosfm"
    result = verify_bundle(bundle, backend)
    assert (result.files, result.absent) == (len(FILES[purpose]), ())
    out = tmp_path / "out"
    arguments = ("--backend", backend, "--packets", "20kB")
    code, _, err = run("run", bundle, imagery, "-o", out, *arguments)
    assert code == ExitCode.DONE, err
    assert (out / "features.eosp").stat().st_size > 0


@pytest.mark.parametrize(
    ("purpose", "backend", "lacks", "others"),
    [
        ("native", "onnxruntime", "no ONNX graph: it was exported --for native", "native, cuda"),
        ("native", "tensorrt", "no ONNX graph: it was exported --for native", "native, cuda"),
        ("native", "onnxruntime-cuda", "no ONNX graph", "native, cuda"),
        ("onnx", "native", "no native file: it was exported --for onnx", "onnxruntime, "),
        ("onnx", "cuda", "no native file: it was exported --for onnx", "onnxruntime, "),
    ],
)
def test_an_engine_without_files_is_refused_and_no_other_computes(
    bundles: Path,
    imagery: Path,
    tmp_path: Path,
    purpose: str,
    backend: str,
    lacks: str,
    others: str,
) -> None:
    bundle, out = bundles / f"{purpose}.eosfm", tmp_path / "out"
    for arguments in (
        ("verify", bundle),
        ("run", bundle, imagery, "-o", out),
        ("bench", bundle, "--rounds", 2),
    ):
        code, _, err = run(*arguments, "--backend", backend)
        assert code == ExitCode.WRONG_USE, err
        assert f"{purpose}.eosfm has {lacks}" in err
        assert f"from which {backend} computes" in err
        assert "--for all" in err and f"another --backend: {others}" in err
    assert not out.exists()


def test_build_without_graphs_is_refused(specks: Path, imagery: Path, tmp_path: Path) -> None:
    target = find_target("desktop-tensorrt")
    options = ExportOptions(target=target, precision="fp32", tile=64, purpose="native")
    export_bundle(specks, imagery, tmp_path / "b.eosfm", options)
    code, _, err = run("build", tmp_path / "b.eosfm", "--dry-run")
    assert code == ExitCode.WRONG_USE
    assert "b.eosfm has no ONNX graph: it was exported --for native" in err


@pytest.mark.parametrize(
    ("backend", "gone"), [("native", [MODEL_NAME]), ("onnxruntime", SPECIALISTS)]
)
def test_what_another_engine_reads_may_be_deleted(
    copied: Path, imagery: Path, tmp_path: Path, backend: str, gone: list[str]
) -> None:
    for name in gone:
        (copied / name).unlink()
    result = verify_bundle(copied, backend)
    assert result.absent == tuple(gone)
    assert result.files == len(FILES["all"]) - len(gone)
    code, out, err = run("verify", copied, "--backend", backend)
    assert code == ExitCode.DONE, err
    are = "is" if len(gone) == 1 else "are"
    assert f"{', '.join(gone)} {are} not here, and {backend} does not need" in out
    assert "not checked" in out
    code, _, err = run("run", copied, imagery, "-o", tmp_path / "f", "--backend", backend)
    assert code == ExitCode.DONE, err


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("native", SPECIALISTS[1]), ("native", CHAIN_NAME),
        ("onnxruntime", MODEL_NAME), ("onnxruntime", CHAIN_NAME),
    ],
)  # fmt: skip
def test_what_the_engine_reads_may_not_be_missing(copied: Path, backend: str, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(CheckFailedError, match=f"{name} is missing"):
        verify_bundle(copied, backend)


@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
@pytest.mark.parametrize("name", FILES["all"])
def test_what_is_there_is_checked_whoever_reads_it(copied: Path, backend: str, name: str) -> None:
    with (copied / name).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(CheckFailedError, match=f"{name} was altered"):
        verify_bundle(copied, backend)


def test_a_file_of_another_purpose_is_surplus(bundles: Path, tmp_path: Path) -> None:
    native = shutil.copytree(bundles / "native.eosfm", tmp_path / "native.eosfm")
    shutil.copy(bundles / "all.eosfm" / MODEL_NAME, native / MODEL_NAME)
    with pytest.raises(CheckFailedError, match=r"model\.onnx is not in the manifest"):
        verify_bundle(native, "native")


def test_bench_times_the_engines_whose_files_are_there(bundles: Path, copied: Path) -> None:
    (copied / MODEL_NAME).unlink()
    for bundle, timed in (
        (bundles / "native.eosfm", ["native"]),
        (bundles / "onnx.eosfm", ["onnxruntime"]),
        (copied, ["native"]),
    ):
        code, out, err = run("bench", bundle, "--rounds", 2, "--json")
        assert code == ExitCode.DONE, err
        assert [one["name"] for one in json.loads(out)["timings"]] == timed


def test_graphs_need_no_native_engine_below_them(
    bundles: Path, copied: Path, imagery: Path, tmp_path: Path
) -> None:
    """Without its files it is no backend to go on with: the last that could be is named."""
    for name in SPECIALISTS:
        (copied / name).unlink()
    for bundle in (bundles / "onnx.eosfm", copied):
        arguments = ("run", bundle, imagery, "-o", tmp_path / "f", "--backend", "onnxruntime-cuda")
        code, _, err = run(*arguments)
        assert code == ExitCode.WRONG_USE
        assert "onnxruntime-cuda cannot be used here" in err
        assert "specialists" not in err


def as_version_1(content: dict[str, Any]) -> None:
    content["schema_version"] = 1
    for entry in content["files"].values():
        del entry["role"]


def test_version_1_is_read_with_roles_by_its_paths(copied: Path, imagery: Path) -> None:
    now = read_manifest(copied)
    edit(copied, as_version_1)
    assert read_manifest(copied) == now
    for backend in ("native", "onnxruntime"):
        verify_bundle(copied, backend)
    (copied / MODEL_NAME).unlink()
    assert verify_bundle(copied, "native").absent == (MODEL_NAME,)


def test_version_1_without_graphs_had_one(copied: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        as_version_1(content)
        del content["graphs"]

    edit(copied, change)
    assert read_manifest(copied).graphs == (MODEL_NAME,)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c["files"][MODEL_NAME].update(role="device"), "model.onnx.role is device"),
        (lambda c: c["files"][SPECIALISTS[0]].update(role="onnx"), "expected native"),
        (lambda c: c["files"][CHAIN_NAME].update(role="native"), "expected common"),
        (lambda c: c["files"][CHAIN_NAME].pop("role"), "role: Field required"),
        (lambda c: c.update(graphs=[]), "model.onnx is among graphs or the files of role onnx"),
        (lambda c: c.update(graphs=[MODEL_NAME, CHAIN_NAME]), "chain.gguf is among graphs or"),
        (lambda c: c.update(schema_version=3), "schema_version"),
    ],
)
def test_a_manifest_with_wrong_roles_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    edit(copied, change)
    with pytest.raises(UserError) as error:
        read_manifest(copied)
    assert complaint in str(error.value)


def test_a_manifest_that_leaves_an_engine_out_is_contradicted(copied: Path) -> None:
    """Who drops the graphs or the specialists from the manifest hides that they are missing."""

    def without_graphs(content: dict[str, Any]) -> None:
        content["graphs"] = []
        del content["files"][MODEL_NAME]
        content["parity"] = [one for one in content["parity"] if one["backend"] == "native"]

    whole = (copied / MANIFEST_NAME).read_text()
    edit(copied, without_graphs)
    (copied / MODEL_NAME).rename(copied.parent / "aside")
    with pytest.raises(CheckFailedError, match="graphs is not there"):
        verify_bundle(copied, "native")
    (copied.parent / "aside").rename(copied / MODEL_NAME)

    def without_specialists(content: dict[str, Any]) -> None:
        for name in SPECIALISTS:
            del content["files"][name]
        content["parity"] = [one for one in content["parity"] if one["backend"] != "native"]

    (copied / MANIFEST_NAME).write_text(whole)
    edit(copied, without_specialists)
    shutil.rmtree(copied / "specialists")
    with pytest.raises(CheckFailedError, match=r"parity\.native\.tolerance is not there"):
        verify_bundle(copied, "onnxruntime")


def test_a_bundle_for_no_engine_is_refused(copied: Path) -> None:
    content = json.loads((copied / MANIFEST_NAME).read_text())
    content["graphs"] = []
    content["files"] = {CHAIN_NAME: content["files"][CHAIN_NAME]}
    with pytest.raises(ValueError, match="neither native files nor ONNX graphs"):
        Manifest.model_validate(content)


def test_export_for_native_imports_neither_onnx_nor_onnxruntime(
    specks: Path, imagery: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "sys.modules['onnx'] = sys.modules['onnxruntime'] = None\n"
        "sys.path.insert(0, sys.argv[1]); import support.speck\n"
        "from eosfm_edge.exporting.exporter import ExportOptions, export_bundle\n"
        "export_bundle(*map(Path, sys.argv[2:]), ExportOptions(tile=64, purpose='native'))\n"
    )
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", program, tests, specks, imagery, tmp_path / "b.eosfm"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "b.eosfm").graphs == ()
