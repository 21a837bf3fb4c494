"""Ctrl-C, SIGTERM, and bugs: the documented exit code and nothing half-written."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from support.command import KNOWN, leftovers, run, start
from support.scenes import scene_pixels, write_scene
from support.tiers import thorough

from eosfm_edge.errors import ExitCode
from eosfm_edge.formats.bands import S2_L1C

SIGNALS = [
    (signal.SIGINT, ExitCode.INTERRUPTED, "interrupted"),
    (signal.SIGTERM, 143, "terminated"),
]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene that takes a second to run."""
    path = tmp_path_factory.mktemp("large") / "large.tif"
    return write_scene(path, scene_pixels(13, 1100, 1100), S2_L1C)


@pytest.mark.parametrize(("sent", "code", "word"), SIGNALS)
@pytest.mark.parametrize("verb", ["run", *thorough("export")])
def test_an_end_in_the_middle_leaves_nothing(
    verb: str, sent: signal.Signals, code: int, word: str, bundle: Path, ensemble: Path,
    large: Path, tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "outputs"
    out.mkdir()
    arguments = {
        "run": ("run", bundle, large, "-o", out / "f", "--overlap", "64"),
        "export": ("export", ensemble, "--scene", large, "-o", out / "b.eosfm", "--tile", "1024"),
    }
    process = start(arguments[verb], KNOWN if verb == "export" else "")
    while process.poll() is None and not leftovers(out):  # the scratch folder: work has begun
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"{word}; nothing was written" in err
    assert "Traceback" not in err
    assert leftovers(out) == []


def test_a_bug_is_called_one_and_keeps_its_traceback_to_itself(bundle: Path) -> None:
    prelude = (
        "import eosfm_edge.runtime.verify as v\n"
        "def broken(*_, **__): raise ZeroDivisionError('as if')\n"
        "v.verify_bundle = broken"
    )
    code, _, err = run("verify", bundle, prelude=prelude)
    assert code == ExitCode.BUG
    assert "internal error: ZeroDivisionError: as if" in err
    assert "this is a bug in eosfm-edge" in err


def test_a_reader_that_has_seen_enough_is_no_error(bundle: Path) -> None:
    process = start(("inspect", bundle, "--json"))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == ExitCode.DONE
