"""Build libeosfm and the program `eosfm` for 64-bit ARM on any machine.

By Zig's C++ compiler, which brings a linker and the symbols of every glibc: a library that is
linked for an old one runs with all later ones. The program has musl in it, and runs with any.
https://ziglang.org/download/0.6.0/release-notes.html#glibc-Version
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.extras import how_to_install
from eosfm_edge.formats.target import Version

LIBRARY_NAME = "libeosfm.so.0"
BACKEND_NAME = "libeosfm_onnxruntime.so"  # ONNX Runtime itself is the board's
LIBRARIES = (LIBRARY_NAME, BACKEND_NAME)
PROGRAM_NAME = "eosfm"


def sources() -> Path:
    """Return the folder of libeosfm's sources: in the installed package, or in a checkout."""
    installed = Path(str(resources.files("eosfm_edge.device") / "source"))
    return installed if installed.is_dir() else Path(__file__).parents[2] / "runtime"


def require_tools() -> None:
    """Check that libeosfm and the program can be cross-built here.

    Raises:
        UserError: a tool is missing.
    """
    _tools()


def build_libraries(folder: Path, glibc: Version, names: Sequence[str] = LIBRARIES) -> None:
    """Build libeosfm and its backend for aarch64, stripped.

    The same sources give the same bytes, but for the first build with an empty cache of Zig's: that
    has memcpy, expf and four like them from Zig's own library instead of the board's.

    Args:
        folder: where ``libeosfm.so.0`` and ``libeosfm_onnxruntime.so`` go.
        glibc: the oldest that it must run with: ``2.31``.
        names: of those that are wanted.

    Raises:
        CheckFailedError: what was built wants a later glibc, or another library.
        UserError: a tool is missing, or the build fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        build = Path(scratch)
        _build(build, f"aarch64-linux-gnu.{glibc}", "eosfm_shared", "eosfm_onnxruntime")
        for name in names:
            require_runs_with(build / name, glibc)
        for name in names:
            shutil.copyfile(build / name, folder / name)


def build_program(folder: Path) -> None:
    """Build the program for aarch64, linked statically; the same sources give the same bytes.

    Args:
        folder: where ``eosfm`` goes.

    Raises:
        CheckFailedError: what was built wants a library.
        UserError: a tool is missing, or the build fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _build(Path(scratch), "aarch64-linux-musl", "eosfm_program")
        program = Path(scratch) / PROGRAM_NAME
        require_static(program)
        shutil.copyfile(program, folder / PROGRAM_NAME)
    (folder / PROGRAM_NAME).chmod(0o755)


def _build(build: Path, platform: str, *targets: str) -> None:
    """Build targets of libeosfm for one of Zig's platforms, stripped."""
    tools, source = _tools(), sources()
    # What a file remembers of where it was built would differ from machine to machine.
    nowhere = f"-ffile-prefix-map={source}=eosfm -ffile-prefix-map={build}=build"
    _run(
        tools.cmake, "-S", source, "-B", build, "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={tools.ninja}",
        f"-DCMAKE_TOOLCHAIN_FILE={source / 'cmake' / 'zig.cmake'}",
        f"-DEOSFM_ZIG={tools.zig}",
        f"-DEOSFM_ZIG_TARGET={platform}",
        f"-DCMAKE_C_FLAGS={nowhere}",
        f"-DCMAKE_CXX_FLAGS={nowhere}",
        "-DCMAKE_EXE_LINKER_FLAGS=-s",
        "-DCMAKE_SHARED_LINKER_FLAGS=-s",
        "-DCMAKE_MODULE_LINKER_FLAGS=-s",
    )  # fmt: skip
    _run(tools.cmake, "--build", build, "--target", *targets)


def require_static(program: Path) -> None:
    """Check that a program wants no library and no loader.

    Raises:
        CheckFailedError: it wants one.
    """
    from elftools.elf.elffile import ELFFile

    with program.open("rb") as file:
        kinds = {segment["p_type"] for segment in ELFFile(file).iter_segments()}
    if wanted := kinds & {"PT_INTERP", "PT_DYNAMIC"}:
        raise CheckFailedError(
            f"{program.name} was built, but has {' and '.join(sorted(wanted))}",
            expected="a program that is linked statically",
            remedy="report this: it is a bug in eosfm-edge",
        )


def require_runs_with(library: Path, glibc: Version) -> None:
    """Check that a library wants nothing but a libc that is no later than ``glibc``.

    Raises:
        CheckFailedError: the library wants more, or a later libc.
    """
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    with library.open("rb") as file:
        elf = ELFFile(file)
        dynamic: Any = elf.get_section_by_name(".dynamic")
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
        wanted = [
            version.name
            for section in elf.iter_sections()
            if isinstance(section, GNUVerNeedSection)
            for _, versions in section.iter_versions()
            for version in versions
        ]
    libc = ("libc.", "libm.", "libpthread.", "libdl.", "ld-linux")
    others = [name for name in needed if not name.startswith(libc)]
    later = [name for name in wanted if _numbers(name) > _numbers(glibc)]
    if others or later:
        raise CheckFailedError(
            f"libeosfm was built, but wants {', '.join([*others, *later])}",
            expected=f"nothing but glibc {glibc}",
            remedy="report this: it is a bug in eosfm-edge",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("GLIBC_").split("."))


def _tools() -> SimpleNamespace:
    """Find the tools that the extra ``cross`` installs."""
    found = importlib.util.find_spec("ziglang")
    zig = Path(str(found.origin)).parent / "zig" if found else None
    scripts = f"{sysconfig.get_path('scripts')}:{Path(sys.executable).parent}"
    cmake, ninja = (
        shutil.which(name, path=scripts) or shutil.which(name) for name in ("cmake", "ninja")
    )
    elf = importlib.util.find_spec("elftools")
    names = {"ziglang": zig, "cmake": cmake, "ninja": ninja, "pyelftools": elf}
    missing = [name for name, path in names.items() if path is None]
    if missing:
        raise UserError(
            f"libeosfm cannot be built for the target: there is no {' and no '.join(missing)}",
            remedy=how_to_install("cross"),
        )
    return SimpleNamespace(zig=zig, cmake=cmake, ninja=ninja)


def _run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        complaint = "\n    ".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise UserError(f"libeosfm could not be built for the target:\n    {complaint}")
