"""``eosfm-edge --version``: the versions of what computes here."""

from __future__ import annotations

from collections.abc import Iterator

import eosfm_edge
from eosfm_edge.errors import UserError
from eosfm_edge.extras import version_of


def parts() -> Iterator[str]:
    """Give a line for eosfm-edge and one for each part, those that are missing included."""
    from eosfm_edge.device.detect import detect

    yield f"eosfm-edge {eosfm_edge.__version__}"
    yield f"  libeosfm      {_libeosfm()}"
    yield f"  ONNX Runtime  {version_of('onnxruntime', 'onnxruntime-gpu') or 'not installed'}"
    yield f"  GDAL          {_gdal()}"
    machine = detect()
    gpu = machine.gpu
    yield f"  CUDA          {f'{gpu.cuda} ({gpu.name})' if gpu else 'no GPU that CUDA can use'}"
    yield f"  TensorRT      {', '.join(map(str, machine.tensorrt)) or 'not installed'}"


def _libeosfm() -> str:
    from eosfm_edge.native.engines import known_engines
    from eosfm_edge.native.header import version

    try:
        native = known_engines()[0]
        return f"{version()} ({native.isa or native.reason})"
    except (UserError, OSError) as error:
        return f"not usable: {error}"


def _gdal() -> str:
    try:
        import rasterio
    except ImportError:
        return "not installed"
    return f"{rasterio.__gdal_version__} (rasterio {rasterio.__version__})"
