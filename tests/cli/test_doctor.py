"""``doctor`` says of each backend what using it then shows, and names what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command import run

import eosfm_edge as ee
from eosfm_edge import extras
from eosfm_edge.engines.cuda import Gpu
from eosfm_edge.formats.backends import BACKENDS, Backend
from eosfm_edge.runtime import doctor


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_is_usable_if_a_bundle_computes_on_it(bundle: Path, backend: Backend) -> None:
    part = next(part for part in ee.doctor().backends if part.name == backend)
    try:
        ee.verify(bundle, ee.VerifyOptions(backend=backend))
        computes = True
    except ee.UserError:
        computes = False
    assert part.usable == computes
    assert part.found


def test_the_page_and_the_json_say_the_same() -> None:
    code, page, _ = run("doctor")
    assert code == 0
    assert not any(line != line.rstrip() for line in page.splitlines())
    code, text, _ = run("doctor", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["target"] in page and found["no_gpu"] in page
    for part in (*found["backends"], *found["verbs"]):
        line = next(line for line in page.splitlines() if line.startswith(f"{part['name']}  "))
        assert part["found"] in line
        assert ("yes" in line) == part["usable"]
        assert part["remedy"] is None or f"fix: {part['remedy']}" in page


def test_what_is_not_installed_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    found = extras.find_spec
    monkeypatch.setattr(
        extras, "find_spec", lambda name: None if name == "torch_pruning" else found(name)
    )
    lacking = {part.name: part for part in ee.doctor().verbs}["prune"]
    assert not lacking.usable
    assert lacking.found == "torch_pruning not installed"
    assert lacking.remedy == extras.how_to_install("prune")


def test_a_gpu_is_not_enough_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu("A GPU", "8.7", 1 << 33, "12.6")
    monkeypatch.setattr("eosfm_edge.device.detect.first_gpu", lambda: gpu)
    found = ee.doctor()
    assert found.gpu == gpu and not found.no_gpu
    parts = {part.name: part for part in found.backends}
    assert "without CUDA" in parts["onnxruntime-cuda"].found
    monkeypatch.setattr(doctor, "known_engines", lambda: [*_all_here()])
    assert {part.name: part for part in ee.doctor().backends}["cuda"].usable


def _all_here() -> list[doctor.KnownEngine]:
    names = ("native", "cuda", "onnxruntime", "onnxruntime-cuda")
    return [doctor.KnownEngine(name, "", None) for name in names]
