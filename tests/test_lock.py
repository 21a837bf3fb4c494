"""dev.lock: it has what development needs, in versions that pyproject.toml allows."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
tomllib: Any = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def needed(extra: str, project: dict[str, Any]) -> Iterator[Requirement]:
    """Give what an extra needs, with that of the extras that it names."""
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if requirement.name != project["name"]:
            yield requirement
        for other in requirement.extras if requirement.name == project["name"] else ():
            yield from needed(other, project)


def holds(requirement: Requirement, python: str) -> bool:
    environment = {**default_environment(), "python_version": python}
    environment["python_full_version"] = f"{python}.0"
    return requirement.marker is None or requirement.marker.evaluate(environment)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_what_pyproject_allows(python: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "dev.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.lstrip().startswith("#")]
    locked = {canonicalize_name(pin.name): pin for pin in pins if holds(pin, python)}
    wanted = [*map(Requirement, project["dependencies"]), *needed("dev", project)]
    assert len(wanted) > 20 and {"torch", "torchvision"} <= set(locked)
    for requirement in wanted:
        if not holds(requirement, python):
            continue
        pin = locked.get(canonicalize_name(requirement.name))
        assert pin is not None, f"make lock: dev.lock has no {requirement.name}"
        (version,) = (one.version for one in pin.specifier)
        assert requirement.specifier.contains(version), f"make lock: {requirement} and {pin}"


def test_what_ci_installs_is_what_the_lock_says() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    installs = [line for line in lines if "pip install" in line and "$(BIN)/" in line]
    locked = [line for line in installs if "[dev]" in line or "[calibrate,prune]" in line]
    assert len(locked) == 2 and all("--constraint dev.lock" in line for line in locked)


@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_both_ends_of_what_goes_with_torch_are_within_the_ranges(end: str) -> None:
    spec = importlib.util.spec_from_file_location("ends", ROOT / "packaging" / "torch_ends.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    needed = script.requirements()
    given = {one.name: one.specifier for one in map(Requirement, script.pins(end, needed))}
    assert set(given) == {"torch", "torchvision", "timm", "torch-pruning"}
    for name, specifier in given.items():
        allowed = needed[name].specifier
        assert {bound.operator for bound in allowed} == {">=", "<"}, "a range has two ends"
        if end == "highest":
            assert specifier == allowed
        else:
            (version,) = (one.version for one in specifier)
            assert allowed.contains(version) and f">={version}" in str(allowed)
