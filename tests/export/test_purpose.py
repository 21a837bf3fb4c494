"""``export --for``: whose files a bundle has, by the target where nothing is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command import run
from support.tiers import thorough

import eosfm_edge as ee
from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import Purpose, read_manifest
from eosfm_edge.targets.feasibility import default_precision, default_purpose
from eosfm_edge.targets.registry import find_target, target_names

WITH_TENSORRT = {
    "desktop-rtx", "desktop-tensorrt",
    "jetson-agx-orin", "jetson-orin-nano", "jetson-orin-nx", "jetson-thor",
}  # fmt: skip


@pytest.mark.parametrize("target", target_names())
def test_a_target_has_graphs_by_default_only_if_tensorrt_computes_there(target: str) -> None:
    expected = "all" if target in WITH_TENSORRT else "native"
    assert default_purpose(find_target(target)) == expected


@pytest.mark.parametrize(
    ("given", "roles"),
    [
        ((), {"common", "native"}),
        (("--for", "native"), {"common", "native"}),
        (("--for", "onnx"), {"common", "onnx"}),
        (("--target", "desktop-tensorrt"), {"common", "native", "onnx"}),
        *thorough(
            (("--for", "all"), {"common", "native", "onnx"}),
            (("--target", "desktop-tensorrt", "--for", "native"), {"common", "native"}),
        ),
    ],
)
def test_the_command_exports_for_whom_it_is_told(
    specks: Path, imagery: Path, tmp_path: Path, given: tuple[str, ...], roles: set[str]
) -> None:
    bundle = tmp_path / "b.eosfm"
    arguments = ("--data", imagery, "--tile", 64, "--precision", "fp32", "-o", bundle)
    code, out, err = run("export", specks, *arguments, *given, "--json")
    assert code == 0, err
    manifest = json.loads(out)["manifest"]
    assert {entry["role"] for entry in manifest["files"].values()} == {*roles, "picture"}
    assert bool(manifest["graphs"]) == ("onnx" in roles)


def test_the_api_exports_for_native_by_default(specks: Path, imagery: Path, tmp_path: Path) -> None:
    options = ee.ExportOptions(data=imagery, tile=64, precision="fp32")
    manifest = ee.export(specks, tmp_path / "b.eosfm", options)
    assert manifest.graphs == () and manifest == read_manifest(tmp_path / "b.eosfm")
    wide = options.model_copy(update={"for_": "all"})
    assert ee.export(specks, tmp_path / "wide.eosfm", wide).graphs == ("model.onnx",)


@pytest.mark.parametrize(
    "given", [("--split",), ("--stack",), ("--batch", "4"), ("--sm", "8.6")], ids=lambda g: g[0]
)
def test_options_of_graphs_are_refused_without_graphs(
    specks: Path, imagery: Path, tmp_path: Path, given: tuple[str, ...]
) -> None:
    arguments = ("--data", imagery, "--tile", 64, "-o", tmp_path / "b.eosfm", *given)
    code, _, err = run("export", specks, *arguments)
    assert code == 2
    assert f"{given[0]} is of the ONNX graphs, and a bundle for native has none" in err
    assert "add --for all" in err
    assert not list(tmp_path.iterdir())


def test_split_graphs_are_exported_for_all(specks: Path, imagery: Path, tmp_path: Path) -> None:
    arguments = ("--data", imagery, "--tile", 64, "--precision", "fp32", "--split", "--for", "all")
    code, _, err = run("export", specks, *arguments, "-o", tmp_path / "b.eosfm")
    assert code == 0, err
    assert len(read_manifest(tmp_path / "b.eosfm").graphs) == 3


def test_auto_is_refused_for_graphs_alone(specks: Path, imagery: Path, tmp_path: Path) -> None:
    options = ee.ExportOptions(data=imagery, tile=64, precision="auto", for_="onnx")
    with pytest.raises(UserError, match="times the native engine"):
        ee.export(specks, tmp_path / "b.eosfm", options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("purpose", "calibrated", "precision"),
    [
        ("native", False, "auto"),
        ("all", True, "auto"),
        ("onnx", False, "fp32"),
        ("onnx", True, "int8"),
    ],
)
def test_this_machine_is_measured_only_where_libeosfm_computes(
    purpose: Purpose, calibrated: bool, precision: str
) -> None:
    assert default_precision(find_target("cpu"), purpose, calibrated=calibrated) == precision


def test_an_unknown_purpose_is_refused_alike_everywhere(
    specks: Path, imagery: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="for is 'gpu'"):
        ee.ExportOptions(data=imagery, for_="gpu")  # type: ignore[arg-type]
    arguments = ("--data", imagery, "-o", tmp_path / "b.eosfm", "--for", "gpu")
    code, _, err = run("export", specks, *arguments)
    assert code == 2 and "gpu" in err and "native" in err


def test_the_option_is_written_as_the_command_takes_it() -> None:
    assert ee.ExportOptions(for_="all").as_arguments() == ["--for", "all"]
    code, out, _ = run("export", "--help")
    assert code == 0 and "--for" in out and "--for-" not in out
