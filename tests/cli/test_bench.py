"""``eosfm-edge bench``: what it prints and writes. How fast anything is, no test can say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command import run

from eosfm_edge.formats.bench import read_bench_report
from eosfm_edge.formats.bundle import read_manifest


def test_bench(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # each row of the table is a line
    code, out, err = run("bench", bundle, "--rounds", 2, "--threads", 1)
    assert code == 0, err
    header, *rows = [line.split() for line in out.splitlines() if line.strip()]
    assert header[:2] == ["backend", "ms"]
    assert " ".join(header).endswith("times as fast as onnxruntime load ms memory MB")
    assert [row[0] for row in rows] == ["native", "onnxruntime"]
    for row in rows:
        ms, ratio = float(row[1]), float(row[5])  # each is followed by "(LOW to HIGH)"
        assert ms > 0 and ratio > 0
    assert rows[1][5:9] == ["1.00", "(1.00", "to", "1.00)"]


def test_bench_prints_everything_measured_as_json(bundle: Path, tmp_path: Path) -> None:
    code, out, err = run("bench", bundle, "--rounds", 2, "--threads", 1, "--json")
    assert code == 0, err
    results = json.loads(out)
    assert set(results) == {
        "schema_version", "machine", "bundle", "threads", "macs", "timings",
    }  # fmt: skip
    (tmp_path / "times.json").write_text(out)
    assert read_bench_report(tmp_path / "times.json").timings[0].name == "native"
    assert results["macs"] == read_manifest(bundle).macs > 0
    assert (results["bundle"], results["threads"]) == (str(bundle), 1)
    assert {"processor", "cores", "system", "python", "eosfm_edge"} <= set(results["machine"])
    for timing in results["timings"]:
        assert set(timing) == {"name", "load_ms", "round_ms", "memory_mb"}
        assert len(timing["round_ms"]) == 2 and min(timing["round_ms"]) > 0
        assert timing["load_ms"] > 0


def test_one_backend_is_timed_alone(bundle: Path) -> None:
    code, out, _ = run("bench", bundle, "--backend", "native", "--rounds", 2)
    assert code == 0
    assert "times as fast as native" in out and "onnxruntime" not in out


def test_a_bundle_that_cannot_be_timed(bundle: Path, tmp_path: Path) -> None:
    code, out, err = run("bench", tmp_path, "--rounds", 2)
    assert (code, out) == (2, "")
    assert "manifest.json does not exist" in err
    damaged = tmp_path / "damaged.eosfm"
    damaged.mkdir()
    (damaged / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes())
    code, out, err = run("bench", damaged, "--backend", "native", "--rounds", 2)
    assert (code, out) == (2, "")
    assert "native cannot be timed" in err and "UserError" not in err


def test_fewer_than_two_rounds_have_no_spread(bundle: Path) -> None:
    assert run("bench", bundle, "--rounds", 1)[0] == 2
