"""The comparison of heads before and after compression."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.programs import ROOT

import eosfm_edge as ee


def test_a_bundle_beside_itself_moves_nothing(
    small: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delitem(sys.modules, "heads", raising=False)
    import heads

    options = ee.HeadOptions(
        labels=labelled / "mask.tif", data=labelled / "scene.tif", bands="B04,B03,B02",
        trust_values=True, cells=3000,
    )  # fmt: skip
    found = heads.measure([small, small], options)
    original, same = found["bundles"]
    assert original["moved"] == same["moved"] == 0
    assert original["kept"] == same["kept"] == same["fitted"]
    assert found["most_frequent"] < 0.6 < original["kept"]["accuracy"]
    assert found["judged"] <= found["cells"] == 3000
