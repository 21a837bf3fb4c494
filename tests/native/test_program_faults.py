"""The C program `eosfm`, given what is wrong: it says so, and leaves nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.c_program import COAST, COAST_BANDS, eosfm, write_envi
from support.command import leftovers
from support.gguf import set_floats
from support.scenes import scene_pixels, write_scene

BANDS = len(COAST_BANDS)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A scene of four tiles, in a folder beside which nothing is."""
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "scene.npy", scene_pixels(BANDS, 200, 200))
    return tmp_path / "in" / "scene.npy"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "features"


def refused(program: Path, *arguments: object, stdin: bytes = b"") -> str:
    """Return the message of a command that is wrong use: nothing else is printed."""
    code, printed, err = eosfm(program, *arguments, stdin=stdin)
    assert (code, printed) == (2, ""), err
    assert err.startswith("error: ")
    return err


# The command line


@pytest.mark.parametrize(
    ("words", "found", "fix"),
    [
        ("", "no verb was given", "eosfm --help"),
        ("export x", "there is no verb export", "eosfm --help"),
        ("run", "eosfm run lacks BUNDLE", "eosfm run six.eosfm scene.npy -o features"),
        ("run b s", "eosfm run lacks --output", "eosfm run six.eosfm scene.npy -o features"),
        ("verify a b", "eosfm verify has no use for b", ""),
        ("verify a --overlap 3", "eosfm verify has no option --overlap", ""),
        ("run b s -x -o o", "eosfm run has no option -x", ""),
        ("run b s -o", "-o lacks its value", ""),
        ("bench a --rounds 1", "--rounds is 1", "a whole number from 2"),
        ("bench a --threads 1e1", "--threads is 1e1", "a whole number from 0 to 256"),
        ("bench a --threads -1", "--threads is -1", "a whole number from 0 to 256"),
        ("bench a --memory-limit 0x10", "--memory-limit is 0x10", "like 1400, 200kB"),
        ("run b s -o o --levels 1,1", "--levels is 1,1", "some of 1, 2, 3 and 4"),
        ("run b s -o o --levels 3,", "--levels is 3,", "some of 1, 2, 3 and 4"),
    ],
)
def test_a_wrong_command_line_is_refused(program: Path, words: str, found: str, fix: str) -> None:
    message = refused(program, *words.split())
    assert found in message and fix in message


@pytest.mark.parametrize("verb", ["verify", "run", "bench"])
def test_help_lists_every_option(program: Path, verb: str) -> None:
    code, printed, err = eosfm(program, verb, "--help")
    assert (code, err) == (0, "") and printed.startswith(f"usage: eosfm {verb} BUNDLE")
    assert max(map(len, printed.splitlines())) <= 120
    for option in ("--backend", "--threads", "--memory-limit", "--json", "--help"):
        assert option in printed


def test_a_reader_that_has_seen_enough_is_no_error(program: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([program, "--help"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", [("--version",), ("verify", COAST), ("run", "--help")])
def test_results_that_cannot_be_printed_are_an_error(
    program: Path, command: tuple[object, ...]
) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [str(part) for part in (program, *command)], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert b"cannot write the output: No space left on device" in done.stderr


def test_names_are_no_orders_to_the_terminal(program: Path, out: Path) -> None:
    message = refused(program, "run", COAST, "no\x1b[31m\x9b", "-o", out)
    assert "\x1b" not in message and "\x9b" not in message and "no?[31m?" in message


# Bundles


def test_a_bundle_that_is_none_is_refused(program: Path, tmp_path: Path) -> None:
    assert "it is not there" in refused(program, "verify", tmp_path / "nothing")
    assert "chain.gguf" in refused(program, "bench", tmp_path)


def test_a_bundle_that_is_cut_off_fails_the_check(program: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(COAST, tmp_path / "cut.eosfm"))
    chain = (copy / "chain.gguf").read_bytes()
    (copy / "chain.gguf").write_bytes(chain[: len(chain) // 2])
    code, printed, err = eosfm(program, "verify", copy)
    assert (code, printed) == (1, "") and "chain.gguf" in err and "again" in err


def test_a_wrong_answer_shows_each_level(program: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(COAST, tmp_path / "altered.eosfm"))
    chain = bytearray((copy / "chain.gguf").read_bytes())
    # The known answer's last level ends the file.
    chain[-40_000:] = np.ones(10_000, np.float32).tobytes()
    (copy / "chain.gguf").write_bytes(chain)
    code, printed, err = eosfm(program, "verify", copy)
    assert code == 1 and err.startswith("error: ") and "again" in err
    assert printed.count("known answer, level") == 4
    code, printed, err = eosfm(program, "verify", copy, "--json")
    assert (code, printed) == (1, "")


def test_values_that_are_not_finite_blame_the_bundle(
    program: Path, scene: Path, out: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(COAST, tmp_path / "damaged.eosfm"))
    set_floats(copy / "specialists" / "eurosat_rgb.gguf", "stem.bias", 3e38)
    for command in (("verify", copy), ("run", copy, scene, "-o", out)):
        code, _, err = eosfm(program, *command)
        assert code == 1 and ("finite" in err or "known answer" in err)
    assert "the bundle is damaged" in err and not leftovers(out.parent)


def test_a_backend_that_is_not_here_is_named(program: Path) -> None:
    code, printed, err = eosfm(program, "verify", COAST, "--backend", "tensorrt")
    assert (code, printed) == (2, "") and err.count("libeosfm_tensorrt.so, which") == 1
    assert "CUDA" in refused(program, "verify", COAST, "--backend", "CUDA")
    code, printed, err = eosfm(program, "verify", COAST, "--backend", "tensorrt native")
    assert code == 0 and err.startswith("warning: ") and "native)" in printed


# Scenes


def npy(path: Path, header: str, pixels: bytes = b"", version: int = 1) -> Path:
    text = header.encode().ljust(118) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + text + pixels)
    return path


NPY = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((BANDS, 8, 8), np.int64), "values of the type <i8"),
        (np.zeros((BANDS, 8, 8), bool), "values of the type |b1"),
        (np.zeros((BANDS, 8, 8), np.complex64), "values of the type <c8"),
        (np.zeros((BANDS, 8, 8), [("a", np.uint8)]), "values of the type of a structure"),
        (np.zeros((8, 8), np.uint8), "has the shape (8, 8)"),
        (np.zeros((1, BANDS, 8, 8), np.uint8), f"has the shape (1, {BANDS}, 8, 8)"),
        (np.zeros((BANDS, 0, 8), np.uint8), "8 columns and 0 rows"),
        (np.zeros((BANDS, 8, 1 << 21), np.uint8)[:, :1], "2097152 columns and 1 rows"),
        (np.asfortranarray(np.zeros((BANDS, 8, 8), np.uint8)), "in Fortran's order"),
        (np.zeros((BANDS - 1, 8, 8), np.uint8), f"has {BANDS - 1} bands, without names"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(
    program: Path, out: Path, tmp_path: Path, array: np.ndarray, found: str
) -> None:
    np.save(tmp_path / "scene.npy", array)
    message = refused(program, "run", COAST, tmp_path / "scene.npy", "-o", out)
    assert found in message and "expected:" in message
    assert not leftovers(out.parent)


@pytest.mark.parametrize(
    "header",
    [
        "", "{}", "{'descr': '<u2'}", "{'descr': '<u2', 'fortran_order': False, 'shape': (13, 4",
        NPY.format("'<u2'", "False", "(13, -4, 4)"), NPY.format("'<u2'", "False", "(13, 4, 4, )x"),
        NPY.format("'<u2'", "False", "(99999999999999999999999, 4, 4)"),
        NPY.format("'<u2'", "False", "(13, 99999999999999999999999, 4)"),
        NPY.format("'<u2'", "Perhaps", "(13, 4, 4)"), NPY.format("'u2'", "False", "(13, 4, 4)"),
        NPY.format("'|u2'", "False", "(13, 4, 4)"), NPY.format("'<u1'", "False", "(13, 4, 4)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2])
def test_a_damaged_array_header_is_refused(
    program: Path, out: Path, tmp_path: Path, header: str, version: int
) -> None:
    scene = npy(tmp_path / "scene.npy", header, bytes(13 * 16 * 2 + 2), version)
    refused(program, "run", COAST, scene, "-o", out)
    assert not leftovers(out.parent)


def test_an_array_of_a_future_version_is_refused(program: Path, out: Path, tmp_path: Path) -> None:
    scene = npy(tmp_path / "scene.npy", NPY.format("'<u2'", "False", "(13, 4, 4)"), version=4)
    assert "unknown version" in refused(program, "run", COAST, scene, "-o", out)


@given(cut=st.integers(0, 3000), more=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_a_file_of_another_length_is_refused(
    program: Path, tmp_path_factory: pytest.TempPathFactory, cut: int, more: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    np.save(folder / "scene.npy", np.ones((BANDS, 10, 11), np.uint16))
    whole = (folder / "scene.npy").read_bytes()
    (folder / "scene.npy").write_bytes(whole[: len(whole) - cut] + bytes(more))
    if cut == more:
        return
    refused(program, "run", COAST, folder / "scene.npy", "-o", folder / "out")
    assert leftovers(folder) == ["scene.npy"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("lines   = 40", "lines   = 41"), "bytes"),
        (("lines   = 40", "lines   = many"), "no usable lines"),
        (("lines   = 40", "lines   = 0"), "lines = 0"),
        (("samples = 50", "samples = 99999999999999999999"), "no usable samples"),
        (("bands   = 13", ""), "no usable bands"),
        (("data type = 12", "data type = 6"), "data type 6"),
        (("data type = 12", "data type = 14"), "data type 14"),
        (("byte order = 0", "byte order = 2"), "byte order = 2"),
        (("interleave = bsq", "interleave = tiled"), 'interleave "tiled"'),
        (("header offset = 0", "header offset = 1"), "bytes"),
        (("ENVI\n", "ENVY\n"), "is no ENVI header"),
        (("byte order = 0", "byte order = 0\nfile compression = 1"), "file compression = 1"),
        (("byte order = 0", "byte order = 0\nmajor frame offsets = {8, 0}"), "major frame offsets"),
        (("byte order = 0", "byte order = 0\ndata ignore value = none"), "data ignore value none"),
        (("byte order = 0", "byte order = 0\ndata gain values = {1, 2}"), "{1, 2}"),
        (("byte order = 0", "byte order = 0\nreflectance scale factor = 5000"), "factor 5000"),
        (("byte order = 0", "byte order = 0\ndescription = {never\nends"), "ends within"),
        (("\nB04", "\nB4"), "names no band B04"),
        (("\nB04", "\nB03"), "names"),
        (("\nB04,", ""), f"{BANDS - 1} band names"),
    ],
)
def test_an_envi_header_that_does_not_fit_is_refused(
    program: Path, out: Path, tmp_path: Path, change: tuple[str, str], found: str
) -> None:
    scene = write_envi(tmp_path / "scene.img", scene_pixels(BANDS, 40, 50))
    header = scene.with_suffix(".hdr").read_text()
    assert change[0] in header
    scene.with_suffix(".hdr").write_text(header.replace(*change))
    assert found in refused(program, "run", COAST, scene, "-o", out)
    assert not leftovers(out.parent)


def test_wavelengths_of_other_bands_are_refused(program: Path, out: Path, tmp_path: Path) -> None:
    scene = write_envi(tmp_path / "scene.img", scene_pixels(BANDS, 40, 50), names=None)
    header = scene.with_suffix(".hdr")
    right = (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1375, 1610, 2190)
    text = header.read_text()
    for wavelengths, unit in ((right, ""), ([nm / 1e3 for nm in right], "Micrometers")):
        listed = ", ".join(map(str, wavelengths))
        header.write_text(f"{text}wavelength = {{{listed}}}\nwavelength units = {unit}\n")
        assert eosfm(program, "run", COAST, scene, "-o", out, "--overwrite")[0] == 0
    shutil.rmtree(out)
    listed = ", ".join(map(str, right[::-1]))
    header.write_text(f"{text}wavelength = {{{listed}}}\n")
    assert "a wavelength of 2190 nm" in refused(program, "run", COAST, scene, "-o", out)


def test_scenes_of_other_kinds_are_refused(program: Path, out: Path, tmp_path: Path) -> None:
    tiff = write_scene(tmp_path / "scene.tif", scene_pixels(BANDS, 40, 50))
    assert "gdal_translate -of ENVI" in refused(program, "run", COAST, tiff, "-o", out)
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(100))
    assert "--header" in refused(program, "run", COAST, raw, "-o", out)
    envi = write_envi(tmp_path / "scene.img", scene_pixels(BANDS, 40, 50))
    message = refused(program, "run", COAST, envi.with_suffix(".hdr"), "-o", out)
    assert "name the file with the pixels" in message
    assert "is a folder" in refused(program, "run", COAST, tmp_path, "-o", out)
    assert "No such file" in refused(program, "run", COAST, tmp_path / "none", "-o", out)
    os.mkfifo(tmp_path / "fifo")
    assert "a FIFO" in refused(program, "run", COAST, tmp_path / "fifo", "-o", out)
    fifo_header = refused(program, "run", COAST, raw, "-o", out, "--header", tmp_path / "fifo")
    assert "is no such file" in fifo_header
    assert not leftovers(out.parent)


def test_a_scene_without_data_is_refused(program: Path, out: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", np.zeros((BANDS, 60, 60), np.uint16))
    message = refused(program, "run", COAST, tmp_path / "scene.npy", "-o", out)
    assert "no valid pixel" in message
    assert not leftovers(out.parent)


# Pipes


@pytest.fixture
def lines(tmp_path: Path) -> tuple[Path, bytes]:
    """A header, and the bytes that it is of."""
    scene = write_envi(tmp_path / "lines.img", scene_pixels(BANDS, 60, 70), "bil")
    return scene.with_suffix(".hdr"), scene.read_bytes()


def test_a_pipe_that_ends_early_is_refused(
    program: Path, out: Path, lines: tuple[Path, bytes]
) -> None:
    header, pixels = lines
    arguments = ("run", COAST, "-", "--header", header, "-o", out)
    assert "nothing describes" in refused(program, "run", COAST, "-", "-o", out)
    assert "standard input ends at row 32" in refused(program, *arguments, stdin=pixels[:-5])
    assert "ends at row 0" in refused(program, *arguments)
    assert "goes on after the 60 rows" in refused(program, *arguments, stdin=pixels + b"x")
    assert not leftovers(out.parent)
    header.write_text(header.read_text().replace("interleave = bil", "interleave = bsq"))
    assert "band sequential" in refused(program, *arguments, stdin=pixels)
    assert not leftovers(out.parent)


def test_a_slow_pipe_gives_the_same(program: Path, out: Path, lines: tuple[Path, bytes]) -> None:
    header, pixels = lines
    arguments = ("run", COAST, "-", "--header", header, "-o")
    assert eosfm(program, *arguments, out, stdin=pixels)[0] == 0
    slow = out.with_name("slow")
    with subprocess.Popen(
        [str(part) for part in (program, *arguments, slow)], stdin=subprocess.PIPE, stdout=-3
    ) as process:
        assert process.stdin is not None
        for at in range(0, len(pixels), 7777):
            process.stdin.write(pixels[at : at + 7777])
            process.stdin.flush()
    assert process.returncode == 0
    for path in sorted(out.iterdir()):
        assert path.read_bytes() == (slow / path.name).read_bytes()


# The output


def test_an_output_that_is_there_stays(program: Path, scene: Path, out: Path) -> None:
    out.mkdir()
    (out / "level1.npy").write_text("old")
    assert "--overwrite" in refused(program, "run", COAST, scene, "-o", out)
    (out / "notes.txt").write_text("mine")
    message = refused(program, "run", COAST, scene, "-o", out, "--overwrite")
    assert "notes.txt, which eosfm did not write" in message
    (out / "notes.txt").unlink()
    (out / "level2.npy").symlink_to(scene)
    assert "level2.npy" in refused(program, "run", COAST, scene, "-o", out, "--overwrite")
    (out / "level2.npy").unlink()
    assert (out / "level1.npy").read_text() == "old"
    assert eosfm(program, "run", COAST, scene, "-o", f"{out}//", "--overwrite")[0] == 0
    assert np.load(out / "level1.npy").shape == (50, 50, 120)
    assert leftovers(out.parent) == ["features"]
    file = out.with_name("file")
    file.write_text("x")
    assert "not a directory" in refused(program, "run", COAST, scene, "-o", file, "--overwrite")
    assert "the output is" in refused(program, "run", COAST, scene, "-o", "")


def test_an_input_in_the_output_is_not_replaced(program: Path, scene: Path, out: Path) -> None:
    out.mkdir()
    inside = Path(shutil.copy(scene, out / "level1.npy"))
    message = refused(program, "run", COAST, inside, "-o", out, "--overwrite")
    assert "is in the output" in message and inside.exists()


def test_folders_above_the_output_are_made(program: Path, scene: Path, out: Path) -> None:
    nested = out / "a" / "b"
    assert eosfm(program, "run", COAST, scene, "-o", nested)[0] == 0
    assert (nested.stat().st_mode & 0o777, len(list(nested.iterdir()))) == (0o777 & ~umask(), 4)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_output_that_cannot_be_written_is_named(program: Path, scene: Path, out: Path) -> None:
    assert "cannot write /proc/x" in refused(program, "run", COAST, scene, "-o", "/proc/x")

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, printed, err = eosfm(program, "run", COAST, scene, "-o", out, preexec_fn=small)
    assert (code, printed) == (2, "") and f"cannot write {out}: File too large" in err
    assert not leftovers(out.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_found_before_the_work(program: Path, scene: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    try:
        message = refused(program, "run", COAST, scene, "-o", disk / "out")
        assert "No space left on device" in message and "free some space" in message
        assert not leftovers(disk)
    finally:
        subprocess.run(["umount", disk], check=True)


# Signals


@pytest.fixture
def running(
    program: Path, tmp_path: Path, out: Path, lines: tuple[Path, bytes]
) -> Callable[[], subprocess.Popen[bytes]]:
    """Start runs that have their output's files made, and wait for more lines."""
    header, pixels = lines

    def start() -> subprocess.Popen[bytes]:
        command = (program, "run", COAST, "-", "--header", header, "-o", out, "--overwrite")
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(pixels[: len(pixels) // 2])
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not list(out.parent.glob(".features.eosfm-*/level4.img")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        return process

    return start


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_a_run_that_waits(
    running: Callable[[], subprocess.Popen[bytes]], out: Path, number: int, code: int, word: str
) -> None:
    with running() as process:
        process.send_signal(number)
        printed, err = process.communicate(timeout=20)
    assert (process.returncode, printed) == (code, b"")
    assert err.decode() == f"{word}; nothing was written\n"
    assert not leftovers(out.parent)


def blocks(process: subprocess.Popen[bytes], number: int) -> bool:
    """Return whether a process blocks a signal, as the program does once it looks for it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(mask, 16) & 1 << (number - 1))


def test_a_signal_ends_a_bench(program: Path) -> None:
    command = [str(part) for part in (program, "bench", COAST, "--rounds", 100_000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not blocks(process, signal.SIGTERM):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        printed, err = process.communicate(timeout=20)
    assert (process.returncode, printed) == (143, b"") and b"terminated" in err
    assert time.monotonic() - started < 5


def test_what_a_killed_run_left_is_removed_by_the_next(
    program: Path,
    running: Callable[[], subprocess.Popen[bytes]],
    out: Path,
    lines: tuple[Path, bytes],
) -> None:
    header, pixels = lines
    out.mkdir()
    (out / "level1.npy").write_text("old")
    with running() as process:
        process.kill()
    assert (out / "level1.npy").read_text() == "old"
    assert len(leftovers(out.parent)) == 2
    with running() as process:  # another that is going on is left alone
        arguments = ("run", COAST, "-", "--header", header, "-o", out, "--overwrite")
        assert eosfm(program, *arguments, stdin=pixels)[0] == 0
        assert len(leftovers(out.parent)) == 2
        process.communicate(pixels[len(pixels) // 2 :], timeout=60)
    assert process.returncode == 0
    assert leftovers(out.parent) == ["features"]
    assert not (out / "level1.npy").exists()


# Anything at all


@given(data=st.data(), how=st.sampled_from(["npy", "envi"]))
@settings(max_examples=60, deadline=None)
def test_damaged_headers_never_crash_the_program(
    program: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, how: str
) -> None:
    """They are refused, or read as what they say; under the sanitizer in the deep tier."""
    folder = tmp_path_factory.mktemp("damaged")
    if how == "npy":
        file = scene = folder / "scene.npy"
        np.save(scene, np.ones((BANDS, 9, 10), np.uint16))
    else:
        scene = write_envi(folder / "scene.img", np.ones((BANDS, 9, 10), np.uint16))
        file = scene.with_suffix(".hdr")
        file.write_text(f"{file.read_text()}data gain values = {{{', '.join(['1e-4'] * BANDS)}}}\n")
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 10_000)) % min(len(content), 1000)
        new = data.draw(st.one_of(st.sampled_from(b"{}=,;'()0-\n\0"), st.integers(0, 255)))
        change = data.draw(st.sampled_from(["set", "insert", "cut"]))
        content[at : at + (change != "insert")] = [] if change == "cut" else [new]
    file.write_bytes(content)
    code, printed, err = eosfm(program, "run", COAST, scene, "-o", folder / "out", "--quiet")
    assert code in (0, 1, 2), err
    assert "Sanitizer" not in err and "runtime error" not in err
    assert (folder / "out").exists() == (code == 0) == bool(printed)
