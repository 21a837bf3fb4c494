"""``eosfm-edge --version``: the versions of what computes here."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import eosfm_edge
from eosfm_edge.errors import UserError


def parts() -> Iterator[str]:
    """Give a line for eosfm-edge and one for each part, those that are missing included."""
    yield f"eosfm-edge {eosfm_edge.__version__}"
    yield f"  libeosfm      {_libeosfm()}"
    yield f"  ONNX Runtime  {_installed('onnxruntime', 'onnxruntime-gpu')}"
    yield f"  GDAL          {_gdal()}"
    yield f"  CUDA          {_cuda()}"
    yield f"  TensorRT      {_tensorrt()}"


def _libeosfm() -> str:
    from eosfm_edge.native.engines import known_engines
    from eosfm_edge.native.header import version

    try:
        native = known_engines()[0]
        return f"{version()} ({native.isa or native.reason})"
    except (UserError, OSError) as error:
        return f"not usable: {error}"


def _installed(*packages: str) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def _gdal() -> str:
    try:
        import rasterio
    except ImportError:
        return "not installed"
    return f"{rasterio.__gdal_version__} (rasterio {rasterio.__version__})"


def _cuda() -> str:
    from eosfm_edge.device.detect import detect

    gpu = detect().gpu
    return f"{gpu.cuda} ({gpu.name})" if gpu else "no GPU that CUDA can use"


def _tensorrt() -> str:
    from eosfm_edge.device.detect import detect

    return ", ".join(map(str, detect().tensorrt)) or "not installed"
