"""Engines beside a bundle: kept under a key, and given out for nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eosfm_edge.engines.store import Wanted, find_engine, read_engine, save_engine
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.bundle import FileEntry
from eosfm_edge.formats.engines import EngineKey, read_index

HERE = Wanted("tensorrt", "10.3.0.26", "8.7")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    return tmp_path


def manifest(bundle: Path, precision: str = "int8") -> Any:
    digest = sha256_file(bundle / "model.onnx")
    return SimpleNamespace(
        precision=precision, files={"model.onnx": FileEntry(size=7, sha256=digest, role="onnx")}
    )


def key(bundle: Path, **others: Any) -> EngineKey:
    fields: dict[str, Any] = {
        "graph_sha256": sha256_file(bundle / "model.onnx"),
        "library": "tensorrt",
        "version": "10.3.0.26",
        "compute_capabilities": ("8.7",),
        "precision": "int8",
    }
    return EngineKey(**(fields | others))


def save(bundle: Path, engine: bytes = b"engine", **others: Any) -> Any:
    return save_engine(
        bundle,
        "model.onnx",
        key(bundle, **others),
        engine,
        products={"int8": 3},
        time_share=None,
        seconds=1.0,
    )


def test_what_was_built_for_this_is_found(bundle: Path) -> None:
    saved = save(bundle)
    found = find_engine(bundle, manifest(bundle), "model.onnx", HERE)
    assert found == saved and read_engine(bundle, found) == b"engine"


@pytest.mark.parametrize(
    ("others", "complaint"),
    [
        ({"graph_sha256": "0" * 64}, "was built from another graph of that name"),
        ({"library": "tensorrt-rtx"}, "was built by tensorrt-rtx 10.3.0.26"),
        ({"version": "10.3.0.30"}, "was built by tensorrt 10.3.0.30"),
        ({"compute_capabilities": ("8.6", "8.9")}, "was built for SM 8.6, 8.9"),
        ({"precision": "fp16"}, "was built for fp16"),
    ],
)
def test_every_part_of_the_key_counts(bundle: Path, others: dict[str, Any], complaint: str) -> None:
    save(bundle, **others)
    with pytest.raises(UserError) as error:
        find_engine(bundle, manifest(bundle), "model.onnx", HERE)
    assert complaint in str(error.value)
    assert "tensorrt 10.3.0.26 for SM 8.7 in int8" in str(error.value)
    assert f"eosfm-edge build {bundle}" in str(error.value)


def test_where_nothing_was_built_there_is_none(bundle: Path) -> None:
    assert read_index(bundle).engines == ()
    with pytest.raises(UserError, match=r"has no engine of model\.onnx that can run here\n"):
        find_engine(bundle, manifest(bundle), "model.onnx", HERE)


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damaged_engines_are_not_read(bundle: Path, damage: str) -> None:
    entry = save(bundle)
    if damage == "altered":
        (bundle / entry.file).write_bytes(b"enginf")
    else:
        (bundle / entry.file).unlink()
    with pytest.raises(CheckFailedError, match=damage):
        read_engine(bundle, entry)


def test_engines_for_several_devices_stand_side_by_side(bundle: Path) -> None:
    save(bundle, b"one")
    save(bundle, b"two", compute_capabilities=("8.9",))
    save(bundle, b"three", version="10.7.0.1")
    engines = {read_engine(bundle, entry) for entry in read_index(bundle).engines}
    assert engines == {b"one", b"two", b"three"}


def test_an_engine_takes_the_place_of_that_of_an_older_graph(bundle: Path) -> None:
    old = save(bundle, b"old")
    (bundle / "model.onnx").write_bytes(b"another graph")
    new = save(bundle, b"new")
    assert read_index(bundle).engines == (new,)
    assert not (bundle / old.file).exists()
    assert read_engine(bundle, new) == b"new"


def test_nothing_half_written_is_left(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save(bundle)

    def interrupted(self: Path, text: str) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(bundle, b"other", compute_capabilities=("8.9",))
    monkeypatch.undo()
    assert read_index(bundle).engines == (first,)
    save(bundle, b"third", compute_capabilities=("8.6",))
    files = {f"engines/{path.name}" for path in (bundle / "engines").iterdir()}
    assert files == {entry.file for entry in read_index(bundle).engines} | {"engines/engines.json"}


def test_a_damaged_list_says_so(bundle: Path) -> None:
    save(bundle)
    path = bundle / "engines" / "engines.json"
    content = json.loads(path.read_text())
    content["engines"][0]["file"] = "../../etc/passwd"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="must be a relative path inside"):
        read_index(bundle)
