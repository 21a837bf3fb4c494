"""Compile the CUDA engine's kernels to machine code, without a GPU and without CUDA's headers.

    python make_code.py OUTPUT NVRTC...

Each NVRTC is a libnvrtc.so, of CUDA 12.6 or 13 (PyPI: nvidia-cuda-nvrtc-cu12==12.6.*,
nvidia-cuda-nvrtc). Each compiles for its share of GPUs: cubins go to OUTPUT, and PTX from CUDA 12,
which newer drivers compile for newer GPUs; then code_table.cc, which has them all, and
resources.json with what each kernel takes.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from pathlib import Path

KERNELS = Path(__file__).parent / "kernels"

# CUDA 12 serves drivers from 525 on, JetPack 6 among them; code by CUDA 13 needs driver 580. Orin
# (87) has both.
TARGETS = {
    12: (("sm_80", "sm_87", "sm_89", "sm_90"), ("compute_80",)),
    13: (("sm_87", "sm_110", "sm_120"), ()),
}
OPTIONS = ("--std=c++17", "--fmad=false", "-default-device", "--ptxas-options=-v")


class Compiler:
    """One libnvrtc."""

    def __init__(self, path: str) -> None:
        self.path = path
        # It looks for its other half by name, which is found when it is loaded already.
        for builtins in Path(path).parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins))
        self.library = ctypes.CDLL(path)
        major, minor = ctypes.c_int(), ctypes.c_int()
        told = self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.check(told, "nvrtcVersion")
        self.version = 1000 * major.value + 10 * minor.value

    def check(self, result: int, what: str) -> None:
        """Give up with NVRTC's words if a call failed."""
        if result == 0:
            return
        text = self.library.nvrtcGetErrorString
        text.restype = ctypes.c_char_p
        raise SystemExit(f"{self.path}: {what} failed: {text(result).decode()}")

    def text_of(self, program: ctypes.c_void_p, name: str) -> bytes:
        """Return what nvrtcGetNAME gives, whose size nvrtcGetNAMESize gives."""
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f"nvrtcGet{name}Size")(program, ctypes.byref(size)), name)
        buffer = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f"nvrtcGet{name}")(program, buffer), name)
        return buffer.raw

    def compile(self, architecture: str) -> tuple[bytes, str]:
        """Return machine code, or PTX for a compute_NN, and the compiler's log."""
        source = (KERNELS / "kernels.cu").read_bytes()
        program = ctypes.c_void_p()
        created = self.library.nvrtcCreateProgram(
            ctypes.byref(program), source, b"kernels.cu", 0, None, None
        )
        self.check(created, "nvrtcCreateProgram")
        words = [*OPTIONS, f"--gpu-architecture={architecture}", f"--include-path={KERNELS}"]
        options = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        done = self.library.nvrtcCompileProgram(program, len(words), options)
        log = self.text_of(program, "ProgramLog").rstrip(b"\0").decode()
        if done != 0:
            raise SystemExit(f"{self.path}: the kernels do not compile for {architecture}:\n{log}")
        code = self.text_of(program, "PTX" if architecture.startswith("compute") else "CUBIN")
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return code, log


def resources_of(log: str) -> dict[str, dict[str, int]]:
    """Return what each kernel takes, as ptxas says in its log."""
    found: dict[str, dict[str, int]] = {}
    name = ""
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            name = match[1]
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            found[name] = {"spilled": int(match[1]) + int(match[2])}
        elif match := re.search(r"Used (\d+) registers", line):
            found[name]["registers"] = int(match[1])
    return found


def table_of(entries: list[tuple[int, bool, int, Path]]) -> str:
    """Return C++ with all code in it, which the assembler reads from its files."""
    lines = ['// Made by make_code.py.\n#include "code.h"\n']
    rows = []
    for i, (compute, is_ptx, toolkit, path) in enumerate(entries):
        # PTX is a text: the driver looks for the zero at its end.
        lines.append(
            f'asm(".pushsection .rodata\\n.balign 64\\n"\n'
            f'    ".globl eosfm_code_{i}\\n.hidden eosfm_code_{i}\\n"\n'
            f'    "eosfm_code_{i}:\\n.incbin \\"{path}\\"\\n.byte 0\\n.popsection\\n");\n'
            f'extern "C" const unsigned char eosfm_code_{i}[];\n'
        )
        size = path.stat().st_size
        rows.append(f"    {{{compute}, {int(is_ptx)}, {toolkit}, eosfm_code_{i}, {size}}},\n")
    lines.append("\nnamespace eosfm {\n\nconst GpuCode kGpuCode[] = {\n" + "".join(rows) + "};\n")
    lines.append(f"const int kGpuCodeCount = {len(entries)};\n\n}}  // namespace eosfm\n")
    return "".join(lines)


def main(output: Path, paths: list[str]) -> None:
    """Compile for all targets of all compilers that are given."""
    output.mkdir(parents=True, exist_ok=True)
    entries: list[tuple[int, bool, int, Path]] = []
    resources: dict[str, object] = {}
    for compiler in map(Compiler, paths):
        machine, virtual = TARGETS[compiler.version // 1000]
        for architecture in (*machine, *virtual):
            code, log = compiler.compile(architecture)
            is_ptx = architecture in virtual
            name = f"{architecture}-{compiler.version}"
            path = (output / f"{name}.{'ptx' if is_ptx else 'cubin'}").resolve()
            path.write_bytes(code.rstrip(b"\0") if is_ptx else code)
            entries.append((int(architecture.split("_")[1]), is_ptx, compiler.version, path))
            resources[name] = {"bytes": path.stat().st_size, "kernels": resources_of(log)}
    (output / "resources.json").write_text(json.dumps(resources, indent=1))
    (output / "code_table.cc").write_text(table_of(entries))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
