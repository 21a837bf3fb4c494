"""Build the wheels of all platforms, on one x86-64 machine: ``python packaging/wheels.py dist``.

The native part is compiled by Zig, which links for the oldest glibc that a platform promises, or
for musl; auditwheel checks that promise and names the wheel. A wheel is for every Python 3.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# By the platform that auditwheel knows, what Zig compiles for. https://peps.python.org/pep-0600/,
# https://peps.python.org/pep-0656/: musl 1.2 is Alpine's since 3.13.
PLATFORMS = {
    "manylinux_2_28_x86_64": "x86_64-linux-gnu.2.28",
    "manylinux_2_28_aarch64": "aarch64-linux-gnu.2.28",
    "musllinux_1_2_x86_64": "x86_64-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-linux-musl",
}
INSTALL = "pip install '.[wheels]'"


def call(*command: object, **environment: str) -> None:
    """Run a program, or one of this interpreter's environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [str(part) for part in command], check=True, env={**os.environ, "PATH": path, **environment}
    )


def nvrtc() -> str:
    """Return CUDA's compilers, of which each version has GPUs that the other lacks."""
    found = []
    for major in (12, 13):
        places = (Path(place).glob(f"nvidia/*/lib/libnvrtc.so.{major}") for place in sys.path)
        library = next((path for place in places for path in sorted(place)), None)
        if library is None:
            sys.exit(f"error: there is no NVRTC of CUDA {major}\n  fix:      {INSTALL}")
        found.append(str(library))
    return ";".join(found)


def name_musl(wheel: Path, libc: str) -> None:
    """Have a wheel's libraries ask for musl by the name that it has on Alpine, not by ``libc.so``.

    musl's loader takes both for itself; auditwheel knows it by that name only.
    """
    with tempfile.TemporaryDirectory() as scratch:
        call(sys.executable, "-m", "wheel", "unpack", f"--dest={scratch}", wheel)
        (folder,) = Path(scratch).iterdir()
        for library in folder.rglob("*.so"):
            call("patchelf", "--replace-needed", "libc.so", libc, library)
        call(sys.executable, "-m", "wheel", "pack", f"--dest-dir={wheel.parent}", folder)


def build_wheel(platform: str, folder: Path) -> Path:
    """Build the wheel of a platform into a folder, and return it."""
    target = PLATFORMS[platform]
    processor = target.partition("-")[0]
    compiler = importlib.util.find_spec("ziglang")
    if compiler is None or compiler.origin is None:
        sys.exit(f"error: there is no Zig\n  fix:      {INSTALL}")
    defines = {
        "CMAKE_TOOLCHAIN_FILE": ROOT / "runtime" / "cmake" / "zig.cmake",
        "EOSFM_ZIG": Path(compiler.origin).with_name("zig"),
        "EOSFM_ZIG_TARGET": target,
        "EOSFM_NVRTC": nvrtc(),
        "EOSFM_CUDA_CODE": ROOT / "build" / "cuda_code",
        # Nothing of a library says where it was compiled.
        "CMAKE_CXX_FLAGS": f"-ffile-prefix-map={ROOT}=.",
        "CMAKE_SHARED_LINKER_FLAGS": "-s",
        "CMAKE_MODULE_LINKER_FLAGS": "-s",
    }
    settings = [f"--config-settings=cmake.define.{key}={value}" for key, value in defines.items()]
    with tempfile.TemporaryDirectory() as scratch:
        # What builds is this machine's: pip would take it, too, for the platform of the wheel.
        call(
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
            *settings, f"--wheel-dir={scratch}", ROOT, _PYTHON_HOST_PLATFORM=f"linux-{processor}",
        )  # fmt: skip
        (built,) = Path(scratch).glob("*.whl")
        if target.endswith("musl"):
            name_musl(built, f"libc.musl-{processor}.so.1")
        call(
            sys.executable, "-m", "auditwheel", "repair", f"--plat={platform}", "--only-plat",
            f"--wheel-dir={folder}", built,
        )  # fmt: skip
    (wheel,) = folder.glob(f"eosfm_edge-*-{platform}.whl")  # one version: main cleared the folder
    return wheel


def main() -> None:
    """Build the wheels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheels go")
    parser.add_argument("--platform", action="append", choices=list(PLATFORMS), help="default: all")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for old in arguments.folder.glob("eosfm_edge-*.whl"):
        old.unlink()
    for platform in arguments.platform or PLATFORMS:
        wheel = build_wheel(platform, arguments.folder)
        print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
