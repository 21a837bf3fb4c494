"""The bytes that a device is sent of a bundle, and the memory that running it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import MANIFEST_NAME, Manifest, Role
from eosfm_edge.machine import processors
from eosfm_edge.native.binding import Model

_MOST_THREADS = 256  # of a context


@dataclass(frozen=True)
class Sent:
    """Files that go up the link together.

    Attributes:
        files: how many.
        raw: their bytes.
        compressed: the same after ``zstd -3`` of each file but ``manifest.json``, as measured at
            export; None of bundles of version 1.
    """

    files: int
    raw: int
    compressed: int | None

    @property
    def summary(self) -> str:
        """One-line summary."""
        if self.compressed is None:
            return f"{self.raw:,} bytes"
        return f"{self.raw:,} bytes ({self.compressed:,} by zstd -3)"


@dataclass(frozen=True)
class RunMemory:
    """The memory that the native engine takes to run a tile of the bundle's size.

    Attributes:
        bytes: all of it.
        weights_bytes: of the weights, as this machine's kernels want them.
        context_bytes: of everything else, which grows with the threads.
        threads: the target's cores, or this machine's if it is the target, or else 1.
        isa: the instruction set that it is computed for: this machine's.
    """

    bytes: int
    weights_bytes: int
    context_bytes: int
    threads: int
    isa: str

    @property
    def summary(self) -> str:
        """One-line summary."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.bytes:,} bytes of memory with {threads} ({self.isa})"


@dataclass(frozen=True)
class BundleSizes:
    """The costs of a bundle for a device.

    Attributes:
        native: what a device is sent that runs libeosfm's engines; None if the bundle is not for
            them.
        onnx: what one is sent that runs ONNX Runtime or TensorRT; None if it is not for these.
        all: the whole bundle.
        memory: what a run takes; None if it is not known here.
        no_memory: why it is not known.
    """

    native: Sent | None
    onnx: Sent | None
    all: Sent
    memory: RunMemory | None
    no_memory: str | None = None

    @property
    def summary(self) -> str:
        """One-line summary."""
        if self.native and self.onnx:
            sent = (
                f"{self.native.summary} for native, {self.onnx.summary} for ONNX graphs, "
                f"{self.all.summary} for both"
            )
        else:
            sent = (self.native or self.onnx or self.all).summary
        if self.memory is None:
            return f"to send: {sent}; the memory of a run is not known: {self.no_memory}"
        return f"to send: {sent}; to run a tile: {self.memory.summary}"


def bundle_sizes(bundle: Path, manifest: Manifest) -> BundleSizes:
    """Return what a bundle costs a device: its bytes as exported, and the memory of a run.

    What a device needs besides its engine's files, ``manifest.json``, heads and ``device/``, counts
    for each engine. A scene streamed through the bundle takes more memory, by its width.
    """
    memory, no_memory = None, None
    if manifest.of_role("native"):
        try:
            memory = _run_memory(bundle, manifest)
        except UserError as error:
            no_memory = str(error).splitlines()[0]
    else:
        no_memory = "it is what ONNX Runtime or TensorRT allocate"
    return BundleSizes(
        native=_sent(bundle, manifest, ("common", "native", "head", "device"), "native"),
        onnx=_sent(bundle, manifest, ("common", "onnx", "head", "device"), "onnx"),
        all=_total(bundle, manifest, list(manifest.files)),
        memory=memory,
        no_memory=no_memory,
    )


def _sent(bundle: Path, manifest: Manifest, roles: Sequence[Role], needed: Role) -> Sent | None:
    if not manifest.of_role(needed):
        return None
    return _total(bundle, manifest, manifest.of_role(*roles))


def _total(bundle: Path, manifest: Manifest, names: Sequence[str]) -> Sent:
    """Add files up, and the manifest, which lists itself nowhere."""
    own, entries = (bundle / MANIFEST_NAME).stat().st_size, [manifest.files[name] for name in names]
    compressed = [entry.compressed for entry in entries if entry.compressed is not None]
    return Sent(
        files=len(names) + 1,
        raw=own + sum(entry.size for entry in entries),
        compressed=own + sum(compressed) if len(compressed) == len(entries) else None,
    )


def _run_memory(bundle: Path, manifest: Manifest) -> RunMemory:
    """Return what libeosfm asks for.

    Raises:
        UserError: it cannot open the bundle, or is not there itself.
    """
    here = manifest.target == "cpu"
    cores = manifest.profile.cores if manifest.profile else None
    threads = min(processors(), _MOST_THREADS) if here else cores or 1
    with Model(bundle) as model:
        needs = model.requirements(threads=threads)
        return RunMemory(
            bytes=needs.weights_bytes + needs.context_bytes,
            weights_bytes=needs.weights_bytes,
            context_bytes=needs.context_bytes,
            threads=threads,
            isa=model.describe().isa.decode(),
        )
