"""Detection of a machine, by the files that such machines have."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command import inside

from eosfm_edge.device import detect
from eosfm_edge.device.detect import Machine
from eosfm_edge.engines.cuda import Gpu
from eosfm_edge.engines.library import Library
from eosfm_edge.errors import UserError

BOARDS = {
    "NVIDIA Jetson Orin Nano Developer Kit": "jetson-orin-nano",
    "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super": "jetson-orin-nx",
    "NVIDIA Jetson AGX Orin Developer Kit": "jetson-agx-orin",
    "NVIDIA Jetson AGX Thor Developer Kit": "jetson-thor",
    "NVIDIA Jetson Xavier NX Developer Kit": "jetson-xavier",
    "Raspberry Pi 5 Model B Rev 1.0": "raspberry-pi-5",
}
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Gpu:
        raise UserError("none")

    monkeypatch.setattr(detect, "first_gpu", none)
    monkeypatch.setattr(detect, "_libraries", list)


@pytest.mark.parametrize(("model", "target"), BOARDS.items())
def test_boards_are_known_by_their_device_tree(
    model: str, target: str, tmp_path: Path, no_gpu: None
) -> None:
    for name, content in {
        "proc/device-tree/model": f"{model}\0",
        "etc/nv_tegra_release": RELEASE,
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    machine = detect.detect(tmp_path)
    assert (machine.board, machine.l4t) == (model, "36.4")
    assert machine.flags == {"fp", "asimd", "asimddp"}
    profile, why = machine.target()
    assert profile.name == target and model in why


def test_a_machine_with_nothing_is_a_cpu(tmp_path: Path, no_gpu: None) -> None:
    machine = detect.detect(tmp_path)
    assert machine.board is machine.l4t is machine.gpu is None
    assert machine.target()[0].name == "cpu"


def gpu(capability: str) -> Gpu:
    return Gpu("A GPU", capability, 1 << 33, "13.0")


TENSORRT = Library("tensorrt", None, "10.13.0")
RTX = Library("tensorrt-rtx", None, "1.7.1")


@pytest.mark.parametrize(
    ("capability", "libraries", "target"),
    [
        ("8.9", (RTX,), "desktop-rtx"),
        ("8.9", (TENSORRT, RTX), "desktop-tensorrt"),
        ("9.0", (RTX,), "cpu"),
        ("9.0", (RTX, TENSORRT), "desktop-tensorrt"),
        ("8.9", (), "cpu"),
    ],
)
def test_a_gpu_counts_with_a_library_for_it(
    capability: str, libraries: tuple[Library, ...], target: str
) -> None:
    machine = Machine("x86_64", "2.36", gpu=gpu(capability), tensorrt=libraries)
    assert machine.target()[0].name == target


def test_the_list_has_all(capsys: pytest.CaptureFixture[str]) -> None:
    inside("targets", "list")
    out = capsys.readouterr().out
    assert all(name in out for name in ("jetson-thor", "desktop-rtx", "jetson is jetson-orin-nano"))


def test_a_profile_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    inside("targets", "show", "jetson")
    assert "jetson is jetson-orin-nano" in (shown := capsys.readouterr().out)
    assert "SM 8.7" in shown and "never run on a real device" in " ".join(shown.split())
    inside("targets", "show", "jetson", "--json")
    profile = detect.find_target("jetson-orin-nano")
    assert type(profile).model_validate_json(capsys.readouterr().out) == profile
