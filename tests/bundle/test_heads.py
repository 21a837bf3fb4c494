"""Files of heads from Python: what is written is read back, and damage is a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.heads import random_head

from eosfm_edge.bundle.heads import read_head, write_head
from eosfm_edge.bundle.known_answer import KnownAnswer
from eosfm_edge.errors import UserError
from eosfm_edge.native.gguf_writer import add_tensor, add_texts, add_uints, gguf_writer

CHANNELS = (8, 12, 16, 20)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    levels = tuple(
        rng.normal(size=(1, channels, 16 >> i, 16 >> i)).astype("f4")
        for i, channels in enumerate(CHANNELS)
    )
    path = tmp_path / "landuse.gguf"
    write_head(path, random_head(CHANNELS), KnownAnswer(np.zeros((1, 2, 64, 64), "f4"), levels))
    return path


def test_what_is_written_is_read_back(file: Path) -> None:
    wrote, read = random_head(CHANNELS), read_head(file)
    assert read.spec == wrote.spec
    assert np.array_equal(read.bias, wrote.bias)
    for number, weight in wrote.weights.items():
        assert np.array_equal(read.weights[number], weight)


def test_a_file_under_another_name_is_refused(file: Path) -> None:
    other = file.rename(file.with_name("water.gguf"))
    with pytest.raises(UserError, match=r"is the head landuse(.|\n)*landuse.gguf"):
        read_head(other)


@pytest.mark.parametrize("key", ["classes", "codes", "colours", "score", "levels"])
def test_a_number_where_an_array_is_expected_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "land.gguf"
    with gguf_writer(path, "eosfm-head") as writer:
        writer.add_string("general.name", "land")
        writer.add_string("eosfm.head.task", "classes")
        if key != "levels":
            add_uints(writer, "eosfm.head.levels", [1])
        if key != "classes":
            add_texts(writer, "eosfm.head.classes", ["a", "b"])
        if key != "codes":
            add_uints(writer, "eosfm.head.codes", [1, 2])
        if key != "colours":
            add_uints(writer, "eosfm.head.colours", [1, 2, 3, 4, 5, 6])
        writer.add_uint32(f"eosfm.head.{key}", 1)
        add_tensor(writer, "bias", np.zeros(2, "f4"))
        add_tensor(writer, "level1.weight", np.zeros((8, 2), "f4"))
    with pytest.raises(UserError, match=r"land.gguf is not valid"):
        read_head(path)


def test_damage_anywhere_is_a_refusal_or_harmless(file: Path) -> None:
    good = file.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(1500):
        bad = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            bad[rng.integers(min(len(bad), 1200))] = rng.integers(256)  # mostly the directory
        file.write_bytes(bad)
        try:
            read_head(file)
        except UserError:
            refused += 1
    assert refused > 500
