"""The folder ``device/`` of a bundle: a program and libeosfm for its CPU, a service, a page."""

from __future__ import annotations

import shutil
from pathlib import Path

from eosfm_edge.device.cross import (
    LIBRARIES,
    LIBRARY_NAME,
    build_libraries,
    build_program,
    sources,
)
from eosfm_edge.device.readme import readme
from eosfm_edge.device.service import UNIT_NAME, service
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.bundle import Purpose
from eosfm_edge.formats.target import Profile

# Of a board that says nothing else: Debian 11 and Ubuntu 20.04 have it.
_OLDEST_GLIBC = "2.31"
_EXAMPLES = ("run_tile.c", "verify.c")


def write_device_package(folder: Path, profile: Profile, bundle: str, purpose: Purpose) -> None:
    """Write what the device of a profile needs besides the model.

    Args:
        folder: to be made.
        profile: of a device with a 64-bit ARM CPU.
        bundle: its name: ``six.eosfm``.
        purpose: who is to compute.

    Raises:
        UserError: libeosfm or the program cannot be cross-built here.
    """
    glibc = oldest_glibc(profile)
    for name in ("lib", "include", "examples"):
        (folder / name).mkdir(parents=True)
    # ONNX Runtime has nothing to compute from in a bundle for native.
    wanted = (LIBRARY_NAME,) if purpose == "native" else LIBRARIES
    build_libraries(folder / "lib", glibc, wanted)
    if purpose != "onnx":  # linked statically, it loads no other engine than its own
        (folder / "bin").mkdir()
        build_program(folder / "bin")
    shutil.copyfile(sources() / "include" / "eosfm.h", folder / "include" / "eosfm.h")
    for name in _EXAMPLES:
        shutil.copyfile(sources() / "examples" / name, folder / "examples" / name)
    (folder / "README.md").write_text(
        readme(profile, bundle, purpose, glibc, sha256_file(folder / "lib" / LIBRARY_NAME))
    )
    (folder / UNIT_NAME).write_text(service(profile, bundle, purpose))


def oldest_glibc(profile: Profile) -> str:
    """Return the glibc that libeosfm is linked for: that of the oldest system."""
    known = [system.glibc for system in profile.systems if system.glibc]
    return min(known, key=lambda v: [int(n) for n in v.split(".")], default=_OLDEST_GLIBC)
