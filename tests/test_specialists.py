"""The committed specialists: what their cards claim, on the data where it is at hand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from safetensors import safe_open

ROOT = Path(__file__).parent.parent
SPECIALISTS = ROOT / "examples" / "specialists"
DATA = Path(os.environ.get("EOSFM_DATA", ROOT.parent / "shared" / "data"))
NAMES = [path.parent.name for path in sorted(SPECIALISTS.glob("*/model.safetensors"))]

with_data = pytest.mark.skipif(
    not (DATA / "README.md").exists(), reason=f"the data sets are not at {DATA} (set EOSFM_DATA)"
)


def card_figures(name: str) -> dict[str, tuple[float, ...]]:
    """Return accuracy, class mean and commonest class by test, from a model card."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$",
        (SPECIALISTS / name / "README.md").read_text(),
        re.MULTILINE,
    )
    return {test: tuple(float(figure) for figure in figures) for test, *figures in rows}


def test_there_are_six() -> None:
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_fp16_and_carry_their_terms(name: str) -> None:
    with safe_open(SPECIALISTS / name / "model.safetensors", framework="np") as file:
        assert {"bands", "licence", "citation"} <= set(file.metadata())
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118


def test_eurosat_is_at_least_90_percent() -> None:
    ((accuracy, *_),) = card_figures("eurosat_rgb").values()
    assert accuracy >= 90


@with_data
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_card_gives_the_measured_figures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SPECIALISTS))
    from evaluate import evaluate

    measured = {test: tuple(score.values()) for test, score in evaluate(name, DATA).items()}
    claimed = card_figures(name)
    assert measured.keys() == claimed.keys()
    for test, figures in measured.items():
        # Another processor may round a few pixels the other way.
        assert figures == pytest.approx(claimed[test], abs=0.3)
