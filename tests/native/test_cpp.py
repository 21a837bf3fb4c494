"""The C++ header: it compiles everywhere with and without exceptions, and does what C does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.programs import RUNTIME, run
from support.tiers import thorough

FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Wshadow", "-Werror")


@pytest.mark.parametrize("exceptions", ["-fexceptions", "-fno-exceptions"])
@pytest.mark.parametrize("compiler", ["g++", *thorough("clang++")])
def test_cpp_handles_keep_the_promises_of_c(
    programs: Path, specks: dict[str, Path], tmp_path: Path, compiler: str, exceptions: str
) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    run(
        [compiler, *FLAGS, exceptions, RUNTIME / "tests" / "test_cpp.cc", "-o", tmp_path / "test",
         f"-I{RUNTIME / 'include'}", programs.parent / "libeosfm.a", "-pthread", "-ldl"]
    )  # fmt: skip
    assert "all checks hold" in run([tmp_path / "test", specks["fp32"]])


def test_cpp_covers_every_function_of_c() -> None:
    header, cpp = ((RUNTIME / "include" / name).read_text() for name in ("eosfm.h", "eosfm.hpp"))
    functions = set(re.findall(r"EOSFM_API [^;(]*?(eosfm_\w+)\(", header))
    assert len(functions) > 30
    assert functions - set(re.findall(r"\b(eosfm_\w+)\(", cpp)) == set()


def test_cpp_example_streams_what_the_c_example_streams(
    programs: Path, specks: dict[str, Path], tmp_path: Path
) -> None:
    text = (RUNTIME.parent / "docs" / "embedding.md").read_text()
    (tmp_path / "lines.c").write_text(text.split("```c\n")[1].split("```")[0])
    run(
        ["cc", "-std=c99", tmp_path / "lines.c", "-o", tmp_path / "lines",
         f"-I{RUNTIME / 'include'}", programs.parent / "libeosfm.a", "-pthread", "-ldl", "-lm"]
    )  # fmt: skip
    lines = (np.arange(90 * 2 * 100, dtype=np.uint16) % 200).tobytes()
    printed = [
        subprocess.run(
            [program, specks["fp32"], "100"], input=lines, capture_output=True, check=True
        ).stdout
        for program in (tmp_path / "lines", programs / "stream_lines")
    ]
    assert printed[0].count(b"level 4:") > 1
    assert printed[0] == printed[1]
