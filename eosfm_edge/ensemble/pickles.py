"""Pickles read without running anything: what would need code becomes an inert placeholder.

A pickle is a program for a small stack machine, and two of its instructions look up a name and
call it. This reader decodes the instructions with `pickletools` and executes them itself. It never
looks a name up: it keeps it as an :class:`Inert` object, with what it would have been called with.
The few names that make plain values or tensors are answered by ``builders`` of the caller.

Time and memory are linear in the pickle: no instruction copies what is there already without
paying for it, nothing recurses, and the number of instructions is bounded.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, cast

from eosfm_edge.errors import UserError

# A checkpoint of 25 specialists with its optimiser's state has about 500,000.
MOST_INSTRUCTIONS = 4_000_000

Builder = Callable[..., object]

_NO_ENTRIES: Mapping[object, object] = MappingProxyType({})

# Instructions whose argument is the value itself.
_LITERALS = {
    "BINBYTES", "BINBYTES8", "BINFLOAT", "BININT", "BININT1", "BININT2", "BINSTRING", "BINUNICODE",
    "BINUNICODE8", "BYTEARRAY8", "FLOAT", "INT", "LONG", "LONG1", "LONG4", "SHORT_BINBYTES",
    "SHORT_BINSTRING", "SHORT_BINUNICODE", "STRING", "UNICODE",
}  # fmt: skip
_EMPTY: Mapping[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_GETS, _PUTS = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}


class Inert:
    """A placeholder for an object that a pickle names or makes by a call, and that is not made.

    Attributes:
        name: ``module.name``.
        arguments: what it would have been called with; None for the name itself.
        state: what the object's ``__setstate__`` or ``__dict__`` would have been given.
        items: what would have been appended or added to it.
        entries: what would have been set in it by key.
    """

    __slots__ = ("arguments", "entries", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple[object, ...] | None = None) -> None:
        self.name = name
        self.arguments = arguments
        self.state: object = None
        self.items: Sequence[object] = ()
        self.entries: Mapping[object, object] = _NO_ENTRIES


class Stream(Protocol):
    """The source of a pickle: ``read`` gives no more than is left, whatever it is asked for."""

    def read(self, size: int = ..., /) -> bytes:
        """Return so many bytes, fewer at the end."""

    def readline(self) -> bytes:
        """Return the bytes to the next line's end, which they include."""

    def tell(self) -> int:
        """Return the place of the next byte."""


class NotAPickleError(Exception):
    """The bytes are not a whole pickle."""


class Unpickler:
    """Reads pickles from a stream, one after another.

    Args:
        stream: the file, at a pickle's beginning.
        builders: what to call for a name, with the arguments that the pickle has for it.
        persistent: what to call for a persistent id.
    """

    def __init__(
        self, stream: Stream, builders: Mapping[str, Builder], persistent: Builder
    ) -> None:
        self._stream = stream
        self._builders: dict[str, Builder] = {
            "_codecs.encode": self._encoded,
            "builtins.bytearray": self._bytes,
            "collections.Counter": self._mapping,
            "collections.OrderedDict": self._mapping,
            "collections.defaultdict": lambda *_: {},
            **builders,
        }
        self._persistent = persistent
        self._instructions = 0
        self._copied = 0

    def load(self) -> object:
        """Return the next pickle's object.

        Raises:
            NotAPickleError: the bytes are cut short, or are no pickle.
            UserError: it has more instructions than any checkpoint.
        """
        try:
            return self._run()
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise NotAPickleError(type(error).__name__) from error

    def _run(self) -> object:
        stack: list[Any] = []
        marked: list[list[Any]] = []  # stacks below the marks
        memo: dict[int, object] = {}

        def to_mark() -> list[Any]:
            nonlocal stack
            above, stack = stack, marked.pop()
            return above

        for instruction, argument, _ in pickletools.genops(cast(Any, self._stream)):
            self._instructions += 1
            if self._instructions > MOST_INSTRUCTIONS:
                raise UserError(f"its pickle has more than {MOST_INSTRUCTIONS:,} instructions")
            name = instruction.name
            if name in _LITERALS:
                stack.append(argument)
            elif name in _GETS:
                stack.append(memo[_integer(argument)])
            elif name in _PUTS:
                memo[_integer(argument)] = stack[-1]
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                stack.append(_EMPTY[name]())
            else:
                match name:
                    case "MEMOIZE":
                        memo[len(memo)] = stack[-1]
                    case "MARK":
                        marked.append(stack)
                        stack = []
                    case "POP":
                        if stack:
                            stack.pop()
                        else:
                            to_mark()
                    case "POP_MARK":
                        to_mark()
                    case "DUP":
                        stack.append(stack[-1])
                    case "TUPLE1" | "TUPLE2" | "TUPLE3":
                        count = int(name[-1])
                        stack[-count:] = [tuple(_last(stack, count))]
                    case "TUPLE":
                        values = to_mark()
                        stack.append(tuple(values))
                    case "LIST":
                        values = to_mark()
                        stack.append(values)
                    case "DICT":
                        values = to_mark()
                        stack.append({})
                        _set_items(stack[-1], values)
                    case "EMPTY_SET":
                        stack.append(Inert("builtins.set", ()))
                    case "FROZENSET":
                        values, frozen = to_mark(), Inert("builtins.frozenset", ())
                        frozen.items = values
                        stack.append(frozen)
                    case "APPEND":
                        value = stack.pop()
                        _append(stack[-1], [value])
                    case "APPENDS" | "ADDITEMS":
                        values = to_mark()
                        _append(stack[-1], values)
                    case "SETITEM":
                        pair = _last(stack, 2)
                        del stack[-2:]
                        _set_items(stack[-1], pair)
                    case "SETITEMS":
                        values = to_mark()
                        _set_items(stack[-1], values)
                    case "GLOBAL":
                        stack.append(Inert(str(argument).replace(" ", ".", 1)))
                    case "STACK_GLOBAL":
                        module, attribute = _last(stack, 2)
                        if not isinstance(module, str) or not isinstance(attribute, str):
                            raise ValueError("a name that is no text")
                        stack[-2:] = [Inert(f"{module}.{attribute}")]
                    case "EXT1" | "EXT2" | "EXT4":
                        stack.append(Inert("copyreg.extension"))
                    case "REDUCE" | "NEWOBJ":
                        called, arguments = _last(stack, 2)
                        stack[-2:] = [self._call(called, arguments)]
                    case "NEWOBJ_EX":
                        called, arguments, keywords = _last(stack, 3)
                        stack[-3:] = [self._call(called, arguments, keywords)]
                    case "OBJ":
                        called, *rest = to_mark()
                        stack.append(self._call(called, tuple(rest)))
                    case "INST":
                        values = to_mark()
                        called = Inert(str(argument).replace(" ", ".", 1))
                        stack.append(self._call(called, tuple(values)))
                    case "BUILD":
                        state = stack.pop()
                        if isinstance(stack[-1], Inert):
                            stack[-1].state = state
                    case "PERSID":
                        stack.append(self._persistent(argument))
                    case "BINPERSID":
                        stack[-1] = self._persistent(stack[-1])
                    case "NEXT_BUFFER":
                        stack.append(Inert("pickle.PickleBuffer"))
                    case "STOP":
                        return stack.pop()
                    case "PROTO" | "FRAME" | "READONLY_BUFFER":
                        pass
                    case _:
                        raise ValueError(f"an unknown instruction {name}")
        raise ValueError("no end")

    def _call(self, called: object, arguments: object, keywords: object = None) -> object:
        """Return what a builder makes of a call, or the call as it is."""
        if not isinstance(called, Inert) or not isinstance(arguments, tuple):
            raise ValueError("a call of what cannot be called")
        if called.arguments is not None:
            return Inert(f"{called.name}()", arguments)
        builder = self._builders.get(called.name)
        if builder is None:
            made = Inert(called.name, arguments)
            made.state = keywords
            return made
        return builder(*arguments)

    def _pay(self, size: int) -> None:
        """Refuse calls that together copy more than the file could hold: all from its memo."""
        self._copied += size
        if self._copied > self._stream.tell():
            raise ValueError("one value is copied over and over")

    def _encoded(self, text: object, encoding: object = "latin1") -> bytes:
        # How protocol 2 writes bytes.
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes in an unknown encoding")
        self._pay(len(text))
        return text.encode("latin-1")

    def _bytes(self, content: object = b"", *_: object) -> bytes:
        return content if isinstance(content, bytes) else b""

    def _mapping(self, pairs: object = (), *_: object) -> dict[object, object]:
        if isinstance(pairs, dict):
            self._pay(len(pairs))
            return dict(pairs)
        made: dict[object, object] = {}
        if isinstance(pairs, list | tuple):
            self._pay(len(pairs))
            for pair in pairs:
                key, value = pair  # as Python 2 wrote ordered dictionaries
                made[_key(key)] = value
        return made


def _integer(argument: object) -> int:
    if not isinstance(argument, int):
        raise ValueError("a number that is none")
    return argument


def _last(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError("the stack is empty")
    return stack[-count:]


def _append(target: object, values: list[object]) -> None:
    if isinstance(target, Inert):
        target.items = target.items or []
        target = target.items
    if isinstance(target, list):
        target.extend(values)
    else:
        raise ValueError("values are appended to what is no list")


def _set_items(target: object, pairs: list[Any]) -> None:
    if isinstance(target, Inert):
        target.entries = target.entries or {}
        target = target.entries
    if not isinstance(target, dict) or len(pairs) % 2:
        raise ValueError("keys without values, or in what is no dict")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        target[_key(key)] = value


def _key(key: object) -> object:
    """Return a key that takes no time to hash: a tuple of tuples of tuples does, each time."""
    if isinstance(key, str | bytes | Inert) or key is None:
        return key
    if isinstance(key, int) and key.bit_length() <= 64:
        return key
    if isinstance(key, float) and math.isfinite(key):
        return key
    return Inert(f"builtins.{type(key).__name__}", (key,))
