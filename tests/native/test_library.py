"""The installed library: its symbols, needs and size, and programs that are built against it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.programs import INSTALLED, RUNTIME, run

EXAMPLES = RUNTIME / "examples"

CMAKE_PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(user C CXX)
find_package(eosfm 0.1 REQUIRED)
add_executable(run_tile {examples}/run_tile.c)
target_link_libraries(run_tile eosfm::shared)
add_executable(two_contexts {examples}/two_contexts.cc)
target_link_libraries(two_contexts eosfm::static)
"""


@pytest.fixture(scope="module")
def installed(programs: Path) -> Path:
    """Libeosfm installed by CMake, as its page says."""
    shutil.rmtree(INSTALLED, ignore_errors=True)
    run(["cmake", "--install", programs.parent])
    return INSTALLED


@pytest.fixture(scope="module")
def library(installed: Path) -> Path:
    return next(installed.glob("lib*/**/libeosfm.so"))


def test_only_the_header_s_functions_are_exported(library: Path) -> None:
    lines = run(["nm", "-D", "--defined-only", library]).splitlines()
    exported = sorted(line.split()[-1] for line in lines)
    assert exported == (RUNTIME / "symbols.txt").read_text().split()
    header = (RUNTIME / "include" / "eosfm.h").read_text()
    declared = re.findall(r"EOSFM_API [^;(]*?(eosfm_\w+)\(", header)
    assert sorted(declared) == exported


PROTOTYPE = re.compile(
    r"(?:/\*((?:(?!\*/).)*)\*/\n)?EOSFM_API ([^;()]*?)(eosfm_\w+)\(([^;]*)\);", re.DOTALL
)
VERBS = {
    "create", "destroy", "open", "close", "describe", "plan", "get", "set", "run", "verify",
    "cancel", "resume", "push", "pull", "end", "reset", "find", "encode", "decode", "measure",
    "apply",
}  # fmt: skip


def prototypes() -> list[tuple[str, str, str, str]]:
    """Return comment, result, name and parameters of each function of the headers."""
    headers = sorted((RUNTIME / "include").glob("*.h"))
    found = [found for header in headers for found in PROTOTYPE.findall(header.read_text())]
    assert len(found) > 25
    return found


def test_functions_are_named_noun_and_verb() -> None:
    for _, _, name, parameters in prototypes():
        _, noun, verb, *_ = name.split("_")
        assert noun in ("library", "status", "model", "context", "head", "stream", "packet"), name
        assert verb in VERBS, name
        takes = re.match(r"(?:const )?eosfm_(\w+) \*", parameters)
        makes = re.search(rf"eosfm_{noun} \*\*?{noun}$", parameters)
        takes_it = takes is not None and takes[1] == noun
        assert noun in ("library", "status", "packet") or makes or takes_it, name


def statuses(comment: str) -> set[str]:
    """Return the statuses that a function's comment lists."""
    _, _, listed = comment.replace("\n *", "").partition("Status: ")
    return set(re.findall(r"EOSFM_\w+", listed))


def test_every_function_lists_its_statuses() -> None:
    header = (RUNTIME / "include" / "eosfm.h").read_text()
    known = set(
        re.findall(r"(EOSFM_\w+) = \d", header.split("typedef enum eosfm_status")[1].split("}")[0])
    )
    for comment, result, name, _ in prototypes():
        if result.split() == ["eosfm_status"]:
            assert {"EOSFM_OK"} < statuses(comment) <= known, name


# Passes a call on and ends the program if the status is none of those that the header lists.
CHECKED = """
eosfm_status __real_{name}({parameters});
eosfm_status __wrap_{name}({parameters}) {{
  static const eosfm_status listed[] = {{{listed}}};
  const eosfm_status status = __real_{name}({arguments});
  for (size_t i = 0; i < sizeof listed / sizeof *listed; i++) {{
    if (listed[i] == status) return status;
  }}
  fprintf(stderr, "{name} returns %d, which its comment does not list\\n", (int)status);
  abort();
}}
"""


@pytest.mark.parametrize("program", ["test_api", "test_misuse"])
def test_functions_return_no_other_status(
    programs: Path, specks: dict[str, Path], tmp_path: Path, program: str
) -> None:
    text, wrapped = "#include <eosfm.h>\n#include <stdio.h>\n#include <stdlib.h>\n", []
    for comment, result, name, parameters in prototypes():
        if result.split() != ["eosfm_status"] or name.startswith("eosfm_packet"):
            continue
        arguments = ", ".join(
            re.findall(r"(\w+)(?:\[\w*\])?$", parameter)[0] for parameter in parameters.split(",")
        )
        listed = ", ".join(sorted(statuses(comment)))
        text += CHECKED.format(name=name, parameters=parameters, arguments=arguments, listed=listed)
        wrapped.append(f"-Wl,--wrap={name}")
    (tmp_path / "checked.c").write_text(text)
    include = f"-I{RUNTIME / 'include'}"
    run(["cc", "-std=c99", "-c", tmp_path / "checked.c", "-o", tmp_path / "checked.o", include])
    compiled = programs / "CMakeFiles" / f"{program}.dir" / f"{program}.cc.o"
    run(
        ["c++", compiled, tmp_path / "checked.o", programs.parent / "libeosfm.a", "-pthread",
         "-ldl", *wrapped, "-o", tmp_path / program]
    )  # fmt: skip
    run([tmp_path / program, specks["fp32"]])


def test_it_needs_nothing_but_the_system(library: Path) -> None:
    dynamic = run(["readelf", "-dW", library])
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}
    assert re.search(r"SONAME.*\[libeosfm\.so\.0\]", dynamic)
    stack = next(line for line in run(["readelf", "-lW", library]).splitlines() if "STACK" in line)
    assert "RWE" not in stack


# What ends the process, writes where nobody asked, or needs a C++ library.
FORBIDDEN = re.compile(
    r"abort|_?exit|_Exit|quick_exit|raise|kill|__assert_fail|signal|sigaction|perror|psignal"
    r"|(__)?v?(f|d)?printf(_chk)?|f?puts|f?putc|putchar|fwrite|write"
    r"|__cxa_(throw|rethrow|guard_\w+|pure_virtual)|_Zn[aw]\w+|_Zd[al]\w+"
)


def test_the_program_needs_nothing_but_the_system(installed: Path) -> None:
    dynamic = run(["readelf", "-dW", installed / "bin" / "eosfm"])
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", dynamic))
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-x86-64.so.2"}


def test_it_never_exits_or_prints(library: Path) -> None:
    lines = run(["nm", "-D", "--undefined-only", library]).splitlines()
    needed = {line.split()[-1].partition("@")[0] for line in lines}
    assert "aligned_alloc" in needed  # the list is what it seems
    assert sorted(filter(FORBIDDEN.fullmatch, needed)) == []


def test_it_allocates_in_one_way(library: Path) -> None:
    """Hosts give their own allocator in its place; so nothing may call another."""
    lines = run(["nm", "-D", "--undefined-only", library]).splitlines()
    needed = {line.split()[-1].partition("@")[0] for line in lines}
    others = (
        "malloc calloc realloc reallocarray posix_memalign memalign valloc strdup strndup asprintf "
        "vasprintf getline getdelim qsort fopen fdopen opendir fdopendir scandir _Znwm _Znam"
    )
    assert needed & set(others.split()) == set()
    assert {"aligned_alloc", "free"} <= needed


def test_it_is_small(library: Path, tmp_path: Path) -> None:
    run(["strip", "-o", tmp_path / "stripped.so", library])
    assert (tmp_path / "stripped.so").stat().st_size <= 1 << 20


def test_the_header_is_c99_and_cpp(installed: Path, tmp_path: Path) -> None:
    include = f"-I{installed / 'include'}"
    strict = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", include]
    run(["gcc", "-std=c99", *strict, EXAMPLES / "run_tile.c"])
    run(["g++", "-std=c++11", *strict, "-x", "c++", installed / "include" / "eosfm.h"])
    run(["g++", "-std=c++17", *strict, EXAMPLES / "two_contexts.cc"])


def test_pkg_config(
    installed: Path, library: Path, specks: dict[str, Path], tmp_path: Path
) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("there is no pkg-config")
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libeosfm"],
        env={**os.environ, "PKG_CONFIG_PATH": str(library.parent / "pkgconfig")},
        capture_output=True,
        text=True,
        check=True,
    )
    flags = found.stdout.split()
    run(["gcc", "-std=c99", EXAMPLES / "run_tile.c", *flags, "-o", tmp_path / "run_tile"])
    run([tmp_path / "run_tile", specks["fp32"]], {"LD_LIBRARY_PATH": str(library.parent)})


def test_find_package(installed: Path, specks: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(CMAKE_PROJECT.format(examples=EXAMPLES))
    build = tmp_path / "build"
    run(["cmake", "-S", tmp_path, "-B", build, f"-DCMAKE_PREFIX_PATH={installed}"])
    run(["cmake", "--build", build])
    run([build / "run_tile", specks["int8"]])
    run([build / "two_contexts", specks["bf16"]])
