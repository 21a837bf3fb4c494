"""``eosfm-edge doctor``: what this machine has, and what that means for backends and verbs."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import eosfm_edge
from eosfm_edge import machine
from eosfm_edge.device.detect import Machine, detect
from eosfm_edge.engines.cuda import Gpu, find_gpu
from eosfm_edge.errors import UserError
from eosfm_edge.extras import how_to_install, missing, version_of
from eosfm_edge.formats.backends import BACKENDS, Backend
from eosfm_edge.native.engines import KnownEngine, known_engines
from eosfm_edge.native.header import version
from eosfm_edge.runtime.backends import onnxruntime_library

# By extra, the work that needs it.
_WORK = {
    "run": "run, verify, bench, head",
    "heads": "head fit with polygons",
    "export": "import, export",
    "prune": "prune",
    "calibrate": "calibrate",
    "cross": "export for ARM boards",
}


@dataclass(frozen=True)
class Part:
    """A backend or some verbs: what was found of them here, and what to do if they cannot be used.

    Attributes:
        name: of the backend, or of the verbs.
        usable: whether all is here that can be seen without a bundle.
        found: what is here, or the first thing that is not.
        remedy: what to do about that; None if nothing is to be done, or nothing can be.
    """

    name: str
    usable: bool
    found: str
    remedy: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The state of a machine.

    Attributes:
        version: of eosfm-edge.
        python: its version.
        architecture: of the processor.
        glibc: its version.
        processors: how many this process may keep busy.
        memory: bytes that it can have at most.
        board: its model, where it has a device tree.
        l4t: of a Jetson: the release of its Linux, as ``36.4``.
        gpu: the first, or None; ``no_gpu`` says why.
        tensorrt: the TensorRT libraries that are installed, with their versions.
        target: the name of the target that fits best, and ``why``.
        backends: each of them, in the order of the command line's.
        verbs: those that need an extra.
    """

    version: str
    python: str
    architecture: str
    glibc: str
    processors: int
    memory: int
    board: str | None
    l4t: str | None
    gpu: Gpu | None
    no_gpu: str
    tensorrt: tuple[str, ...]
    target: str
    why: str
    backends: tuple[Part, ...]
    verbs: tuple[Part, ...]


def diagnose() -> Diagnosis:
    """Look at this machine: its processor, GPU, libraries and extras.

    No bundle is computed: ``verify`` proves a backend, by the bundle's known answer.
    """
    found = detect()
    profile, why = found.target()
    return Diagnosis(
        version=eosfm_edge.__version__,
        python=platform.python_version(),
        architecture=found.architecture,
        glibc=found.glibc,
        processors=machine.processors(),
        memory=machine.memory(),
        board=found.board,
        l4t=found.l4t,
        gpu=found.gpu,
        no_gpu=found.no_gpu,
        tensorrt=tuple(map(str, found.tensorrt)),
        target=profile.name,
        why=why,
        backends=_backends(found),
        verbs=tuple(_verbs(extra, work) for extra, work in _WORK.items()),
    )


def _backends(found: Machine) -> tuple[Part, ...]:
    try:
        engines = {engine.name: engine for engine in known_engines()}
        library = f"libeosfm {version()}"
    except UserError as error:
        return tuple(Part(name, False, error.found, error.remedy) for name in BACKENDS)
    look = {
        "native": lambda: _native(engines["native"], library),
        "cuda": lambda: _cuda(engines["cuda"], found),
        "onnxruntime": lambda: _onnxruntime(engines["onnxruntime"]),
        "onnxruntime-cuda": lambda: _onnxruntime_cuda(engines["onnxruntime-cuda"], found),
        "tensorrt": lambda: _tensorrt(found),
    }
    return tuple(look[name]() for name in BACKENDS)


def _native(engine: KnownEngine, library: str) -> Part:
    return Part("native", not engine.reason, engine.reason or f"{library}, {engine.isa}")


def _cuda(engine: KnownEngine, found: Machine) -> Part:
    name: Backend = "cuda"
    if engine.reason:
        remedy = "build it with libeosfm: docs/cuda.md"
        return Part(name, False, engine.reason, remedy)
    return _on_gpu(name, "libeosfm_cuda.so", found)


def _onnxruntime(engine: KnownEngine) -> Part:
    name: Backend = "onnxruntime"
    if engine.reason:
        return Part(name, False, engine.reason, "reinstall eosfm-edge")
    if onnxruntime_library() is None:
        return Part(name, False, "onnxruntime is not installed", how_to_install("run"))
    return Part(name, True, _onnxruntime_version())


def _onnxruntime_cuda(engine: KnownEngine, found: Machine) -> Part:
    name: Backend = "onnxruntime-cuda"
    library = onnxruntime_library()
    if engine.reason or library is None:
        return Part(name, False, _onnxruntime(engine).found, "pip install onnxruntime-gpu")
    if not (library.parent / "libonnxruntime_providers_cuda.so").exists():
        return Part(
            name,
            False,
            f"{_onnxruntime_version()} is without CUDA",
            "install onnxruntime-gpu instead of onnxruntime",
        )
    return _on_gpu(name, _onnxruntime_version(), found)


def _tensorrt(found: Machine) -> Part:
    name: Backend = "tensorrt"
    if not found.tensorrt:
        remedy = f"on a desktop {how_to_install('rtx')}; on a Jetson install nvidia-jetpack"
        return Part(name, False, "neither TensorRT nor TensorRT-RTX is installed", remedy)
    try:
        find_gpu()  # as its engines do, with CUDA's Python package
    except UserError as error:
        return Part(name, False, error.found, error.remedy)
    return _on_gpu(name, ", ".join(map(str, found.tensorrt)), found)


def _on_gpu(name: Backend, library: str, found: Machine) -> Part:
    if found.gpu is None:
        return Part(name, False, found.no_gpu)
    return Part(name, True, f"{library} on {found.gpu.name}")


def _onnxruntime_version() -> str:
    installed = version_of("onnxruntime", "onnxruntime-gpu")
    return f"ONNX Runtime {installed}" if installed else "an ONNX Runtime"


def _verbs(extra: str, work: str) -> Part:
    lacking = missing(extra)
    if lacking:
        return Part(work, False, f"{', '.join(lacking)} not installed", how_to_install(extra))
    return Part(work, True, f"all of '.[{extra}]' is installed")
