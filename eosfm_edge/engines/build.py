"""``eosfm-edge build``: the engines of a bundle, built on the device that runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eosfm_edge.engines.builder import BuildOptions, Built, build_engine, parse_graph
from eosfm_edge.engines.cuda import Gpu, cuda_runtime, find_gpu
from eosfm_edge.engines.library import Library, load_library
from eosfm_edge.engines.precisions import (
    Precisions,
    asked_precisions,
    compare_precisions,
    parse_listing,
    require_precisions,
)
from eosfm_edge.engines.runner import EngineChain
from eosfm_edge.engines.store import read_engine, save_engine
from eosfm_edge.errors import CheckFailedError, UserError
from eosfm_edge.files import atomic_file
from eosfm_edge.formats.bundle import ENGINES_FOLDER, Manifest
from eosfm_edge.formats.engines import EngineEntry, EngineKey, read_index
from eosfm_edge.formats.target import Profile, TensorRt
from eosfm_edge.progress import Progress, silent
from eosfm_edge.targets.feasibility import require_capability

_TIMED_RUNS = 20


def build_engines(
    bundle: Path,
    manifest: Manifest,
    capabilities: Sequence[str] = (),
    progress: Progress = silent,
) -> list[EngineEntry]:
    """Build an engine of each of a bundle's graphs that has none yet.

    Args:
        bundle: its files are what the manifest says.
        manifest: the bundle's.
        capabilities: of the GPUs to build for, which only TensorRT-RTX can be told: none is the
            GPU at hand, or without one all that the profile names.
        progress: called while it builds.

    Raises:
        CheckFailedError: an engine does not compute in the precision that was asked for; it is not
            kept.
        UserError: the bundle's graphs are not for TensorRT, or it cannot build them here.
    """
    profile, name = require_tensorrt(manifest)
    library = load_library(name)
    gpu = _gpu(library)
    built_for = _capabilities(library, profile, manifest, gpu, capabilities)
    found = []
    for graph in manifest.graphs:
        key = EngineKey(
            graph_sha256=manifest.files[graph].sha256,
            library=library.name,
            version=library.version,
            compute_capabilities=tuple(built_for),
            precision=manifest.precision,
        )
        entry = _existing(bundle, graph, key)
        if entry is None:

            def tell(what: str, done: int, total: int, graph: str = graph) -> None:
                progress(f"{graph}: {what}", done, total)

            options = _options(bundle, manifest, profile, key)
            built = build_engine(library, bundle / graph, options, tell)
            runs_here = gpu is not None and gpu.compute_capability in built_for
            precisions, times = _inspect(library, built, runs_here=runs_here)
            require_precisions(precisions)
            _keep_timings(bundle, key, built.timing_cache)
            entry = save_engine(
                bundle,
                graph,
                key,
                built.engine,
                products=dict(precisions.done),
                time_share=times,
                seconds=built.seconds,
            )
        found.append(entry)
    return found


@dataclass(frozen=True)
class Parsed:
    """The result of ``--dry-run``: the parser, and the precision requested of the matmuls."""

    parser: str
    products: Mapping[str, Mapping[str, int]]


def parse_graphs(bundle: Path, manifest: Manifest, capabilities: Sequence[str] = ()) -> Parsed:
    """Parse a bundle's graphs, with TensorRT-RTX where the device's own TensorRT is not there.

    Raises:
        UserError: the graphs are not for TensorRT, their precision does not exist on the device,
            or the parser does not take them.
    """
    profile, name = require_tensorrt(manifest)
    _possible(profile, manifest, capabilities)
    library = _parser(name)
    products: dict[str, dict[str, int]] = {}
    for graph in manifest.graphs:
        _, _, network = parse_graph(library, bundle / graph)
        products[graph] = dict(Counter[str](asked_precisions(library.module, network).values()))
    return Parsed(str(library), products)


def require_tensorrt(manifest: Manifest) -> tuple[Profile, TensorRt]:
    """Return the profile and the TensorRT of a bundle.

    Raises:
        UserError: the bundle's target builds no engines.
    """
    profile = manifest.profile
    if profile is None or profile.engine == "onnxruntime":
        raise UserError(
            f"the bundle was exported for {manifest.target}, where TensorRT does not compute",
            expected="a bundle whose target has TensorRT, as jetson or desktop-rtx",
            remedy="export it again with such a --target",
        )
    return profile, profile.engine


def _parser(wanted: TensorRt) -> Library:
    try:
        return load_library(wanted)
    except UserError:
        # The graphs that TensorRT and TensorRT-RTX take are the same.
        return load_library("tensorrt-rtx")


def _gpu(library: Library) -> Gpu | None:
    """Return the GPU at hand, which only TensorRT-RTX can do without."""
    try:
        return find_gpu()
    except UserError:
        if library.name == "tensorrt-rtx":
            return None
        raise


def _capabilities(
    library: Library,
    profile: Profile,
    manifest: Manifest,
    gpu: Gpu | None,
    asked: Sequence[str],
) -> list[str]:
    """Return the compute capabilities to build for, lowest first."""
    if asked and library.name == "tensorrt":
        raise UserError(
            f"{library} builds for the GPU at hand and no other",
            remedy="leave --sm out, and build on the device",
        )
    if gpu and not asked:
        asked = [gpu.compute_capability]
    return _possible(profile, manifest, asked)


def _possible(profile: Profile, manifest: Manifest, asked: Sequence[str]) -> list[str]:
    """Return what was asked for, or else those of the profile's GPUs that have the precision.

    Raises:
        UserError: what was asked for has not, or none has.
    """
    assert profile.gpu is not None
    chosen: list[str] = []
    for capability in asked or profile.gpu.compute_capabilities:
        try:
            require_capability(profile, manifest.precision, capability)
        except UserError:
            last = capability == profile.gpu.compute_capabilities[-1]
            if asked or (last and not chosen):
                raise
        else:
            chosen.append(capability)
    return sorted(set(chosen), key=float)


def _existing(bundle: Path, graph: str, key: EngineKey) -> EngineEntry | None:
    """Return the engine that a build would give again."""
    for entry in read_index(bundle).engines:
        if (entry.graph, entry.key) == (graph, key):
            try:
                read_engine(bundle, entry)
            except CheckFailedError:
                return None
            return entry
    return None


def _options(bundle: Path, manifest: Manifest, profile: Profile, key: EngineKey) -> BuildOptions:
    assert profile.workspace_mb is not None
    timings = _timings(bundle, key)
    return BuildOptions(
        precision=manifest.precision,
        batch=manifest.tile.batch,
        workspace_mb=profile.workspace_mb,
        compute_capabilities=key.compute_capabilities,
        timing_cache=timings.read_bytes() if timings.is_file() else b"",
    )


def _timings(bundle: Path, key: EngineKey) -> Path:
    """Return the path of the timing cache, which all graphs of a version on a GPU share."""
    capabilities = "+".join(key.compute_capabilities)
    name = f"{key.library}-{key.version}-sm{capabilities}.timings"
    return bundle / ENGINES_FOLDER / name


def _keep_timings(bundle: Path, key: EngineKey, cache: bytes) -> None:
    if cache:
        path = _timings(bundle, key)
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as scratch:
            scratch.write_bytes(cache)


def _inspect(
    library: Library, built: Built, *, runs_here: bool
) -> tuple[Precisions, dict[str, float] | None]:
    """Return the precisions of an engine's products, and where it can run those of its time."""
    if not runs_here:
        if built.listing is None:
            raise CheckFailedError(f"{library} does not list the layers that it built")
        return compare_precisions(built.asked, parse_listing(built.listing)), None
    chain = EngineChain(library, cuda_runtime(), [built.engine], outputs=())
    try:
        layers = parse_listing(chain.listing(library.module))
        milliseconds = chain.time_layers(library.module, _TIMED_RUNS)
    finally:
        chain.close()
    types = {layer.name: layer.precision for layer in layers}
    spent: dict[str, float] = {}
    for name, ms in milliseconds.items():
        precision = types.get(name) or "other"
        spent[precision] = spent.get(precision, 0.0) + ms
    total = sum(spent.values()) or 1.0
    return (
        compare_precisions(built.asked, layers),
        {precision: ms / total for precision, ms in spent.items()},
    )
