"""``chain.gguf`` and ``specialists/*.gguf``: what the native engine reads.

``export/bundle.md`` is the format's page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from numpy.typing import NDArray
from torch import Tensor, nn

from eosfm_edge.bundle.known_answer import IMAGE_TENSOR, KnownAnswer, level_tensor
from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.fusion import ZeroFilled
from eosfm_edge.formats.bundle import CHAIN_NAME, SPECIALISTS_FOLDER
from eosfm_edge.formats.ensemble import LEVELS, SpecialistSpec
from eosfm_edge.formats.precision import Precision
from eosfm_edge.native.gguf_writer import (
    add_floats,
    add_tensor,
    add_texts,
    add_uints,
    gguf_writer,
)
from eosfm_edge.network.deployed import Block, Dense, DeployedEncoder, Downsample, Stem
from eosfm_edge.network.folding import Matrix

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Graphs:
    """The ONNX graphs of a bundle.

    Attributes:
        files: their paths in the bundle, in the order in which they run.
        tolerance: how far from the known answer a level of theirs may be, relative to its largest
            value.
    """

    files: Sequence[str]
    tolerance: float


def write_specialists(
    bundle: Path, chain: Chain, encoders: Mapping[int, DeployedEncoder]
) -> list[str]:
    """Write the files of all specialists that are run; ``encoders`` by their places.

    Returns:
        The digests of the files' tensors, in the order of their places.
    """
    (bundle / SPECIALISTS_FOLDER).mkdir(exist_ok=True)
    digests = []
    for owner in sorted({owner for owner, _ in chain.runs}):
        spec = chain.ensemble.spec.specialists[owner]
        file = bundle / specialist_file(spec.name)
        digests.append(write_specialist(file, spec, encoders[owner]))
    return digests


def write_specialist(path: Path, spec: SpecialistSpec, encoder: DeployedEncoder) -> str:
    """Write one specialist's file; returns the digest of its tensors, which is in it too.

    Args:
        path: the file.
        spec: what the ensemble says of the specialist.
        encoder: with the precision of every matrix: fp32, bf16 or int8. The engine computes the
            stem and depthwise convolutions in fp32.
    """
    with gguf_writer(path, "eosfm-specialist") as writer:
        writer.add_string("general.name", spec.name)
        writer.add_string("eosfm.backbone", spec.backbone)
        writer.add_string("eosfm.licence", spec.provenance.licence or "")
        writer.add_string("eosfm.source", spec.provenance.source)
        writer.add_string("eosfm.weights_sha256", spec.weights_sha256)
        view = encoder.view
        writer.add_uint32("eosfm.bands", view.bands)
        add_uints(writer, "eosfm.depths", view.depths)
        add_uints(writer, "eosfm.widths", view.shape.widths)
        add_uints(writer, "eosfm.hidden", [h for stage in view.shape.hidden for h in stage])
        for step in encoder.steps():
            _add_step(writer, step.name, step.module)
        digest = _tensors_sha256(writer)
        writer.add_string("eosfm.tensors_sha256", digest)
    return digest


def write_chain(
    bundle: Path,
    chain: Chain,
    name: str,
    tile: int,
    precision: Precision,
    answer: KnownAnswer,
    tolerance: float | None,
    graphs: Graphs | None = None,
    digests: Sequence[str] = (),
) -> None:
    """Write ``chain.gguf``: everything but the specialists.

    Args:
        bundle: the directory.
        chain: what is exported.
        name: of the bundle.
        tile: pixels of an image's side.
        precision: of the specialists; a fusion is bf16 where they are bf16 or int8.
        answer: the known answer.
        tolerance: how far from it a level of libeosfm's may be, relative to its largest value;
            None where there are graphs alone.
        graphs: that other backends run.
        digests: of the specialists' tensors, by which libeosfm knows the files that belong to the
            chain; none: it takes any that fit.
    """
    spec = chain.ensemble.spec
    owners = sorted({owner for owner, _ in chain.runs})
    place = {owner: index for index, owner in enumerate(owners)}
    with gguf_writer(bundle / CHAIN_NAME, "eosfm-chain") as writer:
        writer.add_string("general.name", name)
        writer.add_uint32("eosfm.tile", tile)
        bands = spec.input
        add_texts(writer, "eosfm.input.names", [band.name or "" for band in bands])
        add_floats(writer, "eosfm.input.wavelengths_nm", [b.wavelength_nm or 0.0 for b in bands])
        add_floats(writer, "eosfm.input.scales", [band.seen[0] for band in bands])
        add_floats(writer, "eosfm.input.offsets", [band.seen[1] for band in bands])
        if any(band.mean is not None for band in bands):
            add_floats(writer, "eosfm.input.physical_scales", [band.scale for band in bands])
            add_floats(writer, "eosfm.input.physical_offsets", [band.offset for band in bands])
        add_floats(writer, "eosfm.input.fills", [band.fill for band in bands])
        add_floats(writer, "eosfm.input.nodata", [band.nodata or 0.0 for band in bands])
        add_uints(writer, "eosfm.input.has_nodata", [b.nodata is not None for b in bands])
        names = [spec.specialists[owner].name for owner in owners]
        add_texts(writer, "eosfm.specialists.names", names)
        add_texts(writer, "eosfm.specialists.files", [specialist_file(name) for name in names])
        add_floats(writer, "eosfm.specialists.factors", [chain.factors[o] for o in owners])
        if digests:
            add_texts(writer, "eosfm.specialists.tensors_sha256", digests)
        add_uints(writer, "eosfm.runs.specialists", [place[owner] for owner, _ in chain.runs])
        add_uints(writer, "eosfm.runs.lengths", [len(bands) for _, bands in chain.runs])
        add_uints(writer, "eosfm.runs.bands", [b for _, bands in chain.runs for b in bands])
        writer.add_string("eosfm.normalisation", spec.normalisation)
        writer.add_string("eosfm.fusion", spec.fusion)
        writer.add_uint32("eosfm.projection", int(spec.projection))
        channels = [level.shape[1] for level in answer.levels]
        add_uints(writer, "eosfm.levels.channels", channels)
        if tolerance is not None:
            add_floats(writer, "eosfm.known.tolerances", [tolerance] * len(LEVELS))
        if graphs is not None:
            add_texts(writer, "eosfm.graphs.files", graphs.files)
            add_floats(writer, "eosfm.graphs.tolerances", [graphs.tolerance] * len(LEVELS))
        if spec.fusion == "none":
            starts = [_first_channels(chain, level) for level in LEVELS]
            add_uints(writer, "eosfm.runs.channels", np.transpose(starts).ravel().tolist())
        _add_normalisation(writer, chain, owners)
        _add_fusion(writer, chain, precision)
        add_tensor(writer, IMAGE_TENSOR, answer.image[0])
        for index, level in enumerate(answer.levels):
            add_tensor(writer, level_tensor(index), level[0])


def specialist_file(name: str) -> str:
    """Return the path in the bundle of a specialist's file."""
    return f"{SPECIALISTS_FOLDER}/{name}.gguf"


def _add_step(writer: GGUFWriter, name: str, module: Stem | Downsample | Block) -> None:
    if isinstance(module, Stem):
        add_tensor(writer, "stem.weight", _array(module.weight.flatten(1).T))
        add_tensor(writer, "stem.bias", _array(module.bias))
        add_tensor(writer, "stem.norm.weight", _array(module.norm_weight))
        add_tensor(writer, "stem.norm.bias", _array(module.norm_bias))
    elif isinstance(module, Downsample):
        _add_layer(writer, name, module.entry)
    else:
        add_tensor(writer, f"{name}.conv_dw.weight", _array(module.conv_dw.weight))
        add_tensor(writer, f"{name}.conv_dw.bias", _array(module.conv_dw.bias))
        # Constants in fc2 stand for a static GRN.
        grn = torch.zeros_like(module.grn.weight) if module.grn.static else module.grn.weight
        add_tensor(writer, f"{name}.grn.weight", _array(grn))
        _add_layer(writer, f"{name}.fc1", module.fc1)
        _add_layer(writer, f"{name}.fc2", module.fc2)


def _add_layer(writer: GGUFWriter, name: str, layer: Dense) -> None:
    rounding = layer.rounded
    if rounding is None:
        precision: Precision = "fp32" if layer.precision == "fp32" else "bf16"
        _add_matrix(writer, name, Matrix(_array(layer.weight), _array(layer.bias)), precision)
        return
    add_tensor(writer, f"{name}.bias", _array(layer.bias))
    scale, zero = np.float32(rounding.inputs.scale), np.float32(rounding.inputs.zero)
    add_tensor(writer, f"{name}.input", np.append(_array(rounding.equaliser) * scale, zero))
    # The format has the inputs' scales in the weights, which divides them out of their integers.
    add_tensor(writer, f"{name}.weight_scale", _array(rounding.weight_scale) * scale)
    writer.add_tensor(f"{name}.weight", _array(layer.int8_weight(rounding)).astype(np.int8))


def _add_matrix(writer: GGUFWriter, name: str, matrix: Matrix, precision: Precision) -> None:
    add_tensor(writer, f"{name}.bias", matrix.bias)
    if precision == "fp32":
        add_tensor(writer, f"{name}.weight", matrix.weight)
        return
    writer.add_tensor(
        f"{name}.weight",
        quantize(matrix.weight, GGMLQuantizationType.BF16),
        raw_dtype=GGMLQuantizationType.BF16,
    )


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)


def _add_normalisation(writer: GGUFWriter, chain: Chain, owners: Sequence[int]) -> None:
    ensemble = chain.ensemble
    for index, owner in enumerate(owners):
        for level in LEVELS:
            normaliser = ensemble.feature_normalizers[owner][level]  # type: ignore[index]
            if isinstance(normaliser, nn.BatchNorm2d):
                assert normaliser.running_mean is not None and normaliser.running_var is not None
                mean, variance = normaliser.running_mean, normaliser.running_var
                add_tensor(writer, f"normalisation.{index}.{level}.mean", mean.numpy())
                add_tensor(writer, f"normalisation.{index}.{level}.variance", variance.numpy())
            if ensemble.feature_projections:
                convolution = ensemble.feature_projections[owner][level][0]  # type: ignore[index]
                _add_matrix(writer, f"projection.{index}.{level}", _from_1x1(convolution), "fp32")


def _add_fusion(writer: GGUFWriter, chain: Chain, precision: Precision) -> None:
    stored: Precision = "fp32" if precision == "fp32" else "bf16"
    for level, fusion in enumerate(chain.fusions):
        if isinstance(fusion, nn.Conv2d):
            _add_matrix(writer, f"fusion.{level}", _from_1x1(fusion), stored)
        elif isinstance(fusion, nn.Sequential):
            _add_matrix(writer, f"fusion.{level}.0", _from_1x1(fusion[0]), stored)
            _add_matrix(writer, f"fusion.{level}.2", _from_1x1(fusion[2]), stored)


def _first_channels(chain: Chain, level: int) -> list[int]:
    """Return each run's first channel in fusion ``none``, which has gaps for the unselected."""
    widths = chain.ensemble.set_widths(level)
    fusion = chain.fusions[level]
    kept = fusion.kept if isinstance(fusion, ZeroFilled) else (True,) * len(widths)
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    return [int(start) for start, keep in zip(starts, kept, strict=True) if keep]


def _from_1x1(convolution: nn.Module) -> Matrix:
    assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
    weight = convolution.weight.detach().flatten(1).T.numpy()
    return Matrix(np.ascontiguousarray(weight), convolution.bias.detach().numpy())


def _tensors_sha256(writer: GGUFWriter) -> str:
    """Return the SHA-256 of the names and values of the tensors that were added."""
    digest = hashlib.sha256()
    for name, info in writer.tensors[0].items():
        assert info.tensor is not None
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(info.tensor).data)
    return digest.hexdigest()
