"""Build a TensorRT engine from an ONNX graph.

Precision is in the graph, as casts and explicit QuantizeLinear and DequantizeLinear: networks are
strongly typed, and there is no calibrator. TensorRT 8 has no strong typing; there the precisions
that the graph has are allowed by flags.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosfm_edge.engines.library import Library
from eosfm_edge.engines.log import Log
from eosfm_edge.engines.precisions import asked_precisions
from eosfm_edge.engines.signals import held_signals
from eosfm_edge.errors import UserError
from eosfm_edge.formats.precision import DevicePrecision, Precision
from eosfm_edge.progress import Progress

# The flags that TensorRT 8 wants for what is in the graph.
_FLAGS: dict[Precision, tuple[str, ...]] = {
    "fp32": (),
    "fp16": ("FP16",),
    "bf16": ("BF16",),
    "int8": ("INT8", "FP16"),
}


@dataclass(frozen=True)
class BuildOptions:
    """Options of an engine's build.

    Attributes:
        precision: that the graph is in.
        batch: tiles at once, at most.
        workspace_mb: memory that a layer may take while it runs, and while it is tried.
        compute_capabilities: of the GPUs; only TensorRT-RTX builds for others than that at hand.
        timing_cache: of an earlier build by the same version for the same GPU.
    """

    precision: Precision
    batch: int
    workspace_mb: int
    compute_capabilities: Sequence[str]
    timing_cache: bytes = b""


@dataclass(frozen=True)
class Built:
    """An engine.

    Attributes:
        engine: serialised.
        asked: the precision of each product of the graph.
        listing: its layers as the builder logs them, if it does.
        timing_cache: for the next build; empty where the library keeps none.
        seconds: that it took.
    """

    engine: bytes
    asked: Mapping[str, DevicePrecision]
    listing: str | None
    timing_cache: bytes
    seconds: float


def parse_graph(library: Library, graph: Path) -> tuple[Log, Any, Any]:
    """Parse a graph, for which TensorRT-RTX needs no GPU; returns log, builder and network.

    Raises:
        UserError: the library finds no GPU and needs one, or does not take the graph.
    """
    module = library.module
    log = Log(module)
    try:
        builder = module.Builder(log.logger)
    except TypeError as error:  # what its binding makes of a builder that could not be created
        raise UserError(
            f"{library} cannot build here: {log.complaint}", remedy="build on the device"
        ) from error
    network = builder.create_network(_network_flags(module))
    parser = module.OnnxParser(network, log.logger)
    # From the file, so that it finds weights that lie beside it.
    if not parser.parse_from_file(str(graph)):
        complaints = [_complaint(parser.get_error(index)) for index in range(parser.num_errors)]
        raise UserError(
            f"{library} does not take {graph}: {'; '.join(complaints) or log.complaint}",
            remedy="export the bundle again, for a target of this TensorRT",
        )
    return log, builder, network


def _complaint(error: Any) -> str:
    if not hasattr(error, "node_operator"):  # before TensorRT 10
        return str(error.desc())
    return f"{error.node_operator()} {error.node_name()}: {error.desc()}"


def build_engine(library: Library, graph: Path, options: BuildOptions, progress: Progress) -> Built:
    """Build an engine; it takes seconds to many minutes, and Ctrl-C stops it.

    Raises:
        UserError: the library does not take the graph, or cannot build it.
    """
    started = time.monotonic()
    module = library.module
    log, builder, network = parse_graph(library, graph)
    asked = asked_precisions(module, network)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # names and types of layers
    _set_precision(library, config, options.precision)
    _set_batch(builder, network, config, options.batch)
    if library.name == "tensorrt-rtx":
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, capability in enumerate(options.compute_capabilities):
            config.set_compute_capability(_capability(library, capability), index)
    else:
        # TensorRT-RTX has the same functions, which do nothing.
        cache = config.create_timing_cache(options.timing_cache)
        config.set_timing_cache(cache, ignore_mismatch=False)
    with held_signals() as came:
        _watch(module, config, progress, came)
        engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(
            f"{library} cannot build {graph}: {log.complaint}",
            remedy="more workspace, another --precision or a smaller --tile may help",
        )
    timings = b""
    if library.name == "tensorrt":
        timings = bytes(config.get_timing_cache().serialize())
    return Built(bytes(engine), asked, log.listing, timings, time.monotonic() - started)


def _network_flags(module: Any) -> int:
    """Return what later versions do anyway: batches are a dimension, and types are the graph's."""
    known = module.NetworkDefinitionCreationFlag.__members__
    wanted = [known[name] for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if name in known]
    return sum(1 << int(flag) for flag in wanted)


def _set_precision(library: Library, config: Any, precision: Precision) -> None:
    module = library.module
    flags = module.BuilderFlag.__members__
    if "TF32" in flags:
        config.clear_flag(flags["TF32"])  # 10 bits of mantissa are not fp32
    if "STRONGLY_TYPED" in module.NetworkDefinitionCreationFlag.__members__:
        return
    for name in _FLAGS[precision]:
        if name in flags:
            config.set_flag(flags[name])
        elif not _is_always_typed(flags):
            raise UserError(f"{library} has no {name}", expected="TensorRT 9 or later for it")


def _is_always_typed(flags: Mapping[str, Any]) -> bool:
    """Return whether this version's networks are always strongly typed: it then has no flags."""
    return "FP16" not in flags


def _set_batch(builder: Any, network: Any, config: Any, batch: int) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if all(tensor.shape[0] > 0 for tensor in inputs):
        return
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (batch, *rest), (batch, *rest))
    config.add_optimization_profile(profile)


def _capability(library: Library, capability: str) -> Any:
    known = library.module.ComputeCapability.__members__
    name = f"SM{capability.replace('.', '')}"
    if name not in known:
        raise UserError(
            f"{library} does not build for SM {capability}",
            expected=", ".join(f"{n[2:-1]}.{n[-1]}" for n in known if n.startswith("SM")),
        )
    return known[name]


def _watch(module: Any, config: Any, progress: Progress, stop: Sequence[object]) -> None:
    """Report progress, and end the build as soon as there is something in ``stop``."""
    if not hasattr(module, "IProgressMonitor"):  # before TensorRT 10
        return
    steps: dict[str, int] = {}

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, total: int) -> None:
            steps[phase] = total
            progress(phase, 0, total)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, steps[phase])
            return not stop

        def phase_finish(self, phase: str) -> None:
            progress(phase, steps[phase], steps[phase])

    config.progress_monitor = Monitor()
