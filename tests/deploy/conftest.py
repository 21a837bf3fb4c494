"""Deployments of tiny networks, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import eosfm_edge as ee
from eosfm_edge.api.verbs import deploy as verb
from eosfm_edge.deploying import road
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.native import timing
from eosfm_edge.pruning import promise

QUICK = Recipe(criterion="activation", ranking="uniform", distill=0)
OPTIONS: dict[str, Any] = {"tile": 64, "tiles": 12}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few ratios, a quick recipe and short timing; networks of random weights promise nothing."""
    monkeypatch.setattr(verb, "load_recipe", lambda name: QUICK)
    monkeypatch.setattr(road, "RATIOS", (0.0, 0.25, 0.5))
    monkeypatch.setattr(promise, "_DECIBELS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(timing, "_ROUNDS", 2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


def deploy(ensemble: Path, imagery: Path, output: Path, **options: Any) -> ee.DeployReport:
    """Deploy with small tiles."""
    chosen = ee.DeployOptions(**{"data": imagery, **OPTIONS, **options})
    return ee.deploy(ensemble, output, chosen)
