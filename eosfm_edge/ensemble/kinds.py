"""Kinds of weight files, told apart by their first bytes and not by their names."""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path

from eosfm_edge.errors import UserError

# Names that model hubs give the file with a model's weights: the folder's name is the model's.
NAMELESS = ("model.safetensors", "pytorch_model.bin", "model.pth", "model.ckpt", "model.pt")
_SUFFIXES = ("*.safetensors", "*.pth", "*.pt", "*.ckpt", "*.bin")


class Kind(Enum):
    """The kinds of weight files."""

    SAFETENSORS = auto()
    PYTORCH = auto()


# (offset, bytes there, what such a file is, what helps)
_OTHERS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the weights", "git lfs pull"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save the model's state_dict with torch.save"),
    (0, b"GGUF", "a GGUF file", "give the PyTorch weights that it was made from"),
    (0, b"\x93NUMPY", "a numpy array", "give the PyTorch weights"),
    (0, b"\x1f\x8b", "compressed by gzip", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it"),
    (257, b"ustar", "a tar archive", "unpack it"),
    (0, b"<", "a web page or XML: a download that did not give the file", "fetch it again"),
)


def kind_of(path: Path) -> Kind:
    """Return how a file is written.

    Raises:
        UserError: it is empty, or of a well-known kind that holds no PyTorch weights.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
        size = file.seek(0, 2)
    if not size:
        raise UserError(f"{path} is not a whole file of weights: it is empty",
                        remedy="fetch it again")  # fmt: skip
    for offset, magic, what, remedy in _OTHERS:
        if head[offset : offset + len(magic)] == magic:
            raise UserError(
                f"{path} is {what}", expected=".safetensors, or saved by torch.save", remedy=remedy
            )
    if head[8:9] == b"{":
        # The length of a JSON header, and the header.
        return Kind.SAFETENSORS
    if head.startswith((b"PK", b"\x80")):
        return Kind.PYTORCH
    if path.suffix == ".safetensors":
        return Kind.SAFETENSORS  # whose reader says what is wrong with it
    return Kind.PYTORCH


def weights_in(folder: Path) -> Path:
    """Return the weight file of a folder as model hubs fill them.

    Raises:
        UserError: there is none, or more than one.
        OSError: it cannot be read.
    """
    for name in NAMELESS[:2]:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path.name for suffix in _SUFFIXES for path in folder.glob(suffix))
    if len(found) == 1:
        return folder / found[0]
    if (folder / "ensemble.json").exists():
        remedy = f"give {folder}/specialists/*.safetensors {folder}/ensemble.safetensors"
    elif found:
        remedy = f"give the one that is meant: {', '.join(found[:5])}"
    else:
        remedy = "give a weight file"
    raise UserError(
        f"{folder} is a folder with {len(found) or 'no'} weight files",
        expected=f"a file, or a folder with {' or '.join(NAMELESS[:2])}",
        remedy=remedy,
    )


def require_weights(path: Path) -> None:
    """Check that a file or a folder can hold weights; what is in the file is not read.

    Raises:
        UserError: it is empty, of another well-known kind, or a folder without one weight file.
    """
    try:
        kind_of(weights_in(path) if path.is_dir() else path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
