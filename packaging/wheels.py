"""Build the wheels of all platforms, on one x86-64 machine: ``python packaging/wheels.py dist``.

The native part is compiled by Zig, which links for glibc 2.28 or for musl; auditwheel looks which
symbols it wants and names the wheel by the oldest platform that has them. A wheel is for every
Python 3.
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
# What Zig compiles for, by libc and processor.
TARGETS = {
    "glibc-x86_64": "x86_64-linux-gnu.2.28",
    "glibc-aarch64": "aarch64-linux-gnu.2.28",
    "musl-x86_64": "x86_64-linux-musl",
    "musl-aarch64": "aarch64-linux-musl",
}
INSTALL = "pip install '.[wheels]'"


def call(*command: object, **environment: str) -> None:
    """Run a program, or one of this interpreter's environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [str(part) for part in command], check=True, env={**os.environ, "PATH": path, **environment}
    )


def compile_kernels(folder: Path) -> None:
    """Compile the CUDA engine's kernels for all GPUs; each version of NVRTC has some of them."""
    found = []
    for major in (12, 13):
        places = (Path(place).glob(f"nvidia/*/lib/libnvrtc.so.{major}") for place in sys.path)
        library = next((path for place in places for path in sorted(place)), None)
        if library is None:
            sys.exit(f"error: there is no NVRTC of CUDA {major}\n  fix:      {INSTALL}")
        found.append(library)
    call(sys.executable, ROOT / "runtime" / "backends" / "cuda" / "make_code.py", folder, *found)


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


def build_wheel(target: str, kernels: Path, folder: Path) -> None:
    """Build the wheel of a target into a folder."""
    processor = target.partition("-")[0]
    compiler = importlib.util.find_spec("ziglang")
    if compiler is None or compiler.origin is None:
        sys.exit(f"error: there is no Zig\n  fix:      {INSTALL}")
    defines = {
        "CMAKE_TOOLCHAIN_FILE": ROOT / "runtime" / "cmake" / "zig.cmake",
        "EOSFM_ZIG": Path(compiler.origin).with_name("zig"),
        "EOSFM_ZIG_TARGET": target,
        "EOSFM_CUDA_CODE": kernels,
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
            sys.executable, "-m", "auditwheel", "repair", "--only-plat",
            f"--wheel-dir={folder}", built,
        )  # fmt: skip


def main() -> None:
    """Build the wheels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the wheels go")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for old in arguments.folder.glob("eosfm_edge-*.whl"):
        old.unlink()
    with tempfile.TemporaryDirectory() as kernels:
        compile_kernels(Path(kernels))
        for name in arguments.target or TARGETS:
            build_wheel(TARGETS[name], Path(kernels), arguments.folder)
    for wheel in sorted(arguments.folder.iterdir()):
        print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
