"""``eosfm-edge verify``: every way in which a bundle is no longer what was exported."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.command import run

from eosfm_edge.bundle.digests import file_entries
from eosfm_edge.bundle.known_answer import read_known_answer
from eosfm_edge.errors import CheckFailedError, ExitCode, UserError
from eosfm_edge.formats.backends import CPU_BACKENDS
from eosfm_edge.formats.bundle import CHAIN_NAME, MODEL_NAME, read_manifest
from eosfm_edge.runtime.verify import verify_bundle

LEVEL_NAMES = ["level1", "level2", "level3", "level4"]

on_every_backend = pytest.mark.parametrize("backend", CPU_BACKENDS)


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "small.eosfm")


def complaint(bundle: Path, backend: str = CPU_BACKENDS[0]) -> str:
    """Return the message of a check that must fail."""
    with pytest.raises(CheckFailedError) as error:
        verify_bundle(bundle, backend)
    assert error.value.exit_code == ExitCode.CHECK_FAILED
    return str(error.value)


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def seal(bundle: Path) -> None:
    """Make the manifest's digests those of the files, whatever is in them."""
    entries = {name: entry.model_dump() for name, entry in file_entries(bundle).items()}
    edit(bundle, lambda content: content.update(files=entries))


def expect_other_level(
    bundle: Path, index: int, change: Callable[[NDArray[np.float32]], None]
) -> None:
    """Change the known answer's expected level in its file, with a digest to match."""
    level = read_known_answer(bundle, read_manifest(bundle)).levels[index]
    before = level.tobytes()
    change(level)
    path = bundle / CHAIN_NAME
    content = path.read_bytes()
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, level.tobytes()))
    seal(bundle)


def raise_peak(share: float) -> Callable[[NDArray[np.float32]], None]:
    """Return what moves a level's largest value by a share of it."""

    def change(level: NDArray[np.float32]) -> None:
        level.flat[np.abs(level).argmax()] *= 1 + share

    return change


@on_every_backend
def test_a_bundle_as_it_was_exported_passes(bundle: Path, backend: str) -> None:
    result = verify_bundle(bundle, backend)
    assert result.backend == backend
    assert result.files == len([p for p in bundle.rglob("*") if p.is_file()]) - 1 == 5
    assert [level.level for level in result.levels] == LEVEL_NAMES
    assert max(level.relative for level in result.levels) <= result.tolerance == pytest.approx(1e-4)


def test_a_flipped_bit_in_any_file_is_found(copied: Path) -> None:
    names = read_manifest(copied).files
    for name in names:
        last = (copied / name).stat().st_size - 1
        for position in (0, last // 2, last):
            flip(copied / name, position)
            message = complaint(copied)
            flip(copied / name, position)
            assert f"{name} was altered" in message
            assert not [other for other in names if other != name and other in message]
    verify_bundle(copied, CPU_BACKENDS[0])


def test_a_file_that_is_gone_is_named(copied: Path) -> None:
    for name, entry in read_manifest(copied).files.items():
        if entry.role == "picture":
            continue  # no engine needs it
        (copied / name).rename(copied.parent / "aside")
        backend = "onnxruntime" if entry.role == "onnx" else "native"
        assert f"{name} is missing" in complaint(copied, backend)
        (copied.parent / "aside").rename(copied / name)
    verify_bundle(copied, CPU_BACKENDS[0])


def test_what_the_backend_does_not_read_may_be_missing(
    copied: Path, scene: Path, tmp_path: Path
) -> None:
    (copied / MODEL_NAME).unlink()
    result = verify_bundle(copied, "native")
    assert (result.absent, result.files) == ((MODEL_NAME,), 4)
    code, out, err = run("run", copied, scene, "-o", tmp_path / "out")
    assert code == ExitCode.DONE, err
    code, out, err = run("verify", copied)
    assert code == ExitCode.DONE, err
    assert "model.onnx is not here, and native does not need it" in out
    for arguments in (("verify", copied), ("run", copied, scene, "-o", tmp_path / "other")):
        code, _, err = run(*arguments, "--backend", "onnxruntime")
        assert code == ExitCode.CHECK_FAILED
        assert "model.onnx is missing" in err


@pytest.mark.parametrize(
    "name", ["notes.txt", ".hidden", "specialists/x.gguf", "more/manifest.json"]
)
def test_a_file_too_many_is_named(copied: Path, name: str) -> None:
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).touch()
    assert f"{name} is not in the manifest" in complaint(copied)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_what_is_no_file_is_named(copied: Path, tmp_path: Path, backend: str) -> None:
    (copied / "empty").mkdir()
    (copied / "engines").mkdir()
    (copied / "engines" / "evil.so").write_bytes(b"\x7fELF")
    (copied / CHAIN_NAME).unlink()
    os.mkfifo(copied / CHAIN_NAME)
    weights = copied / "specialists" / "encoder_1.gguf"
    weights.rename(tmp_path / "outside")
    weights.symlink_to(tmp_path / "outside")
    message = complaint(copied, backend)
    assert "empty is not in the manifest: it is a folder" in message
    assert "engines/evil.so is not in the manifest" in message
    assert "chain.gguf is a FIFO, expected a file" in message
    assert "specialists/encoder_1.gguf is a link, expected a file" in message


def test_a_manifest_that_is_a_fifo_is_refused(copied: Path) -> None:
    (copied / "manifest.json").unlink()
    os.mkfifo(copied / "manifest.json")
    with pytest.raises(UserError, match=r"manifest\.json is a FIFO"):
        verify_bundle(copied, CPU_BACKENDS[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"name":', '"name": "other", "name":', "the field name is there twice"),
        ('"size": 96', '"size": 9' + "6" * 400, "a number has 401 digits|tile.size"),
        ('"macs": ', '"macs": ' + "1" * 400, "digits"),
    ],
)
def test_json_that_others_read_differently_is_refused(
    copied: Path, old: str, new: str, message: str
) -> None:
    path = copied / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    for verb in ("verify", "inspect"):
        code, _, err = run(verb, copied)
        assert code == ExitCode.WRONG_USE, err
        assert re.search(message, err)


def test_every_complaint_is_made_at_once(copied: Path) -> None:
    (copied / CHAIN_NAME).unlink()
    (copied / "notes.txt").touch()
    with (copied / MODEL_NAME).open("ab") as file:
        file.write(b"\0")
    message = complaint(copied)
    assert f"{CHAIN_NAME} is missing" in message
    assert "notes.txt is not in the manifest" in message
    size = (copied / MODEL_NAME).stat().st_size
    assert f"{MODEL_NAME} has {size} bytes, expected {size - 1}" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files[MODEL_NAME].update(sha256="0" * 64), "model.onnx was altered"),
        (lambda files: files[MODEL_NAME].update(size=1), "model.onnx has"),
        (lambda files: files.update(ghost=files[CHAIN_NAME]), "ghost is missing"),
        (lambda files: files.popitem(), r"specialists/encoder_2.gguf is not in the manifest"),
    ],
    ids=["digest", "size", "listed", "unlisted"],
)
def test_a_manifest_that_lists_other_files_is_found(
    copied: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copied, lambda content: change(content["files"]))
    assert message in complaint(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["files"].pop(MODEL_NAME), "does not list model.onnx"),
        (lambda content: content["files"].pop(CHAIN_NAME), "does not list chain.gguf"),
        (lambda content: content["files"].update({"../x": content["files"][MODEL_NAME]}), "inside"),
        (lambda content: content.update(surprise=1), "surprise"),
        (lambda content: content["specialists"][0]["runs"].append([0, 1, 13]), "beyond the input"),
    ],
    ids=["no-model", "no-chain", "outside", "unknown-field", "no-such-band"],
)
def test_a_manifest_that_breaks_the_format_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(copied, change)
    with pytest.raises(UserError, match=r"manifest\.json is not valid") as error:
        verify_bundle(copied, CPU_BACKENDS[0])
    assert message in str(error.value)
    assert error.value.exit_code == ExitCode.WRONG_USE


@on_every_backend
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["levels"][3].update(channels=7), "levels.3.channels is 7"),
        (lambda content: content["tile"].update(size=64), "tile.size is 64"),
    ],
    ids=["channels", "tile"],
)
def test_a_manifest_of_other_shapes_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object], message: str, backend: str
) -> None:
    edit(copied, change)
    with pytest.raises(CheckFailedError, match=message):
        verify_bundle(copied, backend)


@on_every_backend
@pytest.mark.parametrize("index", range(4))
def test_a_wrong_answer_is_found_though_digests_agree(
    copied: Path, index: int, backend: str
) -> None:
    expect_other_level(copied, index, raise_peak(1e-2))
    message = complaint(copied, backend)
    assert f"gives a wrong answer on {backend}" in message
    assert re.findall(r"level (\d) is off the known answer by (0.0099|0.01) ", message)[0][
        0
    ] == str(index + 1)


@on_every_backend
def test_an_answer_within_the_tolerance_is_not_wrong(copied: Path, backend: str) -> None:
    expect_other_level(copied, 0, raise_peak(5e-5))
    result = verify_bundle(copied, backend)
    assert result.levels[0].relative == pytest.approx(5e-5, rel=0.2)


@on_every_backend
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_never_passes(
    copied: Path, value: float, backend: str
) -> None:
    expect_other_level(copied, 2, lambda level: level.fill(value))
    with pytest.raises(UserError, match="level3"):  # the native engine does not even open it
        verify_bundle(copied, backend)


def test_a_model_with_other_weights_is_found_though_digests_agree(copied: Path) -> None:
    model = onnx.load(copied / MODEL_NAME)
    (bias,) = [i for i in model.graph.initializer if i.name.endswith("encoders.1.stem_0.bias")]
    values = onnx.numpy_helper.to_array(bias)
    values = values + np.linspace(0, 1, len(values), dtype=np.float32)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, copied / MODEL_NAME)
    seal(copied)
    assert "gives a wrong answer on onnxruntime" in complaint(copied, "onnxruntime")
    verify_bundle(copied, "native")  # which does not read the model


def test_the_command_s_exit_codes(copied: Path) -> None:
    code, out, _ = run("verify", copied)
    assert code == ExitCode.DONE
    assert "5 files are as they were exported" in out
    assert all(name in out for name in LEVEL_NAMES)
    flip(copied / MODEL_NAME, 1000)
    code, out, err = run("verify", copied)
    assert code == ExitCode.CHECK_FAILED
    assert "model.onnx was altered" in err
    assert out == ""
    seal(copied)
    expect_other_level(copied, 3, raise_peak(0.5))
    code, _, err = run("verify", copied)
    assert code == ExitCode.CHECK_FAILED
    assert "level 4 is off the known answer" in err
