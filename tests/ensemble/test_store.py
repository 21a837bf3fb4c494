"""The ensemble directory: what is written, what is believed, and what a failure leaves."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from support.weights import S2_INPUT, encoder_state

from eosfm_edge.ensemble import store
from eosfm_edge.ensemble.importer import ImportOptions, import_ensemble
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.ensemble import read_spec

S2 = ImportOptions(input=S2_INPUT)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ensemble directory of one specialist, and beside it the file that it came from."""
    folder = tmp_path_factory.mktemp("one")
    torch.save(encoder_state(13), folder / "s2.pth")
    import_ensemble([folder / "s2.pth"], folder / "ensemble", S2)
    return folder / "ensemble"


@pytest.fixture
def copied(one: Path, tmp_path: Path) -> Path:
    return shutil.copytree(one, tmp_path / "ensemble")


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "ensemble.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_directory_holds_no_pickle(one: Path) -> None:
    files = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert files == ["ensemble.json", "ensemble.safetensors", "specialists/s2.safetensors"]


def test_each_specialist_says_where_it_came_from(one: Path) -> None:
    (specialist,) = read_spec(one).specialists
    assert specialist.provenance.source == "s2.pth"
    assert specialist.provenance.source_sha256 == sha256_file(one.parent / "s2.pth")
    assert specialist.weights_sha256 == sha256_file(one / "specialists" / "s2.safetensors")


def test_weights_that_were_exchanged_are_refused(copied: Path) -> None:
    weights = copied / "specialists" / "s2.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"s2\.safetensors is not the file that ensemble\.json"):
        load_ensemble(copied)


@pytest.mark.parametrize("name", ["ensemble.safetensors", "specialists/s2.safetensors"])
def test_a_file_that_is_gone_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(UserError, match=f"cannot read .*{name}"):
        load_ensemble(copied)


@pytest.mark.parametrize(
    "path", ["../s2.pth", "/etc/hostname", "specialists/../../s2.pth", "specialists/s2\0.pth"]
)
def test_weights_lie_inside_the_directory(copied: Path, path: str) -> None:
    edit(copied, lambda content: content["specialists"][0].update(weights=path))
    with pytest.raises(UserError, match=r"specialists\.0\.weights: .*relative path inside"):
        load_ensemble(copied)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a b", "x" * 65, "name\n"])
def test_a_name_is_fit_for_a_file(copied: Path, name: str) -> None:
    edit(copied, lambda content: content["specialists"][0].update(name=name))
    with pytest.raises(UserError, match=r"ensemble\.json is not valid: specialists\.0\.name"):
        read_spec(copied)


def test_specialists_have_names_of_their_own(copied: Path) -> None:
    edit(copied, lambda content: content["specialists"].append(content["specialists"][0]))
    with pytest.raises(UserError, match="specialists have the same name: s2, s2"):
        read_spec(copied)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\ufffd", "[" * 100_000])
def test_a_spec_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(UserError, match=r"ensemble\.json is not valid"):
        read_spec(tmp_path)


def test_a_disk_that_is_full_leaves_the_old_ensemble(
    copied: Path, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        import_ensemble([one.parent / "s2.pth"], copied, S2, overwrite=True)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    assert list(copied.parent.iterdir()) == [copied]


def test_a_disk_that_fills_up_while_tensors_are_written_is_told(one: Path, tmp_path: Path) -> None:
    # safetensors reports what the system says in an error of its own.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*full: File too large"):
            import_ensemble([one.parent / "s2.pth"], tmp_path / "full", S2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_space_is_named_where_it_is_lacking(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(UserError, match=r"cannot write .*full: No space left on device; .* free"):
        import_ensemble([one.parent / "s2.pth"], tmp_path / "full", S2)


def test_a_bundle_is_told_from_an_ensemble(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"is a bundle\n.*expected: an ensemble, which has ens"):
        read_spec(tmp_path)


def test_an_ensemble_from_before_adaptation_was_said_goes_by_name(copied: Path) -> None:
    edit(copied, lambda content: content.pop("adaptation"))
    assert read_spec(copied).adaptation == "name"


def test_overwriting_leaves_nothing_of_the_old_ensemble(copied: Path, tmp_path: Path) -> None:
    torch.save(encoder_state(13, seed=1), tmp_path / "other.pth")
    import_ensemble([tmp_path / "other.pth"], copied, S2, overwrite=True)
    assert [path.name for path in (copied / "specialists").iterdir()] == ["other.safetensors"]
    assert load_ensemble(copied).spec.specialists[0].name == "other"
