"""The promise of eosfm.h that structs grow: programs and libraries of other headers agree."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.programs import BUILDS, RUNTIME, build, run

from eosfm_edge.native import header as mirror
from eosfm_edge.packets.packet import Packet
from eosfm_edge.packets.split import split

ABI = RUNTIME / "tests" / "abi"
FROZEN = ABI / "0.1"
HEADERS = ("eosfm.h", "eosfm_packets.h")
STRUCT = re.compile(r"typedef struct (eosfm_\w+) \{\n(.*?)\n\} \1;", re.DOTALL)
# A macro of defaults begins with the size of its struct; the last brace of its last line ends it.
INIT = re.compile(r"(\{sizeof\(eosfm_\w+\),(?:[^\n]*\\\n)*[^\n]*)\}$", re.MULTILINE)


def grown(header: str) -> str:
    """Return a header with one more field in every struct."""
    header, structs = STRUCT.subn(r"typedef struct \1 {\n\2\n  int64_t grown;\n} \1;", header)
    header, defaults = INIT.subn(r"\1, 77}", header)
    assert structs == defaults > 0
    return header


def copy_changed(source: Path, to: Path, change: Callable[[str], str] = str) -> None:
    """Copy a file, unless it is there already, by which nothing is compiled in vain."""
    text = change(source.read_text())
    if not to.exists() or to.read_text() != text:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text)


class Libraries(NamedTuple):
    """Folders of libraries and of headers, by what they are of."""

    libraries: dict[str, Path]
    headers: dict[str, Path]


@pytest.fixture(scope="module")
def versions(programs: Path) -> Libraries:
    """Today's library and one whose structs have grown."""
    source = BUILDS / "grown-source"
    for path in RUNTIME.rglob("*"):
        place = path.relative_to(RUNTIME)
        if path.is_file() and place.parts[0] not in ("tests", "examples"):
            copy_changed(path, source / place, grown if path.name in HEADERS else str)
    targets = ["eosfm_shared"]
    if (programs / "read_packets").exists():
        targets.append("eosfm_packets_shared")
    build("grown", targets=targets, source=source)
    headers = {"first": FROZEN, "today": RUNTIME / "include", "grown": source / "include"}
    return Libraries({"today": programs.parent, "grown": BUILDS / "grown"}, headers)


def outputs(
    versions: Libraries, folder: Path, source: Path, library: str, arguments: list[str | Path]
) -> dict[tuple[str, str], str]:
    """Compile a program with each header and run it with each library; return what it prints."""
    printed = {}
    for header, include in versions.headers.items():
        program = folder / f"{source.stem}-{header}"
        compiler = (
            ["cc", "-std=c99"] if source.suffix == ".c" else ["c++", "-std=c++17", "-pthread"]
        )
        run([*compiler, "-Wall", "-Wextra", "-Werror", source, "-o", program, f"-I{include}",
             f"-L{versions.libraries['today']}", f"-l{library}", "-lm"])  # fmt: skip
        for name, path in versions.libraries.items():
            printed[header, name] = run([program, *arguments], {"LD_LIBRARY_PATH": str(path)})
    return printed


def assert_all_same(printed: dict[tuple[str, str], str]) -> None:
    for pair, text in printed.items():
        assert text == printed["today", "today"], pair


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_programs_and_libraries_of_other_versions_agree(
    versions: Libraries, specks: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    bundle = specks[precision]
    files = [str(path.relative_to(bundle)) for path in sorted(bundle.rglob("*.gguf"))]
    printed = outputs(versions, tmp_path, ABI / "program.c", "eosfm", [bundle, *files])
    assert "the engine computed 1 images" in printed["today", "today"]
    assert "patch 1 2" in printed["today", "today"]
    assert_all_same(printed)


@pytest.mark.parametrize("example", ["run_tile.c", "verify.c", "two_contexts.cc"])
def test_examples_agree_across_versions(
    versions: Libraries, specks: dict[str, Path], tmp_path: Path, example: str
) -> None:
    source = RUNTIME / "examples" / example
    assert_all_same(outputs(versions, tmp_path, source, "eosfm", [specks["fp32"]]))


def test_packets_agree_across_versions(versions: Libraries, programs: Path, tmp_path: Path) -> None:
    if not (programs / "read_packets").exists():
        pytest.skip("there is no zstd.h")
    features = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5)
    packet = Packet(bytes(8), 1, 2, 3, 0, 3, features)
    (tmp_path / "packets").write_bytes(b"junk" + b"".join(split(packet, "fp16", 10_000)))
    source = RUNTIME / "examples" / "read_packets.c"
    printed = outputs(versions, tmp_path, source, "eosfm_packets", [tmp_path / "packets"])
    assert "4 x 5 cells at row 2, column 3\n4 bytes belong to no" in printed["today", "today"]
    assert_all_same(printed)


# Prints the size of each struct, and the place and size of each field.
LAYOUT = """
#include <eosfm_packets.h>
#include <stdio.h>
int main(void) {{
{lines}
  return 0;
}}
"""
FIELD = re.compile(r"(?:\(\*(\w+)\)\(|(\w+)(?:\[\w+\])?;)")


def fields_of(body: str) -> list[str]:
    """Return the names of a struct's fields, of its C text."""
    text = re.sub(r"/\*.*?\*/", "", body, flags=re.DOTALL)
    found = [FIELD.search(statement + ";") for statement in text.split(";")[:-1]]
    return [next(filter(None, field.groups())) for field in found if field is not None]


def layout(include: Path, structs: dict[str, list[str]], folder: Path) -> dict[str, list[int]]:
    """Compile a program against headers and return where they have what."""
    lines = []
    for struct, fields in structs.items():
        lines.append(f'  printf("{struct} %zu\\n", sizeof({struct}));')
        for field in fields:
            place = f"offsetof({struct}, {field}), sizeof((({struct} *)0)->{field})"
            lines.append(f'  printf("{struct}.{field} %zu %zu\\n", {place});')
    (folder / "layout.c").write_text(LAYOUT.format(lines="\n".join(lines)))
    run(["cc", "-std=c99", folder / "layout.c", "-o", folder / "layout", f"-I{include}"])
    rows = (line.split() for line in run([folder / "layout"]).splitlines())
    return {name: [int(number) for number in numbers] for name, *numbers in rows}


def structs_of(include: Path) -> dict[str, list[str]]:
    text = "".join((include / name).read_text() for name in HEADERS)
    return {name: fields_of(body) for name, body in STRUCT.findall(text)}


def test_structs_only_grow_at_their_end(tmp_path: Path) -> None:
    """Fields stay where they were, and new ones begin where the first version's struct ended."""
    first, today = structs_of(FROZEN), structs_of(RUNTIME / "include")
    assert set(first) <= set(today)
    was = layout(FROZEN, first, tmp_path)
    now = layout(RUNTIME / "include", today, tmp_path)
    for struct, fields in today.items():
        assert fields[0] == "struct_size", struct
        assert now[struct][0] % 8 == 0
        for field in fields:
            name = f"{struct}.{field}"
            if struct in first and field in first[struct]:
                assert now[name] == was[name]
            elif struct in first:
                assert now[name][0] >= was[struct][0], f"{name} is in what was padding"


def test_python_mirrors_every_struct_in_full(tmp_path: Path) -> None:
    """A struct of Python's that is shorter would be refused when its first size grows."""
    mirrors = {
        cls.__doc__.strip("`."): ctypes.sizeof(cls) for cls in mirror.Struct.__subclasses__()
    }
    structs = {name: [] for name in mirrors}
    sizes = {name: size for name, (size,) in layout(RUNTIME / "include", structs, tmp_path).items()}
    assert len(mirrors) > 10
    assert mirrors == sizes


def test_the_library_knows_the_first_size_of_every_struct() -> None:
    sources = (RUNTIME / "src" / "structs.h", RUNTIME / "packets" / "packets.c")
    text = "".join(source.read_text() for source in sources)
    for struct, fields in structs_of(FROZEN).items():
        assert re.search(rf"\({struct}, {fields[-1]}\b", text), (struct, fields[-1])


def test_structs_are_read_and_filled_by_the_size_that_is_given(programs: Path) -> None:
    assert "all checks hold" in run([programs / "test_structs"])
