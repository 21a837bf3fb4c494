"""The costs of a bundle for a device: bytes to send, and the memory of a run."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import zstandard
from support.command import run

import eosfm_edge as ee
from eosfm_edge.bundle.digests import zstd_size
from eosfm_edge.bundle.sizes import bundle_sizes
from eosfm_edge.formats.bundle import MANIFEST_NAME, MODEL_NAME, read_manifest
from eosfm_edge.formats.ensemble import PALETTE_NAME
from eosfm_edge.machine import processors
from eosfm_edge.native.binding import Model
from eosfm_edge.native.header import EosfmError
from eosfm_edge.targets.registry import find_target, target_names


@pytest.fixture
def whole(bundles: Path) -> Path:
    """A bundle for all engines."""
    return bundles / "all.eosfm"


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "whole.eosfm")


def on_disk(bundle: Path, *, without: str) -> list[Path]:
    files = [path for path in bundle.rglob("*") if path.is_file()]
    return [path for path in files if not path.name.endswith(without)]


@pytest.mark.parametrize(
    ("kind", "without"), [("native", ".onnx"), ("onnx", ".s.gguf"), ("all", "nothing")]
)
def test_bytes_to_send_are_those_of_the_files(whole: Path, kind: str, without: str) -> None:
    files = on_disk(whole, without=without)
    if kind != "all":  # no engine needs the palette
        files = [path for path in files if path.name != PALETTE_NAME]
    if kind == "onnx":
        files = [path for path in files if path.parent.name != "specialists"]
    sent = getattr(bundle_sizes(whole, read_manifest(whole)), kind)
    assert sent.files == len(files)
    assert sent.raw == sum(path.stat().st_size for path in files)
    packed = [
        path.stat().st_size
        if path.name == MANIFEST_NAME
        else len(zstandard.ZstdCompressor(level=3).compress(path.read_bytes()))
        for path in files
    ]
    assert sent.compressed == pytest.approx(sum(packed), abs=64)  # of frames, begun in one piece
    assert 0 < sent.compressed < sent.raw


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (5 << 20) + 7])
def test_a_file_is_compressed_in_pieces_as_in_one(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    (tmp_path / "file").write_bytes(content)
    whole = len(zstandard.ZstdCompressor(level=3).compress(content))
    assert zstd_size(tmp_path / "file") == pytest.approx(whole, rel=1e-3, abs=16)


def test_a_run_fits_into_the_memory_that_is_said(whole: Path) -> None:
    memory = bundle_sizes(whole, read_manifest(whole)).memory
    assert memory is not None and memory.bytes == memory.weights_bytes + memory.context_bytes
    assert memory.threads == processors()
    with Model(whole) as model:
        threads = memory.threads
        model.context(threads=threads, memory_limit=memory.bytes).close()
        with pytest.raises(EosfmError, match="the limit is"):
            model.context(threads=threads, memory_limit=memory.bytes - 1)


@pytest.mark.parametrize(
    ("target", "threads"), [("raspberry-pi-5", 4), ("jetson-orin-nano", 6), ("cpu-arm64", 1)]
)
def test_memory_is_for_the_cores_of_the_target(whole: Path, target: str, threads: int) -> None:
    manifest, profile = read_manifest(whole), find_target(target)
    there = manifest.model_copy(update={"target": target, "profile": profile})
    memory = bundle_sizes(whole, there).memory
    assert memory is not None and memory.threads == threads
    with Model(whole) as model:
        needs = model.requirements(threads=threads)
    assert memory.bytes == needs.context_bytes + needs.weights_bytes


@pytest.mark.parametrize("name", target_names())
def test_cores_of_a_profile_have_a_source(name: str) -> None:
    profile = find_target(name)
    is_board = name.startswith(("jetson", "raspberry"))
    assert (profile.cores is not None) == is_board == ("cores" in profile.sources)


def test_the_last_line_of_export_and_inspect_says_it(
    specks: Path, imagery: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "b.eosfm"
    for purpose, words in (
        ("native", ["to send: ", "by zstd -3", "to run a tile: "]),
        ("onnx", ["to send: ", "memory of a run is not known: it is what ONNX Runtime"]),
        ("all", [" for native, ", " for ONNX graphs, ", " for both; to run a tile: "]),
    ):
        arguments = ("--data", imagery, "--tile", 64, "--precision", "fp32", "-o", bundle)
        code, out, err = run("export", specks, *arguments, "--for", purpose, "--overwrite")
        assert code == 0, err
        last = out.splitlines()[-1]
        assert all(word in last for word in words), last
        sizes = ee.open(bundle).sizes
        assert last == sizes.summary
        sent = {"native": sizes.native, "onnx": sizes.onnx, "all": sizes.all}[purpose]
        assert f"{sent.raw:,} bytes ({sent.compressed:,} by zstd -3)" in last
        code, out, err = run("inspect", bundle)
        assert code == 0 and out.splitlines()[-1] == last, err
        code, out, err = run("inspect", bundle, "--json")
        content = json.loads(out)
        assert content["sizes"]["all"]["raw"] == sizes.all.raw
        assert content["schema_version"] == 2 and content["files"]


def test_export_prints_sizes_as_json(specks: Path, imagery: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "b.eosfm"
    arguments = ("--data", imagery, "--tile", 64, "--precision", "fp32", "-o", bundle, "--json")
    code, out, err = run("export", specks, *arguments)
    assert code == 0, err
    printed, sizes = json.loads(out)["sizes"], ee.open(bundle).sizes
    assert printed["native"] == vars(sizes.native) and printed["all"] == vars(sizes.all)
    assert sizes.all.files == sizes.native.files + 1  # the palette, which no device needs
    assert printed["onnx"] is None and sizes.onnx is None
    assert printed["memory"] == vars(sizes.memory)


def test_sizes_of_version_1_are_raw_alone(copied: Path) -> None:
    path = copied / MANIFEST_NAME
    content = json.loads(path.read_text())
    content["schema_version"] = 1
    for entry in content["files"].values():
        del entry["role"], entry["compressed"]
    path.write_text(json.dumps(content))
    sizes = bundle_sizes(copied, read_manifest(copied))
    assert sizes.all.compressed is None and sizes.all.raw > 0
    code, out, _ = run("inspect", copied)
    assert code == 0 and "zstd" not in out.splitlines()[-1]


def test_inspect_shows_what_was_exported_where_files_are_missing_or_damaged(copied: Path) -> None:
    before = bundle_sizes(copied, read_manifest(copied))
    (copied / MODEL_NAME).unlink()
    assert bundle_sizes(copied, read_manifest(copied)) == before
    with (copied / "specialists" / "s0.gguf").open("r+b") as file:
        file.write(os.urandom(64))
    code, out, err = run("inspect", copied)
    assert code == 0, err
    assert "the memory of a run is not known: " in out.splitlines()[-1]
    assert "s0.gguf" in out.splitlines()[-1]
    shutil.rmtree(copied / "specialists")
    code, out, err = run("inspect", copied)
    assert code == 0 and "s0.gguf" in out.splitlines()[-1], err


def test_inspect_needs_no_zstandard(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    code, out, err = run("inspect", whole)
    assert code == 0, err
    assert "by zstd -3" in out
