"""Hosts print what a bundle says: nothing of it can be an order to a terminal."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from eosfm_edge.native.binding import Model
from eosfm_edge.native.header import EosfmError

# A bell, clearing the screen, C1's CSI as UTF-8 and as a bare byte, DEL, a line of its own.
EVIL = b"\x07\x1b[2J\xc2\x9bA\x9bB\x7f\n"
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def replaced(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of a file by as many others."""
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_names_and_sentences_have_no_control_characters(
    specks: dict[str, Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(specks["fp32"], tmp_path / "b"))
    backbone = b"convnextv2_speck"
    file = bundle / "specialists" / "s0.gguf"
    replaced(file, backbone, EVIL.ljust(len(backbone), b"!"))
    with Model(bundle) as model:
        found = model.specialist(0).backbone.decode()  # UTF-8 it is in any case
        assert not CONTROL.search(found)
        assert "?[2J" in found and found.endswith("!")
    chain = bundle / "chain.gguf"
    replaced(chain, b"specialists/s1.gguf", b"specialists/\x1b[2J.gf")
    with pytest.raises(EosfmError) as error:
        Model(bundle)
    assert "specialists/?[2J.gf" in str(error.value)
    assert not CONTROL.search(str(error.value).replace("\n", ""))


def test_letters_of_all_scripts_stay(specks: dict[str, Path], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(specks["fp32"], tmp_path / "b"))
    text = "Ωé漢🛰\u00a0".encode()
    replaced(bundle / "specialists" / "s0.gguf", b"convnextv2_speck", text.ljust(16, b"!"))
    with Model(bundle) as model:
        assert model.specialist(0).backbone == text.ljust(16, b"!")
