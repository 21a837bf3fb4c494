"""The device's part of a bundle: its library under an emulator, and commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from support.c_program import COAST, COAST_BANDS, eosfm, npy_levels
from support.command import exit_code
from support.precise import exported
from support.scenes import scene_pixels

from eosfm_edge.bundle.sizes import bundle_sizes
from eosfm_edge.cli.main import cli
from eosfm_edge.device import cross, package
from eosfm_edge.device.cross import (
    BACKEND_NAME,
    LIBRARY_NAME,
    PROGRAM_NAME,
    build_libraries,
    build_program,
    require_runs_with,
    require_static,
    sources,
)
from eosfm_edge.device.package import oldest_glibc
from eosfm_edge.device.readme import readme
from eosfm_edge.device.service import service
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import require_replaceable
from eosfm_edge.formats.bundle import CONTENTS, Purpose, read_manifest
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import Profile
from eosfm_edge.native.binding import Model
from eosfm_edge.runtime.verify import verify_bundle
from eosfm_edge.targets.registry import find_target, target_names

pytestmark = pytest.mark.cross

pytest.importorskip("ziglang", reason="ziglang is not installed")

PURPOSES = ("native", "onnx", "all")
ARM = [name for name in target_names() if find_target(name).architecture == "aarch64"]
SYMBOLS = Path(__file__).parents[2] / "runtime" / "symbols.txt"
needs_qemu = pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64")),
    reason="there is no aarch64-linux-gnu-gcc or no qemu-aarch64",
)


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The library for the glibc of JetPack 5 and of JetPack 6."""
    folder = tmp_path_factory.mktemp("libraries")
    found = {}
    for glibc in ("2.31", "2.35"):
        (folder / glibc).mkdir()
        build_libraries(folder / glibc, glibc)
        found[glibc] = folder / glibc / LIBRARY_NAME
    return found


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, as it is put into bundles."""
    folder = tmp_path_factory.mktemp("program")
    build_program(folder)
    return folder / PROGRAM_NAME


@pytest.mark.parametrize("glibc", ["2.31", "2.35"])
def test_the_library_is_what_is_promised(libraries: dict[str, Path], glibc: str) -> None:
    library = libraries[glibc]
    assert library.stat().st_size < 1_000_000
    require_runs_with(library, glibc)
    with library.open("rb") as file:
        elf = ELFFile(file)
        assert (elf.get_machine_arch(), elf.elfclass) == ("AArch64", 64)
        assert elf.get_section_by_name(".symtab") is None, "it is stripped"
        symbols = elf.get_section_by_name(".dynsym")
        exported = {
            symbol.name
            for symbol in symbols.iter_symbols()  # type: ignore[union-attr]
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] == "STT_FUNC"
        }
    assert exported == set(SYMBOLS.read_text().split())
    content = library.read_bytes()
    assert str(sources()).encode() not in content and b"/tmp/" not in content


def test_the_same_sources_give_the_same_bytes(libraries: dict[str, Path], tmp_path: Path) -> None:
    # Not with the first: while its cache is empty, Zig links memcpy and expf of its own.
    for folder in (tmp_path / "one", tmp_path / "other"):
        folder.mkdir()
        build_libraries(folder, "2.31")
    for name in (LIBRARY_NAME, BACKEND_NAME):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_library_that_wants_more_is_refused(libraries: dict[str, Path]) -> None:
    with pytest.raises(CheckFailedError, match=r"wants GLIBC_2\.\d+"):
        require_runs_with(libraries["2.31"], "2.5")


def test_the_program_is_what_is_promised(program: Path) -> None:
    assert program.stat().st_size < 600_000
    require_static(program)
    with program.open("rb") as file:
        elf = ELFFile(file)
        assert (elf.get_machine_arch(), elf.elfclass) == ("AArch64", 64)
        assert elf.get_section_by_name(".symtab") is None, "it is stripped"
        stack = next(one for one in elf.iter_segments() if one["p_type"] == "PT_GNU_STACK")
        assert stack["p_flags"] & 1 == 0, "its stack is not executable"
    content = program.read_bytes()
    assert str(sources()).encode() not in content and b"/tmp/" not in content


def test_the_same_sources_give_the_same_program(program: Path, tmp_path: Path) -> None:
    build_program(tmp_path)
    assert (tmp_path / PROGRAM_NAME).read_bytes() == program.read_bytes()


def test_a_program_that_wants_a_library_is_refused() -> None:
    with pytest.raises(CheckFailedError, match=r"has PT_DYNAMIC and PT_INTERP"):
        require_static(Path(shutil.which("ls") or "/bin/ls"))


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="there is no qemu-aarch64")
@pytest.mark.parametrize(("cpu", "isa"), [("cortex-a53", "neon"), ("cortex-a76", "neon-dotprod")])
def test_an_emulated_board_runs_the_program(
    program: Path, tmp_path: Path, cpu: str, isa: str
) -> None:
    """It finds its instruction set, gives the known answer, and runs a scene with two threads."""
    board = ("qemu-aarch64", "-cpu", cpu, program)
    assert f"native                    {isa}" in eosfm(board, "--version")[1]
    code, out, err = eosfm(board, "verify", COAST)
    assert (code, err) == (0, "") and out.count("known answer, level") == 4
    code, _, err = eosfm(board, "verify", COAST, "--backend", "onnxruntime")
    assert code == 2 and "libeosfm_onnxruntime.so" in err
    np.save(tmp_path / "scene.npy", scene_pixels(len(COAST_BANDS), 150, 130))
    for threads in (1, 2):
        command = ("run", COAST, tmp_path / "scene.npy", "--threads", threads, "--quiet")
        code, _, err = eosfm(board, *command, "-o", tmp_path / str(threads))
        assert (code, err) == (0, "")
    one, two = npy_levels(tmp_path / "1"), npy_levels(tmp_path / "2")
    with Model(COAST) as model, model.context(threads=1) as context:
        shapes = [shape[0] for shape in context.shapes]
    for (name, level), channels in zip(one.items(), shapes, strict=True):
        np.testing.assert_array_equal(level, two[name])
        assert level.shape[0] == channels and np.isfinite(level).all()


def test_tools_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"no ziglang and no pyelftools(?s:.*)\[cross\]"):
        cross.require_tools()


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not be built for the target"):
        build_libraries(tmp_path, "1.0")
    assert not list(tmp_path.iterdir())


# In a bundle


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory, motes: Path, imagery: Path) -> dict[str, Path]:
    """Bundles for a Jetson Orin Nano."""
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    found = {}
    for precision in precisions:
        folder = tmp_path_factory.mktemp(precision)
        found[precision] = exported(folder, motes, imagery, "jetson", precision)
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_bundle_has_it(nano: dict[str, Path], precision: str) -> None:
    bundle = nano[precision]
    manifest = read_manifest(bundle)
    assert manifest.target == "jetson-orin-nano" and manifest.profile is not None
    names = {name for name in manifest.files if name.startswith("device/")}
    assert names == {
        "device/README.md",
        "device/eosfm@.service",
        "device/bin/eosfm",
        "device/lib/libeosfm.so.0",
        "device/lib/libeosfm_onnxruntime.so",
        "device/include/eosfm.h",
        "device/examples/run_tile.c",
        "device/examples/verify.c",
    }
    page = (bundle / "device" / "README.md").read_text()
    assert manifest.files["device/lib/libeosfm.so.0"].sha256 in page
    assert os.access(bundle / "device" / "bin" / "eosfm", os.X_OK), "it is sent with rsync -a"
    sizes = bundle_sizes(bundle, manifest)
    assert sizes.native is not None
    assert sizes.native.raw > manifest.files["device/bin/eosfm"].size
    verify_bundle(bundle, "native")


@needs_qemu
@pytest.mark.parametrize(("cpu", "isa"), [("cortex-a53", "neon"), ("cortex-a76", "neon-dotprod")])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_emulated_board_computes_the_known_answer(
    nano: dict[str, Path], tmp_path: Path, precision: str, cpu: str, isa: str
) -> None:
    """By the README's own commands, with a cross compiler instead of the board's."""
    bundle = nano[precision]
    here = verify_bundle(bundle, "native")
    page = (bundle / "device" / "README.md").read_text()
    (compiling,) = [line.strip() for line in page.splitlines() if line.strip().startswith("gcc ")]
    command = shlex.split(compiling.replace("$PWD", str(bundle / "device")))
    command = ["aarch64-linux-gnu-gcc", *command[1:-1], str(tmp_path / "verify")]
    subprocess.run([*command, "-Wall", "-Werror"], cwd=bundle / "device", check=True)
    emulator = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu]
    done = subprocess.run(
        [*emulator, str(tmp_path / "verify"), str(bundle)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"(native, {isa}) computes the known answer" in done.stdout
    differences = [float(number) for number in re.findall(r"\d\.\de[-+]\d+", done.stdout)]
    for there, level in zip(differences, here.levels, strict=True):
        assert there <= here.tolerance
        if precision == "int8":  # rounding's own: the same integers, but for a few
            assert there == pytest.approx(level.relative, rel=0.3)


@needs_qemu
def test_a_damaged_bundle_is_refused_there(nano: dict[str, Path], tmp_path: Path) -> None:
    device = nano["fp32"] / "device"
    subprocess.run(
        ["aarch64-linux-gnu-gcc", "-I", device / "include", device / "examples" / "verify.c",
         device / "lib" / "libeosfm.so.0", f"-Wl,-rpath,{device}/lib", "-o", tmp_path / "verify"],
        check=True,
    )  # fmt: skip
    copy = Path(shutil.copytree(nano["fp32"], tmp_path / "copy"))
    chain = (copy / "chain.gguf").read_bytes()
    (copy / "chain.gguf").write_bytes(chain[: len(chain) // 2])
    done = subprocess.run(
        ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", tmp_path / "verify", copy],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "verify: " in done.stderr


# Pages


@pytest.mark.parametrize("target", ARM)
@pytest.mark.parametrize("purpose", PURPOSES)
def test_commands_of_the_page_exist(target: str, purpose: Purpose) -> None:
    page = readme(find_target(target), "six.eosfm", purpose, "2.31", "0" * 64)
    lines = [line.strip() for line in page.splitlines() if "eosfm-edge " in line]
    # What is behind ">" is the shell's.
    commands = [
        shlex.split(li.partition(" > ")[0]) for li in lines if li.startswith("venv/bin/eosfm-edge")
    ]
    for command in commands:
        verb, arguments = cli, command[1:]
        while hasattr(verb, "commands"):
            verb, arguments = verb.commands[arguments[0]], arguments[1:]
        verb.make_context(arguments[0] if arguments else "", list(arguments))


@needs_qemu
def test_commands_of_the_program_are_those_of_the_page(
    nano: dict[str, Path], tmp_path: Path
) -> None:
    """Of the bundle that was exported, by its own program."""
    bundle = Path(shutil.copytree(nano["int8"], tmp_path / nano["int8"].name))
    np.save(tmp_path / "SCENE.npy", scene_pixels(3, 70, 70))
    page = (bundle / "device" / "README.md").read_text()
    lines = [line.strip() for line in page.splitlines() if line.startswith(f"    {bundle.name}/")]
    assert len(lines) == 3
    for line in lines:
        command = ["qemu-aarch64", *shlex.split(line)]
        if "bench" in command:
            command += ["--rounds", "2"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "features").glob("level*.npy"))) == 4


@pytest.mark.parametrize("target", ARM)
def test_the_page_says_what_was_never_run(target: str) -> None:
    profile = find_target(target)
    page = readme(profile, "six.eosfm", "all", "2.31", "0" * 64)
    assert profile.experience in page and "never" in profile.experience
    for system in profile.systems:
        assert system.name in page
    for mode in profile.power_modes:
        assert f"{mode.name} ({mode.watts:g} W)" in page
    uses_engines = profile.engine == "tensorrt"
    assert ("eosfm-edge build" in page) == uses_engines


def test_overwrite_takes_all_that_a_bundle_brings_to_a_board_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(folder: Path, *_: object) -> None:
        (folder / LIBRARY_NAME).touch()

    monkeypatch.setattr(package, "build_libraries", built)
    monkeypatch.setattr(package, "build_program", built)
    bundle = tmp_path / "six.eosfm"
    bundle.mkdir()
    package.write_device_package(bundle / "device", find_target("raspberry-pi-5"), "six", "all")
    require_replaceable(bundle, CONTENTS, overwrite=True)


def test_the_page_and_the_unit_are_of_what_the_bundle_is_for() -> None:
    jetson, board = find_target("jetson-orin-nano"), find_target("raspberry-pi-5")

    def texts(profile: Profile, purpose: Purpose) -> str:
        page = readme(profile, "six.eosfm", purpose, "2.31", "0" * 64)
        return page + service(profile, "six.eosfm", purpose)

    for profile in (jetson, board):
        native = texts(profile, "native")
        assert "onnxruntime" not in native and "tensorrt" not in native and "build" not in native
        assert "--backend native" in native and "venv" not in service(
            profile, "six.eosfm", "native"
        )
        assert "six.eosfm/device/bin/eosfm run" in native
    assert "computes on the CPU" in texts(jetson, "all")
    assert "verify six.eosfm\n" in texts(jetson, "all")
    for profile, backend in ((jetson, "tensorrt"), (board, "onnxruntime")):
        graphs = texts(profile, "onnx")
        assert "device/bin" not in graphs
        assert "native" not in graphs and "computes on the CPU" not in graphs
        assert "verify six.eosfm\n" not in graphs
        assert f"verify /opt/eosfm/six.eosfm --backend {backend}" in graphs


def test_old_pythons_are_told_to_use_the_library() -> None:
    page = readme(find_target("jetson-xavier"), "six.eosfm", "all", "2.31", "0" * 64)
    assert "Python 3.8 is older than eosfm-edge runs on" in page
    assert "venv/bin/pip" not in page


@pytest.mark.parametrize(
    ("target", "glibc"), [("jetson-orin-nano", "2.31"), ("jetson-thor", "2.39")]
)
def test_the_library_is_for_the_oldest_system(target: str, glibc: str) -> None:
    assert oldest_glibc(find_target(target)) == glibc


@pytest.mark.parametrize("target", ARM)
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(target: str, purpose: Purpose, tmp_path: Path) -> None:
    # What it starts is on the device: here it is something that is there.
    unit = service(find_target(target), "six.eosfm", purpose)
    for program in ("/opt/eosfm/venv/bin/eosfm-edge", "/opt/eosfm/six.eosfm/device/bin/eosfm"):
        unit = unit.replace(program, "/bin/true")
    (tmp_path / "eosfm@.service").write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "eosfm@.service"],
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "eosfm@" in line]
    assert not complaints and done.returncode == 0, done.stderr


def test_without_the_tools_nothing_is_exported(
    motes: Path, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross.importlib.util, "find_spec", lambda name: None)
    arguments = ("--scene", imagery, "--target", "jetson", "-o", tmp_path / "b.eosfm")
    assert exit_code("export", motes, *arguments) == 2
    assert not list(tmp_path.iterdir())
