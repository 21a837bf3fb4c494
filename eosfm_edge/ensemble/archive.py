"""The format of torch.save: an archive of a pickle and the storages that its tensors lie in.

Reading one gives the pickle's objects with tensors as places in the file, so that only those
that are wanted are read. No name in the pickle is looked up (`eosfm_edge.ensemble.pickles`).
Both formats are read: a zip file since PyTorch 1.6, pickles and storages in turn before.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from eosfm_edge.ensemble.pickles import Builder, Inert, NotAPickleError, Unpickler
from eosfm_edge.errors import UserError

_ZIP = b"PK\3\4"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_DIMENSIONS = 8
# Views may be larger than what they show: expanded biases, say.
_SPARE_BYTES = 1 << 20

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {f"torch.{name}": dtype for name, dtype in vars(torch).items()
           if isinstance(dtype, torch.dtype)}  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A place of values: the archive's name for it, the type and number of its elements."""

    key: str
    dtype: torch.dtype
    count: int
    start: int = 0  # of a view into a storage, in elements: PyTorch before 0.4

    @property
    def size(self) -> int:
        """Return its bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, eq=False, slots=True)
class StoredTensor:
    """A tensor as a place in an archive; its members are as the file says, unchecked."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Archive:
    """A file by torch.save: ``content`` is its pickle's object, with :class:`StoredTensor` in it.

    Raises:
        UserError: the file is cut short or damaged, or is not by torch.save.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file_size = path.stat().st_size
        self._read: dict[str, bytearray] = {}
        self._expanded = 0
        self._prefix = ""  # of a zip file's entries
        self._places: dict[str, int] = {}  # of a legacy file's storages
        with path.open("rb") as file, self._complaints():
            zipped = file.read(len(_ZIP)) == _ZIP
            self.content = self._zipped(file) if zipped else self._legacy(file)

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read a tensor.

        Raises:
            UserError: the file does not hold what it says of the tensor.
        """
        size, stride, offset = stored.size, stored.stride, stored.offset
        numbers = (*size, *stride, offset)
        if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
            raise self._damaged()
        elements = math.prod(size)
        span = sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
        start = offset + stored.storage.start
        if elements and (start + span) * stored.dtype.itemsize > stored.storage.size:
            raise self._damaged()
        self._expanded += elements * stored.dtype.itemsize
        if self._expanded > 2 * self._file_size + _SPARE_BYTES:
            raise UserError(
                f"{self.path} has {self._file_size:,} bytes, but its tensors would take more than "
                f"{self._expanded:,}",
                expected="tensors that are not larger than what the file holds of them",
            )
        if not elements:
            return torch.empty(size, dtype=stored.dtype)
        content = self._bytes_of(stored.storage)
        count = len(content) // stored.dtype.itemsize
        values = torch.frombuffer(content, dtype=stored.dtype, count=count)
        return values.as_strided(size, stride, start)

    def _bytes_of(self, storage: Storage) -> bytearray:
        """Return a storage's bytes, read once however many tensors lie in it."""
        if storage.key not in self._read:
            with self.path.open("rb") as file, self._complaints():
                self._read[storage.key] = self._entry(file, storage)
        if len(self._read[storage.key]) < storage.size:
            raise self._damaged()
        return self._read[storage.key]

    def _entry(self, file: IO[bytes], storage: Storage) -> bytearray:
        # Entries may overlap in a file that was made to: all together are no more than it has.
        left = self._file_size - sum(map(len, self._read.values()))
        if not self._prefix:
            file.seek(self._places[storage.key])
            return bytearray(file.read(min(left, storage.size)))
        entry = self._zip.getinfo(f"{self._prefix}data/{storage.key}")
        if entry.file_size > left:
            raise NotAPickleError
        return bytearray(self._zip.read(entry))

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        # Opened once: a file of many tensors has a long directory.
        return zipfile.ZipFile(self.path)

    def _zipped(self, file: IO[bytes]) -> object:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            pickled = next((name for name in names if name.endswith("/data.pkl")), None)
            if pickled is None:
                raise UserError(
                    f"{self.path} is a zip file, but not of torch.save: it holds "
                    f"{', '.join(names[:3]) or 'nothing'}",
                    expected="a .pth or .ckpt saved by torch.save",
                    remedy="unpack it, if the weights are in it",
                )
            self._prefix = pickled.removesuffix("data.pkl")
            if any(name.startswith((f"{self._prefix}code/", f"{self._prefix}constants.pkl"))
                   for name in names):  # fmt: skip
                raise UserError(
                    f"{self.path} is a TorchScript archive: a program and its weights",
                    expected="a state_dict saved by torch.save",
                    remedy="torch.save(torch.jit.load(FILE).state_dict(), 'state.pth')",
                )
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise UserError(
                    f"{self.path} was compressed after torch.save had written it",
                    remedy="load it and save it again with torch.save",
                )
            order = f"{self._prefix}byteorder"
            if order in names and archive.read(order) != b"little":
                raise self._big_endian()
            return self._unpickler(_Bounded(io.BytesIO(archive.read(pickled)))).load()

    def _legacy(self, file: IO[bytes]) -> object:
        stream = _Bounded(file)
        storages: dict[str, Storage] = {}
        unpickler = self._unpickler(stream, storages)
        if unpickler.load() != _LEGACY_MAGIC:
            raise UserError(
                f"{self.path} is a pickle that torch.save did not write",
                expected="a .pth or .ckpt saved by torch.save",
                remedy="load it where it comes from, and save its state_dict with torch.save",
            )
        unpickler.load()  # the format's version
        system = unpickler.load()
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise self._big_endian()
        content = unpickler.load()
        keys = unpickler.load()
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise NotAPickleError
        for key in keys:
            count = int.from_bytes(stream.read(8), "little", signed=True)
            if key not in storages or not storages[key].count == count >= 0:
                raise NotAPickleError
            self._places[key] = stream.tell()
            stream.seek(stream.tell() + storages[key].size)
        if stream.tell() > self._file_size:
            raise NotAPickleError
        return content

    def _unpickler(self, stream: _Bounded, storages: dict[str, Storage] | None = None) -> Unpickler:
        return Unpickler(stream, _BUILDERS, lambda identity: _storage(identity, storages))

    @contextmanager
    def _complaints(self) -> Iterator[None]:
        try:
            yield
        except (
            NotAPickleError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError,
            NotImplementedError, RuntimeError, OverflowError,
        ) as error:  # fmt: skip
            raise self._damaged() from error
        except UserError as error:
            if str(self.path) in str(error):
                raise
            raise UserError(f"{self.path} is not read: {error}") from error

    def _damaged(self) -> UserError:
        return UserError(
            f"{self.path} is not a whole PyTorch file: it was cut short, damaged, or is of "
            "another kind",
            expected="a .pth or .ckpt saved by torch.save",
            remedy="fetch it again",
        )

    def _big_endian(self) -> UserError:
        return UserError(
            f"{self.path} was written on a big-endian machine",
            remedy="load it there, and save the state_dict as .safetensors",
        )


class _Bounded:
    """A file whose ``read`` asks for no more than is left, whatever a length field says."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def readline(self) -> bytes:
        return self._file.readline()

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, place: int) -> int:
        return self._file.seek(place)


def _storage(identity: object, storages: dict[str, Storage] | None) -> object:
    """Return the storage of a persistent id: ('storage', type, key, device, elements[, view])."""
    match identity:
        case ("storage", Inert(name=name), str(key), _, int(count), *rest) if count >= 0:
            dtype = _STORAGES.get(name.rpartition(".")[2])
            if dtype is None:
                return Inert(name, ())
            storage = Storage(key, dtype, count)
            if storages is not None:
                storages[key] = storage
            match rest:
                case [(_, int(start), int())] if start >= 0:
                    return Storage(key, dtype, count, start)
            return storage
        case ("module", Inert() as class_, *_):
            return class_  # with its source code, which the legacy format keeps
    return Inert("torch.storage", ())


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> object:
    if not isinstance(storage, Storage):
        # Of a kind that no encoder has: quantised, sparse on another device, ...
        return Inert("torch._utils.tensor", ())
    return _stored(storage, storage.dtype, offset, size, stride)


def _tensor_of_type(
    storage: object, offset: object, size: object, stride: object, *rest: object
) -> object:
    # For types that no storage is named after: requires_grad, backward_hooks, dtype[, metadata]
    dtype = _DTYPES.get(rest[2].name) if len(rest) > 2 and isinstance(rest[2], Inert) else None
    if not isinstance(storage, Storage) or dtype is None:
        return Inert("torch._utils.tensor", ())
    return _stored(storage, dtype, offset, size, stride)


def _stored(
    storage: Storage, dtype: torch.dtype, offset: object, size: object, stride: object
) -> StoredTensor:
    if not (isinstance(offset, int) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise ValueError("a tensor without a shape")
    if len(size) > _MOST_DIMENSIONS:
        raise ValueError("a tensor of too many dimensions")
    return StoredTensor(storage, dtype, offset, size, stride)


def _parameter(data: object, *_: object) -> object:
    return data


def _from_type(function: object, _: object, arguments: object, *__: object) -> object:
    """Return a tensor that carries attributes, or is of a class of its own, without them."""
    builder = _BUILDERS.get(function.name) if isinstance(function, Inert) else None
    if builder is None or not isinstance(arguments, tuple):
        return Inert("torch._utils.tensor", ())
    return builder(*arguments)


def _size(dimensions: object = ()) -> object:
    return dimensions if isinstance(dimensions, tuple) else ()


_BUILDERS: dict[str, Builder] = {
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
}
