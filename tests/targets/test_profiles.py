"""The profiles that come with eosfm-edge, and a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eosfm_edge.errors import UserError
from eosfm_edge.formats.target import Profile
from eosfm_edge.targets.expectation import expected_time
from eosfm_edge.targets.feasibility import (
    Need,
    default_precision,
    require_capability,
    require_memory,
    require_precision,
)
from eosfm_edge.targets.registry import ALIASES, describe_choice, find_target, target_names

NAMES = target_names()
ASKED = {
    "cpu", "cpu-x86-64-v3", "cpu-arm64", "raspberry-pi-5", "jetson-xavier", "jetson-orin-nano",
    "jetson-orin-nx", "jetson-agx-orin", "jetson-thor", "desktop-rtx", "desktop-tensorrt",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_is_valid_and_named_after_its_file(name: str) -> None:
    profile = find_target(name)
    assert profile.name == name and profile.experience
    assert all(source.startswith("https://") for source in profile.sources.values())
    assert describe_choice(name, profile) is None


def test_all_devices_are_there() -> None:
    assert set(NAMES) == ASKED


@pytest.mark.parametrize("name", [name for name in NAMES if "orin" in name])
def test_orins_are_alike(name: str) -> None:
    profile = find_target(name)
    assert profile.gpu is not None and profile.gpu.compute_capabilities == ("8.7",)
    assert profile.gpu.shares_memory and "fp8" not in profile.precisions
    assert [s.tensorrt for s in profile.systems] == ["8.5", "8.6", "10.3", "10.3", "10.16"]
    # Dense int8 is twice fp16, which is eight times what the cores do in fp32.
    peaks = profile.peak_tops
    assert peaks["int8"] == pytest.approx(2 * peaks["fp16"], rel=0.01)
    assert peaks["fp16"] == pytest.approx(8 * peaks["fp32"], rel=0.01)


def test_profiles_are_ordered_as_they_say() -> None:
    for profile in map(find_target, NAMES):
        watts = [mode.watts for mode in profile.power_modes]
        assert watts == sorted(watts)
        glibcs = [[int(n) for n in s.glibc.split(".")] for s in profile.systems if s.glibc]
        assert glibcs == sorted(glibcs)
        if profile.gpu:
            capabilities = profile.gpu.compute_capabilities
            assert list(capabilities) == sorted(capabilities, key=float)


def test_an_alias_says_what_it_took() -> None:
    profile = find_target("jetson")
    assert profile.name == ALIASES["jetson"] == "jetson-orin-nano"
    assert describe_choice("jetson", profile) == "jetson is jetson-orin-nano: Jetson Orin Nano 8GB"


def test_a_name_that_is_nearly_right_is_proposed() -> None:
    with pytest.raises(UserError, match=r"no target 'jetson-orin-nan'(?s:.*)perhaps jetson-"):
        find_target("jetson-orin-nan")


@pytest.mark.parametrize(
    "name",
    ["jetson-nano", "jetson-tx2", "jetson-orin", "raspberry-pi-4", "raspberry-pi", "cpu-arm"],
)
def test_another_board_is_not_proposed(name: str) -> None:
    with pytest.raises(UserError, match=f"no target '{name}'") as error:
        find_target(name)
    assert "perhaps" not in str(error.value)
    assert "cpu-arm64" in str(error.value) and "docs/targets.md" in str(error.value)


OWN = {
    "name": "our-board",
    "summary": "A board of ours",
    "engine": "tensorrt",
    "gpu": {"name": "Ampere", "compute_capabilities": ["8.7"]},
    "precisions": ["fp32", "fp16"],
    "workspace_mb": 256,
    "experience": "flown",
    "sources": {"gpu": "https://example.org"},
}


def own(folder: Path, **changes: object) -> Profile:
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (OWN | changes).items() if v is not None}))
    return find_target(str(path))


def test_a_profile_of_ones_own_is_read(tmp_path: Path) -> None:
    assert own(tmp_path).name == "our-board"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"precisions": ["fp12"]}, "precisions"),
        ({"gpu": {"name": "x", "compute_capabilities": ["87"]}}, "compute_capabilities"),
        ({"gpu": None, "sources": None}, "engine tensorrt without gpu"),
        ({"workspace_mb": None}, "without gpu or workspace_mb"),
        ({"peak_tops": {"int8": 1}}, "int8 not among precisions"),
        ({"memory_mb": 4096}, "nothing is said of memory_mb"),
        ({"sources": {"gpu": "x", "gpus": "y"}}, "gpus is no field"),
        ({"watts": 3}, "watts"),
        ({"tile": 100}, "tile"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=r"board\.yaml is not a target's profile") as error:
        own(tmp_path, **changes)
    assert complaint in str(error.value)


# What cannot work


@pytest.mark.parametrize(
    ("target", "calibrated", "precision"),
    [
        ("cpu", False, "auto"),
        ("cpu", True, "auto"),
        ("raspberry-pi-5", False, "fp32"),
        ("raspberry-pi-5", True, "int8"),
        ("jetson-orin-nano", False, "fp16"),
        ("jetson-orin-nano", True, "int8"),
        ("jetson-xavier", False, "fp32"),
        ("desktop-rtx", False, "fp16"),
    ],
)
def test_a_precision_that_is_not_given_is_the_fastest_that_is_known_to_be_faithful(
    target: str, calibrated: bool, precision: str
) -> None:
    assert default_precision(find_target(target), "all", calibrated=calibrated) == precision


def test_fp8_on_orin_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"jetson-orin-nano \(SM 8\.7\) has no fp8\n"):
        require_precision(find_target("jetson-orin-nano"), "fp8")


def test_fp8_where_it_exists_is_not_exported() -> None:
    with pytest.raises(UserError, match="jetson-thor has fp8, but eosfm-edge does not export it"):
        require_precision(find_target("jetson-thor"), "fp8")


@given(st.integers(1, 1 << 32), st.integers(1, 1 << 32), st.integers(1, 64))
def test_a_batch_fits_or_the_largest_that_does_is_said(weights: int, tile: int, batch: int) -> None:
    profile = find_target("jetson-orin-nano")
    assert profile.memory_mb is not None
    room = profile.memory_mb << 20
    if weights + batch * tile <= room:
        require_memory(profile, Need(weights, tile, batch))
        return
    with pytest.raises(UserError) as error:
        require_memory(profile, Need(weights, tile, batch))
    largest = (room - weights) // tile
    if largest > 0:
        assert f"a batch of at most {largest}" in str(error.value)
        require_memory(profile, Need(weights, tile, largest))
    else:
        assert "smaller tiles" in str(error.value)


@pytest.mark.parametrize(
    ("target", "precision", "capability", "reason"),
    [
        ("desktop-rtx", "int8", "7.5", "gives no fp32 results of"),
        ("desktop-rtx", "bf16", "7.5", "has no bf16 units"),
        ("desktop-tensorrt", "bf16", "7.5", "has no bf16 units"),
        ("desktop-rtx", "fp16", "8.7", "is no GPU of desktop-rtx"),
        ("cpu", "fp32", "8.9", "is no GPU of cpu"),
    ],
)
def test_gpus_that_cannot_are_refused(
    target: str, precision: str, capability: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        require_capability(find_target(target), precision, capability)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_turing_has_what_it_has(precision: str) -> None:
    require_capability(find_target("desktop-rtx"), precision, "7.5")  # type: ignore[arg-type]


# What is expected


def test_the_bound_is_the_data_sheets() -> None:
    profile = find_target("jetson-orin-nano")
    found = expected_time(profile, "int8", macs=3_350_000_000, weights=1_020_000)
    assert found is not None
    assert found.compute_ms == pytest.approx(0.2)  # 6.7e9 operations at 33.5e12 a second
    assert found.memory_ms == pytest.approx(0.01)  # 1.02 MB at 102 GB a second
    assert found.milliseconds == found.compute_ms
    assert "at least 0.2 ms a tile" in found.summary and "not a measurement" in found.summary


def test_memory_may_be_the_bound() -> None:
    found = expected_time(find_target("jetson-orin-nano"), "int8", macs=1, weights=102_000_000)
    assert found is not None and found.milliseconds == pytest.approx(1.0)
    assert "memory" in found.summary


def test_nothing_is_expected_where_nothing_is_known() -> None:
    assert expected_time(find_target("jetson-thor"), "fp16", 1, 1) is None
