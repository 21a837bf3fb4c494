"""The encoders in weight files, and the names that they get as specialists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eosfm_edge.ensemble.checkpoint import Checkpoint, EncoderEntry
from eosfm_edge.ensemble.kinds import NAMELESS
from eosfm_edge.errors import UserError
from eosfm_edge.formats.base import LONGEST_NAME, plain_name


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder, the file it is in, and its name in the ensemble, which no other has."""

    checkpoint: Checkpoint
    entry: EncoderEntry
    name: str


def named_encoders(checkpoints: Sequence[Checkpoint]) -> list[NamedEncoder]:
    """Return the encoders of all files, in order.

    Raises:
        UserError: there is none.
    """
    found = [(checkpoint, entry) for checkpoint in checkpoints for entry in checkpoint.encoders]
    if not found:
        raise UserError("no specialist in " + ", ".join(str(c.path) for c in checkpoints))
    names = _unique([_name(checkpoint, entry) for checkpoint, entry in found])
    return [NamedEncoder(*one, name) for one, name in zip(found, names, strict=True)]


def require_choice(prefix: str | None, checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse a prefix that chooses nothing: whoever gives one believes that there is a choice."""
    if prefix is None or any(c.prefixes for c in checkpoints):
        return
    raise UserError(
        f"--prefix {prefix!r}: {', '.join(str(c.path) for c in checkpoints)} hold one encoder each",
        remedy="leave --prefix out",
    )


def require_order(header: Mapping[str, str], names: Sequence[str]) -> None:
    """Statistics and fusion belong to specialists by number: refuse another order."""
    meant = header.get("specialists")
    if meant is not None and meant.split(",") != list(names):
        raise UserError(
            f"specialists are given as {', '.join(names)}",
            expected=meant.replace(",", ", ") + ", as the file with their fusion says",
            remedy="give the files in that order",
        )


def require_names(specialist_bands: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuse bands of a specialist that is not there."""
    unknown = set(specialist_bands) - set(names)
    if unknown:
        raise UserError(
            f"bands are given for {sorted(unknown)[0]!r}", expected=f"one of {', '.join(names)}"
        )


def _name(checkpoint: Checkpoint, entry: EncoderEntry) -> str:
    """Return what the file calls the specialist, or what the file is called."""
    given = entry.config.get("encoder_name") or checkpoint.metadata.get("name")
    if given is None and len(checkpoint.encoders) > 1:
        given = f"encoder_{checkpoint.encoders.index(entry) + 1}"  # the reference's own default
    if given is None:
        path = checkpoint.path
        given = path.parent.name if path.name in NAMELESS else path.stem
    return plain_name(str(given)) or "specialist"


def _unique(names: list[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        candidate, n = name, 2
        while candidate in result:
            candidate, n = f"{name[: LONGEST_NAME - len(str(n)) - 1]}_{n}", n + 1
        result.append(candidate)
    return result
