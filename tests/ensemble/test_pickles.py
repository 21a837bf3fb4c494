"""The reader of pickles: nothing is looked up or called, and it ends in time."""

from __future__ import annotations

import argparse
import codecs
import datetime
import functools
import io
import pickle
import pickletools
import re
import sys
import time
import tracemalloc
import uuid
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.weights import refusal

from eosfm_edge.ensemble.pickles import Inert, NotAPickleError, Unpickler
from eosfm_edge.ensemble.settings import entries, plain
from eosfm_edge.errors import UserError

# The time that a pickle of a megabyte may take at most, on a machine with other work to do.
SECONDS = 20.0


def load(data: bytes) -> object:
    return Unpickler(io.BytesIO(data), {}, lambda identity: Inert("persistent", ())).load()


# What Python itself reports of code that is looked up or run, while `watching`.
_REACHES_CODE = re.compile(r"import|exec|compile|pickle|os\.|subprocess|open|ctypes|marshal|socket")
_reached: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    of_text = event == "import" and str(arguments[0]).startswith("encodings.")
    if _watching and _REACHES_CODE.match(event) and not of_text:
        _reached.append(f"{event} {str(arguments)[:80]}")


# Python loads a text encoding when it is first used, which is code of its own.
for encoding in ("ascii", "latin-1", "raw_unicode_escape", "unicode_escape", "utf-8"):
    codecs.lookup(encoding)
sys.addaudithook(_audit)


@contextmanager
def watching() -> Iterator[list[str]]:
    """Give the list of what is looked up or run in the block."""
    global _watching
    _reached.clear()
    _watching = True
    try:
        yield _reached
    finally:
        _watching = False


def test_the_watch_sees_what_python_s_own_reader_does() -> None:
    # Else the tests below would show nothing.
    with watching() as reached:
        pickle.loads(b"cos.path\nbasename\n(S'a/b'\ntR.")
    assert any("find_class" in event for event in reached)


def instructions() -> st.SearchStrategy[bytes]:
    """Return any program of a pickle: an instruction, and bytes that may be its argument."""
    name = st.sampled_from([b"os\nsystem\n", b"builtins\nexec\n", b"torch._utils\nx\n", b"a\nb\n"])
    text = st.sampled_from([b"id\n", b"1\n", b"'x'\n", b"-1\n", b"I01\n"])
    argument = st.one_of(st.binary(max_size=9), name, text)
    codes = st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])
    return st.lists(st.tuples(codes, argument).map(b"".join), max_size=30).map(b"".join)


def well_formed() -> st.SearchStrategy[bytes]:
    """Return programs that mostly run to their end: calls of whatever is on the stack."""
    parts = st.sampled_from(
        [
            b"cos\nsystem\n", b"(S'id'\nt", b"R", b"\x81", b"}", b"]", b")", b"K\x01",
            b"X\1\0\0\0a", b"\x85", b"\x86", b"b", b"2", b"0", b"(", b"t", b"l", b"d", b"s",
            b"u", b"a", b"e",
            b"q\0", b"h\0", b"\x94", b"\x93", b"\x8c\x02os", b"\x8c\x06system", b"\x92", b"o",
            b"ios\nsystem\n", b"Q", b"Pid\n", b"\x8f", b"\x90", b"\x91", b"\x82\x01", b"N", b"\x88",
        ]
    )  # fmt: skip
    return st.lists(parts, max_size=40).map(lambda parts: b"\x80\x04" + b"".join(parts) + b".")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.one_of(instructions(), well_formed(), st.binary(max_size=60)))
def test_no_pickle_reaches_code(data: bytes) -> None:
    made: object = None
    with watching() as reached, suppress(NotAPickleError, UserError):
        made = load(data)
        entries(made)
        plain(made)
    assert not reached
    plain_types = (Inert, dict, list, tuple, str, bytes, bytearray, int, float, bool, type(None))
    assert isinstance(made, plain_types)


def test_what_is_plain_is_taken() -> None:
    value = {
        "text": "é", "bytes": b"\xff", "numbers": [1, -2, 3.5, 2**70, True, None],
        "nested": ({"a": (1,)}, [[]]), "ordered": OrderedDict(b=1),
        "default": defaultdict(list, c=[2]), "counter": Counter("aab"),
        7: "number", None: "nothing",
    }  # fmt: skip
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert load(pickle.dumps(value, protocol)) == value


class Plain(argparse.Namespace):
    pass


class OwnDict(dict[str, int]):
    pass


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_objects_are_inert_and_tell_what_they_would_have_been(protocol: int) -> None:
    values: list[Any] = [
        np.float64(0.5), PurePosixPath("a/b"), uuid.UUID(int=7), datetime.datetime(2026, 1, 2),
        functools.partial(print, 1), {1, 2}, frozenset({3}), np.ones(3), len, slice(1, 2), Plain(),
        range(3), 3 + 4j, np.dtype("f4"),
    ]  # fmt: skip
    for value in values:
        made = load(pickle.dumps(value, protocol))
        assert isinstance(made, Inert), value
    path = load(pickle.dumps(PurePosixPath("a/b"), protocol))
    assert isinstance(path, Inert)
    assert path.name.endswith("PurePosixPath")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_attributes_and_keys_of_inert_objects_are_read(protocol: int) -> None:
    for value in (Plain(lr=1e-3, layers=4), OwnDict(lr=1e-3, layers=4)):
        made = entries(load(pickle.dumps(value, protocol)))
        assert {key: made[key] for key in ("lr", "layers")} == {"lr": 1e-3, "layers": 4}


@pytest.mark.parametrize("number", [np.int64(13), np.uint8(3), np.float32(0.5), np.bool_(True)])
def test_numpy_s_scalars_are_numbers(number: np.generic) -> None:
    assert plain(load(pickle.dumps(number, 2))) == number.item()


def test_omegaconf_is_read_without_omegaconf() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"k": 4, "name": "topk", "list": [1, 2], "none": None})
    made = entries(load(pickle.dumps(config)))
    assert {key: plain(value) for key, value in made.items()} == {
        "k": 4, "name": "topk", "list": [1, 2], "none": None
    }  # fmt: skip


def doubled(pair: bytes, times: int) -> bytes:
    """Return a pickle of a value of two values of two values ..."""
    return b"\x80\x02N" + (b"q\0h\0" + pair) * times + b"."


N = 10_000
BOMBS = {
    "tuple of tuples": doubled(b"\x86", 50_000),
    "such a tuple as a key": b"\x80\x02}" + doubled(b"\x86", 20_000)[2:-1] + b"q\1Ns"
    + b"h\1Ns" * N + b".",
    "list in list": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "calls in calls": b"\x80\x02cos\nsystem\n" + b")R" * 50_000 + b".",
    "call of a call": b"\x80\x02" + b"cos\nx\n" * N + b"N" + b"\x85R" * N + b".",
    "state in state": b"\x80\x02" + b"cos\nx\n)R" * N + b"b" * (N - 1) + b".",
    "marks": b"(" * 100_000 + b".",
    "long number": b"\x80\x02\x8b\x40\x42\x0f\0" + b"\x7f" * 1_000_000 + b".",
    "long number as key": b"\x80\x02}\x8b\x40\x42\x0f\0" + b"\x7f" * 1_000_000 + b"q\0Ns"
    + b"h\0Ns" * N + b".",
    "long decimal number": b"L" + b"7" * 1_000_000 + b"L\n.",
    "array that is not there": b"\x80\x05\x96" + b"\xff" * 7 + b"\x00" + b"x.",
    "text that is not there": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x00" + b"x.",
    "bytes that are not there": b"\x80\x02B\xff\xff\xff\x7fx.",
    "memo far away": b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xff.",
    "ordered dictionary of one list": b"\x80\x02](" + b"]" * N + b"eq\0"
    + b"0ccollections\nOrderedDict\nq\1h\0\x85R" * 1_000 + b".",
    "encoded over and over": b"\x80\x02X\xa0\x86\x01\0" + b"a" * 100_000 + b"q\0"
    + b"0c_codecs\nencode\nh\0\x85R" * 10_000 + b".",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_time_and_memory_are_linear_in_the_pickle(bomb: bytes) -> None:
    tracemalloc.start()
    start = time.process_time()
    try:
        made = load(bomb)
        assert made is not bomb
        entries(made)
        plain(made)
        del made
    except (NotAPickleError, UserError):
        pass
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < SECONDS
    assert peak < 300 * len(bomb) + 10_000_000


def test_more_instructions_than_any_checkpoint_has_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("eosfm_edge.ensemble.pickles.MOST_INSTRUCTIONS", 100)
    assert load(b"]" * 98 + b".") == []
    with pytest.raises(UserError, match="more than 100 instructions"):
        load(b"]" * 200 + b".")


def test_a_bomb_in_a_file_is_told_in_one_message(tmp_path: Path) -> None:
    for name, bomb in BOMBS.items():
        (tmp_path / "bomb.pth").write_bytes(bomb)
        assert "bomb.pth" in refusal(tmp_path, [tmp_path / "bomb.pth"]), name
