"""Detect this machine and the target that fits it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from eosfm_edge.device.gpu import first_gpu
from eosfm_edge.engines.cuda import Gpu
from eosfm_edge.engines.library import Library, load_library
from eosfm_edge.errors import UserError
from eosfm_edge.formats.target import Profile, TensorRt
from eosfm_edge.targets.registry import find_target

# A board's model, by the words that its device tree has of it.
_BOARDS = {
    "orin nano": "jetson-orin-nano",
    "orin nx": "jetson-orin-nx",
    "agx orin": "jetson-agx-orin",
    "xavier": "jetson-xavier",
    "thor": "jetson-thor",
    "raspberry pi 5": "raspberry-pi-5",
}


@dataclass(frozen=True)
class Machine:
    """A machine as it was found.

    Attributes:
        architecture: of the CPU.
        glibc: its version.
        flags: of the CPU, as Linux names them.
        board: its model, where it has a device tree.
        l4t: of a Jetson: the release of its Linux, as ``36.4``.
        gpu: the first, or none; ``no_gpu`` says why.
        tensorrt: libraries that are installed, TensorRT before TensorRT-RTX.
    """

    architecture: str
    glibc: str
    flags: frozenset[str] = frozenset()
    board: str | None = None
    l4t: str | None = None
    gpu: Gpu | None = None
    no_gpu: str = ""
    tensorrt: tuple[Library, ...] = ()

    def target(self) -> tuple[Profile, str]:
        """Return the profile that fits best, and why."""
        board = (self.board or "").lower()
        for words, name in _BOARDS.items():
            if words in board:
                return find_target(name), f"the device tree says {self.board}"
        for library in self.tensorrt:
            profile = find_target(
                "desktop-tensorrt" if library.name == "tensorrt" else "desktop-rtx"
            )
            assert profile.gpu is not None
            if self.gpu and self.gpu.compute_capability in profile.gpu.compute_capabilities:
                return profile, f"there are {self.gpu.name} and {library}"
        return find_target("cpu"), "there is no GPU with a TensorRT for it"


def detect(root: Path = Path("/")) -> Machine:
    """Look at this machine; ``root`` is where its files are."""
    gpu, no_gpu = _gpu()
    return Machine(
        architecture=platform.machine(),
        glibc=platform.libc_ver()[1],
        flags=_flags(root),
        board=_text(root / "proc/device-tree/model"),
        l4t=_l4t(root),
        gpu=gpu,
        no_gpu=no_gpu,
        tensorrt=tuple(_libraries()),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None


def _flags(root: Path) -> frozenset[str]:
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", _text(root / "proc/cpuinfo") or "", re.M)
    return frozenset(found[1].split()) if found else frozenset()


def _l4t(root: Path) -> str | None:
    """Read ``# R36 (release), REVISION: 4.3, ...``."""
    release = _text(root / "etc/nv_tegra_release") or ""
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+)", release)
    return f"{found[1]}.{found[2]}" if found else None


def _gpu() -> tuple[Gpu | None, str]:
    """Return the GPU, or why there is none."""
    try:
        return first_gpu(), ""
    except UserError as error:
        return None, error.found


def _libraries() -> list[Library]:
    found = []
    names: tuple[TensorRt, ...] = ("tensorrt", "tensorrt-rtx")
    for name in names:
        try:
            found.append(load_library(name))
        except UserError:
            continue
    return found
