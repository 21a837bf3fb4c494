"""The names of who may compute a bundle, as ``--backend`` takes them."""

from __future__ import annotations

CPU_BACKENDS = ("native", "onnxruntime")
BACKENDS = (*CPU_BACKENDS, "cuda", "onnxruntime-cuda", "tensorrt")
# These compute from the specialists' files, the others from the ONNX graphs.
WEIGHTS_BACKENDS = ("native", "cuda")
