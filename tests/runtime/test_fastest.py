"""``--backend auto`` takes the fastest backend that gives the known answer, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import run

import eosfm_edge as ee
from eosfm_edge.errors import BackendWarning, CheckFailedError
from eosfm_edge.formats.bundle import Manifest, read_manifest
from eosfm_edge.runtime import fastest


def choose(bundle: Path) -> tuple[str, list[str]]:
    told: list[str] = []
    return fastest.fastest_backend(bundle, read_manifest(bundle), told.append), told


def times(monkeypatch: pytest.MonkeyPatch, known: dict[str, float | Exception]) -> None:
    def seconds(bundle: Path, manifest: Manifest, backend: str, threads: int) -> float:
        found = known.get(backend, ee.UserError(f"there is no {backend}"))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(fastest, "_seconds", seconds)


@pytest.mark.parametrize(
    ("known", "chosen"),
    [
        ({"native": 2.0, "onnxruntime": 1.0}, "onnxruntime"),
        ({"native": 1.0, "onnxruntime": 2.0}, "native"),
        ({"native": 1.0, "cuda": 0.1}, "cuda"),
        ({"onnxruntime": 1.0}, "onnxruntime"),
    ],
)
def test_the_fastest_is_chosen(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, float], chosen: str
) -> None:
    times(monkeypatch, {**known})
    assert choose(bundle) == (chosen, [])


def test_a_wrong_answer_is_told_and_not_chosen(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, {"native": 1.0, "cuda": CheckFailedError("it is wrong on cuda")})
    assert choose(bundle) == ("native", ["cuda is not used: it is wrong on cuda"])
    with pytest.warns(BackendWarning, match="it is wrong on cuda"):
        assert ee.verify(bundle, ee.VerifyOptions(backend="auto")).backend == "native"


def test_without_any_the_native_engine_s_reason_is_given(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times(monkeypatch, {})
    with pytest.raises(ee.UserError, match="there is no native"):
        choose(bundle)


def test_run_and_verify_take_it_from_what_is_here(
    bundle: Path, scene: Path, tmp_path: Path
) -> None:
    code, out, err = run("verify", bundle, "--backend", "auto", "--json")
    assert code == 0, err
    assert '"backend": "native"' in out or '"backend": "onnxruntime"' in out
    code, out, err = run("run", bundle, scene, "-o", tmp_path / "f", "--backend", "auto")
    assert code == 0, err
    code, out, err = run(
        "run", bundle, scene, "-o", tmp_path / "g", "--backend", "auto", "--grn", "scene"
    )
    assert code == 0, err
    assert "(native: " in out
