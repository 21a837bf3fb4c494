"""The extras of this package: what each brings beside what all need, and how it is installed."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

# By extra, the modules that it brings.
_MODULES = {
    "run": ("PIL", "affine", "gguf", "onnxruntime", "rasterio", "zstandard"),
    "heads": ("pyogrio", "shapely"),
    "export": ("onnx", "timm", "torch", "torchvision"),
    "prune": ("torch_pruning",),
    "calibrate": ("matplotlib",),
    "cross": ("elftools", "ziglang"),
    "cuda": ("cuda",),
    "rtx": ("tensorrt_rtx",),
}


def extra_with(module: str) -> str | None:
    """Return the extra that brings a module; None if none does."""
    return next((extra for extra, modules in _MODULES.items() if module in modules), None)


def missing(extra: str) -> list[str]:
    """Return the modules of an extra that are not installed."""
    return [module for module in _MODULES[extra] if find_spec(module) is None]


def version_of(*packages: str) -> str | None:
    """Return the version of the first of some packages that is installed; None if none is."""
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra. No package index has this project yet."""
    return f"pip install '.[{extra}]' in a checkout of eosfm-edge"
