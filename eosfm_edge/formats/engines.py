"""``engines/engines.json``: which engines were built beside a bundle, and for what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from eosfm_edge.formats.base import RelativePath, Sha256, Strict, read_json_model
from eosfm_edge.formats.bundle import ENGINES_FOLDER
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import ComputeCapability, TensorRt

INDEX_NAME = "engines.json"


class EngineKey(Strict):
    """All that an engine was built for, and must match.

    Attributes:
        graph_sha256: of the ONNX graph.
        library: that built it, and
        version: its full version.
        compute_capabilities: of the GPUs.
        precision: that was asked for.
    """

    graph_sha256: Sha256
    library: TensorRt
    version: str
    compute_capabilities: tuple[ComputeCapability, ...] = Field(min_length=1)
    precision: Precision


class EngineEntry(Strict):
    """An engine that is there.

    Attributes:
        graph: the bundle's file that it was built from.
        file: the engine's.
        size, sha256: of that.
        products: matrix products and convolutions by the precision that they are computed in.
        time_share: of the layers' time, by precision; none where there was no GPU to time them.
        seconds: that building took.
    """

    graph: RelativePath
    key: EngineKey
    file: RelativePath
    size: int = Field(ge=1)
    sha256: Sha256
    products: dict[str, int]
    time_share: dict[str, float] | None = None
    seconds: float = Field(ge=0)

    @property
    def summary(self) -> str:
        """One-line summary."""
        products = ", ".join(f"{count} in {p}" for p, count in self.products.items())
        shares = (self.time_share or {}).items()
        time = ", ".join(f"{share:.0%} in {p}" for p, share in shares) or "no GPU to measure on"
        return (
            f"{self.file}: {self.size / 1e6:,.1f} MB for SM "
            f"{', '.join(self.key.compute_capabilities)}, built in {self.seconds:.0f} s; "
            f"products: {products}; time: {time}"
        )


class EngineIndex(Strict):
    """The content of ``engines/engines.json``."""

    format: Literal["eosfm-engines"] = "eosfm-engines"
    schema_version: Literal[1] = 1
    engines: tuple[EngineEntry, ...] = ()


def read_index(bundle: Path) -> EngineIndex:
    """Read the list of a bundle's engines; it is empty if nothing was built.

    Raises:
        UserError: it is damaged.
    """
    path = bundle / ENGINES_FOLDER / INDEX_NAME
    if not path.exists():
        return EngineIndex()
    return read_json_model(EngineIndex, path, what="a list of engines: build them again")
