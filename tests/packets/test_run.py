"""`run --packets` and `packets`: what is sent is what the GeoTIFFs have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.command import run
from support.scenes import scene_pixels, write_scene

from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.packets.packet import Encoding
from eosfm_edge.packets.read import Reader


def done(*arguments: object) -> str:
    """Run a command that succeeds; returns what it prints."""
    code, out, err = run(*arguments)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def holed_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = scene_pixels(13, 200, 300, seed=2)
    pixels[:, :, 150:] = 0
    pixels[:, 30:60, 20:90] = 0
    return write_scene(tmp_path_factory.mktemp("holed") / "scene.tif", pixels, S2_L1C)


@pytest.mark.parametrize("encoding", ["fp16", "int8"])
def test_packets_are_the_levels(
    bundle: Path, holed_scene: Path, tmp_path: Path, encoding: Encoding
) -> None:
    out = tmp_path / "out"
    done("run", bundle, holed_scene, "-o", out, "--packets", "9kB", "--packet-levels", "2,4",
        "--packet-encoding", encoding)  # fmt: skip
    data = (out / "features.eosp").read_bytes()
    reader, levels = Reader(), {}
    for number in (2, 4):
        with rasterio.open(out / f"level{number}.tif") as dataset:
            levels[number] = dataset.read()
    got = {number: np.full_like(level, np.nan) for number, level in levels.items()}
    for packet in reader.packets(data):
        c, h, w = packet.features.shape
        place = np.s_[
            packet.first_channel : packet.first_channel + c,
            packet.row : packet.row + h,
            packet.column : packet.column + w,
        ]
        got[packet.level][place] = packet.features
        manifest = (bundle / "manifest.json").read_bytes()
        assert packet.bundle == hashlib.sha256(manifest).digest()[:8]
        assert packet.level_channels == levels[packet.level].shape[0]
    assert reader.lost == 0
    for number, level in levels.items():
        if encoding == "fp16":
            np.testing.assert_array_equal(got[number], level.astype(np.float16))
        else:
            np.testing.assert_array_equal(np.isnan(got[number]), np.isnan(level))
            largest = np.nanmax(np.abs(level), axis=(1, 2), keepdims=True)
            assert np.nanmax(np.abs(got[number] - level) / largest) < 0.5 / 126


def test_a_file_is_summarised(bundle: Path, holed_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = done("run", bundle, holed_scene, "-o", out, "--packets", "20kB")
    assert "features.eosp" in said
    path = out / "features.eosp"
    summary = json.loads(done("packets", path, "--json"))
    assert summary["bytes"] == path.stat().st_size
    assert summary["lost"] == 0
    assert summary["levels"]["1"]["rows"] == 50
    assert "reaches over" in done("packets", path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    code, _, message = run("packets", path)
    assert code == 1
    assert "belong to no intact packet" in message
    path.write_bytes(b"nothing")
    code, _, message = run("packets", path)
    assert code == 2
    assert "has no intact packet" in message


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--packets", "12 apples"), "the size is '12 apples'"),
        (("--packets", "10"), "at least 256"),
        (("--packets", "1kB", "--packet-levels", "5"), "some of 1, 2, 3 and 4"),
        (("--packets", "1kB", "--packet-levels", "3,3"), "some of 1, 2, 3 and 4"),
    ],
)
def test_what_cannot_be_is_refused(
    bundle: Path, holed_scene: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    code, _, message = run("run", bundle, holed_scene, "-o", tmp_path / "out", *arguments)
    assert code == 2
    assert sentence in message
    assert not (tmp_path / "out").exists()
