"""Wheels and the Debian package: what is in them, and a program that is built against them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from support.programs import ISAS, ROOT, RUNTIME, run

PROGRAM = RUNTIME / "examples" / "verify.c"
CMAKE_PROJECT = f"""
cmake_minimum_required(VERSION 3.20)
project(user C)
find_package(eosfm 0.1 REQUIRED)
add_executable(verify {PROGRAM})
target_link_libraries(verify eosfm::shared)
"""
# What the interpreter of a stranger's environment sees: the wheel, and nothing of this checkout.
ASK = """
import eosfm_edge as ee
from eosfm_edge.native.engines import known_engines
print(ee.__file__, ee.get_include(), known_engines()[0].isa, sep="\\n")
"""

pytestmark = pytest.mark.cross


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, ROOT / "packaging" / "wheels.py", folder,
         "--target", "glibc-x86_64"])  # fmt: skip
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def native(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of headers and libraries in the wheel, installed where nothing else is."""
    place = tmp_path_factory.mktemp("installed")
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={place}", wheel]
    )
    # Dependencies are those of this environment; -S leaves out its editable install.
    where = {"PYTHONPATH": f"{place}:{sysconfig.get_path('purelib')}"}
    script = tmp_path_factory.mktemp("script") / "ask.py"  # with -c this folder would come first
    script.write_text(ASK)
    file, include, isa = run([sys.executable, "-S", script], where).splitlines()
    assert Path(file).parent == place / "eosfm_edge"
    assert Path(include) == place / "eosfm_edge" / "native" / "include"
    assert (
        isa == ISAS[0]
    )  # Zig's library finds the processor's best, as this machine's compiler's does
    return Path(include).parent


def test_a_wheel_is_for_every_python_of_its_platform(wheel: Path) -> None:
    platforms = re.fullmatch(r"eosfm_edge-[\d.]+-py3-none-([\w.]+)\.whl", wheel.name)
    assert platforms
    oldest = re.search(r"manylinux_2_(\d+)_x86_64", platforms[1])
    assert oldest and int(oldest[1]) <= 28
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"eosfm_edge/native/{name}" for name in (
        "include/eosfm.h", "include/eosfm.hpp", "lib/libeosfm.so", "lib/libeosfm_onnxruntime.so",
        "lib/libeosfm_cuda.so", "lib/pkgconfig/libeosfm.pc", "lib/cmake/eosfm/eosfm-config.cmake",
    )} <= names  # fmt: skip
    assert not any("zstandard" in name or name.endswith((".cc", ".a")) for name in names if
                   "/source/" not in name)  # fmt: skip


def test_pkg_config_finds_the_wheel_s_library(
    native: Path, specks: dict[str, Path], tmp_path: Path
) -> None:
    where = {"PKG_CONFIG_PATH": str(native / "lib" / "pkgconfig")}
    flags = run(["pkg-config", "--cflags", "--libs", "libeosfm"], where).split()
    run(["cc", "-std=c99", PROGRAM, "-o", tmp_path / "verify", *flags])
    assert_verifies(tmp_path / "verify", native / "lib", specks["int8"])


def test_cmake_finds_the_wheel_s_library(
    native: Path, specks: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_PROJECT)
    run(["cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={native}"])
    run(["cmake", "--build", tmp_path / "build"])
    assert_verifies(tmp_path / "build" / "verify", native / "lib", specks["fp32"])


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb")
def test_a_debian_package_has_library_and_headers(specks: dict[str, Path], tmp_path: Path) -> None:
    build = tmp_path / "build"
    run(["cmake", "-S", RUNTIME, "-B", build])
    run(["cmake", "--build", build, "--parallel", "2"])
    done = subprocess.run(["cpack", "-G", "DEB"], cwd=build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = build.glob("libeosfm_*.deb")
    fields = run(["dpkg-deb", "-f", package])
    assert "Package: libeosfm\n" in fields and "libc6" in fields
    run(["dpkg-deb", "-x", package, tmp_path / "root"])
    (library,) = (tmp_path / "root" / "usr").rglob("libeosfm.so")
    include = tmp_path / "root" / "usr" / "include"
    run(["cc", "-std=c99", PROGRAM, "-o", tmp_path / "verify", f"-I{include}",
         f"-L{library.parent}", "-leosfm"])  # fmt: skip
    assert_verifies(tmp_path / "verify", library.parent, specks["fp32"])
    # The program has the library in it: it runs where nothing else of the package is.
    said = run([tmp_path / "root" / "usr" / "bin" / "eosfm", "verify", specks["fp32"]])
    assert said.count("known answer, level") == 4


def assert_verifies(program: Path, libraries: Path, bundle: Path) -> None:
    said = run([program, bundle], {"LD_LIBRARY_PATH": str(libraries)})
    assert "(native, " in said
