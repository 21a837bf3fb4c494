"""A bundle whose weights were damaged after its digests were made: who is blamed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gguf import flip

from eosfm_edge.errors import CheckFailedError
from eosfm_edge.formats.bundle import MANIFEST_NAME
from eosfm_edge.native.header import NOT_FINITE, EosfmError
from eosfm_edge.native.stream import Patch, Stream
from eosfm_edge.runtime.run import RunOptions, run_scene
from eosfm_edge.runtime.verify import verify_bundle


@pytest.fixture
def damaged(bundle: Path, tmp_path: Path) -> Path:
    """A bundle with one bit of one weight wrong, of which the digests know nothing."""
    copy = Path(shutil.copytree(bundle, tmp_path / "damaged.eosfm"))
    manifest = json.loads((copy / MANIFEST_NAME).read_text())
    name = next(name for name in manifest["files"] if name.startswith("specialists/"))
    flip(copy / name, "stages.0.blocks.0.fc1.bias", 0)
    manifest["files"][name]["sha256"] = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    return copy


def test_verify_finds_values_that_are_not_finite(damaged: Path) -> None:
    with pytest.raises(CheckFailedError, match="values that are not finite at level"):
        verify_bundle(damaged, "native")


@pytest.mark.parametrize("grn", ["tile", "scene"])
def test_run_blames_the_bundle(damaged: Path, scene: Path, tmp_path: Path, grn: str) -> None:
    with pytest.raises(CheckFailedError) as error:
        run_scene(damaged, scene, tmp_path / "out", RunOptions(grn=grn))  # type: ignore[arg-type]
    assert "the bundle is damaged: it does not give its known answer here" in str(error.value)
    assert "scene's values" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_run_blames_the_scene_where_the_bundle_is_right(
    bundle: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Iterator[Patch]:
        raise EosfmError(NOT_FINITE, "specialist s0 gives values that are not finite")
        yield

    monkeypatch.setattr(Stream, "patches", fail)
    with pytest.raises(CheckFailedError) as error:
        run_scene(bundle, scene, tmp_path / "out")
    assert "look at the scene's values there" in str(error.value)
