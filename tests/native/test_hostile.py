"""Bundles that are made to cost time or memory, or to mean two things: libeosfm and Python."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.gguf_files import ARRAY, TEXT, GgufFile, zero_specialist, zeros
from support.programs import run

from eosfm_edge.errors import UserError
from eosfm_edge.native.binding import Model
from eosfm_edge.native.gguf import read_gguf
from eosfm_edge.native.header import EosfmError

FIRST = "specialists/s0.gguf"


@pytest.fixture
def copied(specks: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(specks["fp32"], tmp_path / "given")


def refusal(bundle: Path) -> str:
    """Return the sentence of an opening that must fail, and soon."""
    started = time.process_time()
    with pytest.raises(EosfmError) as error:
        Model(bundle)
    assert time.process_time() - started < 1
    return str(error.value)


def peak(bundle: Path) -> int:
    """Return by how many bytes an opening raises the peak of a process's memory."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom eosfm_edge.native.binding import Model\n"
        "from eosfm_edge.native.header import EosfmError, library\nlibrary()\n"
        "def peak():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "try:\n    Model(Path(sys.argv[1]))\nexcept EosfmError as error: pass\n"
        "print(1024 * (peak() - before))"
    )
    return int(subprocess.check_output([sys.executable, "-c", script, str(bundle)], text=True))


def named_by_both(bundle: Path, name: str, message: str) -> None:
    assert message in refusal(bundle)
    with pytest.raises(UserError, match=message):
        read_gguf(bundle / name)


def size_of(bundle: Path) -> int:
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


@pytest.mark.parametrize("file", ["chain.gguf", FIRST])
def test_a_key_that_is_there_twice_is_refused(copied: Path, file: str) -> None:
    for name in ("general.name", "eosfm.version"):
        content = GgufFile(copied / file)
        content.keys.append(list(content.key(name)))
        content.save(copied / "changed")
        kept = (copied / file).read_bytes()
        (copied / "changed").replace(copied / file)
        named_by_both(copied, file, f"has the key {name} twice")
        (copied / file).write_bytes(kept)


@pytest.mark.parametrize("file", ["chain.gguf", FIRST])
def test_a_tensor_that_is_there_twice_is_refused(copied: Path, file: str) -> None:
    content = GgufFile(copied / file)
    content.tensors.append(list(content.tensors[0]))
    content.save(copied / file)
    name = content.tensors[0][0].decode()
    named_by_both(copied, file, f"has the tensor {name} twice")


def test_more_tensors_than_any_network_has_are_refused(copied: Path) -> None:
    content = GgufFile(copied / FIRST)
    content.tensors += [zeros(f"t{i}", 1) for i in range(1 << 16)]
    content.save(copied / FIRST)
    assert "expected at most 8192" in refusal(copied)
    assert peak(copied) < 2 * size_of(copied)
    with pytest.raises(UserError, match="expected at most 8192"):
        read_gguf(copied / FIRST)


def test_many_tensors_in_many_specialists_open_in_linear_time(copied: Path) -> None:
    """The most that the format allows of each: a search that is linear takes minutes here."""
    count, blocks, widths = 64, (64, 64, 64, 64), (8, 8, 8, 8)
    content = GgufFile(copied / FIRST)
    zero_specialist(content, 2, blocks, widths, 8)
    # Names of one length that sort before and after the network's.
    content.tensors += [
        zeros(f"{'az'[i % 2]}{i:027}", 1) for i in range(8192 - len(content.tensors))
    ]
    for path in copied.glob("specialists/*"):
        path.unlink()
    for index in range(count):
        content.save(copied / f"specialists/s{index}.gguf")
    chain = GgufFile(copied / "chain.gguf")
    chain.keys = [key for key in chain.keys if key[0] != b"eosfm.specialists.tensors_sha256"]
    chain.set("eosfm.specialists.names", [b"s%d" % i for i in range(count)])
    files = [b"specialists/s%d.gguf" % i for i in range(count)]
    chain.set("eosfm.specialists.files", files)
    chain.set("eosfm.specialists.factors", [1.0] * count)
    chain.set("eosfm.runs.specialists", list(range(count)))
    chain.set("eosfm.runs.lengths", [2] * count)
    chain.set("eosfm.runs.bands", [0, 1] * count)
    chain.set("eosfm.runs.channels", [8 * (i // 4) for i in range(4 * count)])
    chain.set("eosfm.levels.channels", [8 * count] * 4)
    chain.set("eosfm.normalisation", b"none")
    chain.tensors = [one for one in chain.tensors if one[0] == b"known.image"]
    chain.tensors += [zeros(f"known.level{i + 1}", 8 >> i, 8 >> i, 8 * count) for i in range(4)]
    chain.save(copied / "chain.gguf")
    started = time.process_time()
    with Model(copied) as model:
        assert model.describe().specialists == count
    assert time.process_time() - started < 0.1 * count
    assert peak(copied) < 2 * size_of(copied)


def test_a_file_that_serves_two_specialists_is_refused(copied: Path) -> None:
    chain = GgufFile(copied / "chain.gguf")
    chain.set("eosfm.specialists.files", [FIRST.encode()] * 2)
    chain.save(copied / "chain.gguf")
    assert f"names {FIRST} for two specialists" in refusal(copied)


@pytest.mark.parametrize(
    "path", ["specialists//s0.gguf", "./specialists/s0.gguf", "specialists/./s0.gguf", "a/../chain",
             "/etc/passwd", "..", ".", "", "specialists/"],
)  # fmt: skip
def test_a_file_has_one_spelling(copied: Path, path: str) -> None:
    chain = GgufFile(copied / "chain.gguf")
    chain.set("eosfm.specialists.files", [FIRST.encode(), path.encode()])
    chain.save(copied / "chain.gguf")
    assert "outside the bundle, or not by its plain path" in refusal(copied)


def test_runs_of_one_specialist_share_its_weights(specks: dict[str, Path], tmp_path: Path) -> None:
    """A thousand runs of one specialist took a thousand times its projections."""
    copied = shutil.copytree(specks["int8"], tmp_path / "given")
    with Model(copied) as model:
        once = model.requirements(threads=1).weights_bytes
    chain = GgufFile(copied / "chain.gguf")
    runs = 1000
    chain.set("eosfm.runs.specialists", [0] * (runs - 1) + [1])
    chain.set("eosfm.runs.lengths", [2] * runs)
    chain.set("eosfm.runs.bands", [0, 1] * runs)
    chain.save(copied / "chain.gguf")
    with Model(copied) as model:
        assert model.describe().runs == runs
        # A run has descriptors of its own, of some hundred bytes, and no weights.
        assert model.requirements(threads=1).weights_bytes < once + 512 * runs


@pytest.mark.parametrize("file", ["chain.gguf", FIRST])
def test_what_is_no_file_is_refused_at_once(copied: Path, tmp_path: Path, file: str) -> None:
    whole = (copied / file).read_bytes()
    for make, word in (
        (os.mkfifo, "is a FIFO, a folder or a device"),
        (os.mkdir, "is a FIFO, a folder or a device"),
        (lambda path: path.symlink_to(tmp_path / "outside"), "a bundle holds no links"),
        (lambda path: path.symlink_to("/dev/zero"), "a bundle holds no links"),
    ):
        (tmp_path / "outside").write_bytes(whole)
        (copied / file).unlink(missing_ok=True)
        make(copied / file)
        assert word in refusal(copied)
        (copied / file).rmdir() if (copied / file).is_dir() else (copied / file).unlink()


def test_counts_that_the_file_makes_up_are_refused(copied: Path) -> None:
    whole = (copied / "chain.gguf").read_bytes()
    content = GgufFile(copied / "chain.gguf")
    text = next(key for key in content.keys if key[1] == ARRAY and key[2] == TEXT)
    at = whole.index(text[0]) + len(text[0]) + 8  # behind name, type and element type
    for count in (1 << 20, 1 << 40, 1 << 61, (1 << 64) - 1):
        forged = whole[:at] + struct.pack("<Q", count) + whole[at + 8 :]
        (copied / "chain.gguf").write_bytes(forged)
        assert "chain.gguf" in refusal(copied)
        started = time.process_time()
        with pytest.raises(UserError, match="is damaged"):
            read_gguf(copied / "chain.gguf")
        assert time.process_time() - started < 1


def test_python_and_the_library_read_the_same(specks: dict[str, Path], tmp_path: Path) -> None:
    """A damaged chain that libeosfm opens is read by Python too, with the same bands."""
    copied = shutil.copytree(specks["fp32"], tmp_path / "given")
    whole = (copied / "chain.gguf").read_bytes()
    rng, opened = random.Random(0), 0
    for _ in range(2000):
        forged = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            forged[rng.randrange(3000)] = rng.choice((0, 1, 255, rng.randrange(256)))
        (copied / "chain.gguf").write_bytes(forged)
        try:
            model = Model(copied)
        except EosfmError:
            continue
        opened += 1
        with model:
            chain = read_gguf(copied / "chain.gguf").values
            for index, name in enumerate(chain["eosfm.input.names"]):
                band = model.band(index)
                assert band.name.decode("utf-8", "backslashreplace") == name
                assert band.scale == chain["eosfm.input.scales"][index]
    assert opened > 50


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_memory_limit_counts_the_weights(specks: dict[str, Path], precision: str) -> None:
    with Model(specks[precision]) as model:
        plan = model.requirements(threads=1)
        needed = plan.context_bytes + plan.weights_bytes
        model.context(threads=1, memory_limit=needed).close()
        with pytest.raises(
            EosfmError, match=f"its weights {plan.weights_bytes} and its backend 0,"
        ):
            model.context(threads=1, memory_limit=needed - 1)


def test_false_packet_headers_take_the_library_no_time(programs: Path, tmp_path: Path) -> None:
    if not (programs / "read_packets").exists():
        pytest.skip("there is no libzstd-dev or no zlib1g-dev")
    size, channels, side = 1_300_000, 2, 4
    fields = (bytes(8), 1, 1, 0, 0, 0, side, side, 0, channels, channels, 0, channels * (16 + 4))
    data = b"".join(
        struct.pack("<4sHHII8sBBHIIHHHHHHI", b"EOSP", 1, 52, size - at, 0, *fields)
        for at in range(0, size, 52)
    )
    (tmp_path / "file").write_bytes(data)
    before = os.times().children_user
    said = run([programs / "read_packets", tmp_path / "file"])
    assert said.splitlines() == [f"{len(data)} bytes belong to no intact packet"]
    assert os.times().children_user - before < 1
