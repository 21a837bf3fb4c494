"""Engines beside a bundle: what was built on a device, and for what.

A bundle's manifest says what was exported, and may be signed; ``engines/`` is a cache that a device
fills, with a list of its own. An engine is never deserialised for anything but what it was built
for: TensorRT trusts the bytes it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import atomic_file, sha256_file
from eosfm_edge.formats.bundle import ENGINES_FOLDER, Manifest
from eosfm_edge.formats.engines import INDEX_NAME, EngineEntry, EngineIndex, EngineKey, read_index
from eosfm_edge.formats.target import TensorRt


def save_engine(
    bundle: Path,
    graph: str,
    key: EngineKey,
    engine: bytes,
    *,
    products: dict[str, int],
    time_share: dict[str, float] | None,
    seconds: float,
) -> EngineEntry:
    """Write an engine and then the list; one that it replaces is removed last.

    Interrupted anywhere, the list names only engines that are whole.

    Raises:
        UserError: it cannot be written.
    """
    file = f"{ENGINES_FOLDER}/{_file_name(graph, key)}"
    (bundle / ENGINES_FOLDER).mkdir(exist_ok=True)
    with atomic_file(bundle / file) as scratch:
        scratch.write_bytes(engine)
    entry = EngineEntry(
        graph=graph,
        key=key,
        file=file,
        size=len(engine),
        sha256=sha256_file(bundle / file),
        products=products,
        time_share=time_share,
        seconds=seconds,
    )
    kept = [other for other in read_index(bundle).engines if not _replaces(entry, other)]
    index = EngineIndex(engines=(*kept, entry))
    with atomic_file(bundle / ENGINES_FOLDER / INDEX_NAME) as scratch:
        scratch.write_text(index.model_dump_json(indent=1) + "\n")
    named = {other.file for other in index.engines}
    for path in (bundle / ENGINES_FOLDER).glob("*.engine"):
        if f"{ENGINES_FOLDER}/{path.name}" not in named:
            path.unlink()
    return entry


def _replaces(new: EngineEntry, old: EngineEntry) -> bool:
    """Return whether an engine replaces another.

    Engines for other GPUs and by other versions stay: a bundle may be copied to several devices.
    """
    return (old.graph, old.key.library, old.key.version, old.key.compute_capabilities) == (
        new.graph,
        new.key.library,
        new.key.version,
        new.key.compute_capabilities,
    )


def _file_name(graph: str, key: EngineKey) -> str:
    capabilities = "+".join(key.compute_capabilities)
    stem = Path(graph).stem
    return (
        f"{stem}-{key.library}-{key.version}-sm{capabilities}-{key.precision}"
        f"-{key.graph_sha256[:12]}.engine"
    )


@dataclass(frozen=True)
class Wanted:
    """The library, version and GPU that an engine must have been built for, to run here."""

    library: TensorRt
    version: str
    compute_capability: str


def find_engine(bundle: Path, manifest: Manifest, graph: str, wanted: Wanted) -> EngineEntry:
    """Return the engine of a graph as it is now, whose whole key matches.

    Raises:
        UserError: there is none; says what there is, and why it does not fit.
    """
    misfits = []
    for entry in read_index(bundle).engines:
        if entry.graph == graph:
            misfit = _misfit(entry.key, manifest, graph, wanted)
            if misfit is None:
                return entry
            misfits.append(f"{entry.file} {misfit}")
    raise UserError(
        f"{bundle} has no engine of {graph} that can run here"
        + "".join(f"; {misfit}" for misfit in misfits),
        expected=f"one built by {wanted.library} {wanted.version} for SM "
        f"{wanted.compute_capability} in {manifest.precision}",
        remedy=f"build it here with eosfm-edge build {bundle}",
    )


def _misfit(key: EngineKey, manifest: Manifest, graph: str, wanted: Wanted) -> str | None:
    if key.graph_sha256 != manifest.files[graph].sha256:
        return "was built from another graph of that name"
    if key.precision != manifest.precision:
        return f"was built for {key.precision}"
    if (key.library, key.version) != (wanted.library, wanted.version):
        return f"was built by {key.library} {key.version}"
    if wanted.compute_capability not in key.compute_capabilities:
        return f"was built for SM {', '.join(key.compute_capabilities)}"
    return None


def read_engine(bundle: Path, entry: EngineEntry) -> bytes:
    """Read an engine's bytes, to be deserialised.

    Raises:
        CheckFailedError: they are not those that were built.
    """
    path = bundle / entry.file
    if not path.is_file() or sha256_file(path) != entry.sha256:
        raise CheckFailedError(
            f"{path} is {'altered' if path.is_file() else 'missing'}",
            remedy=f"build it again with eosfm-edge build {bundle}",
        )
    return path.read_bytes()
