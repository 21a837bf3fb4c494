"""From what was asked for to the networks that are written: for libeosfm, and as an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from eosfm_edge.ensemble.chain import Chain
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.stacked import StackedChain
from eosfm_edge.formats.bundle import CalibrationRecord, Layout
from eosfm_edge.formats.calibration import Calibration
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import Engine
from eosfm_edge.network.calibration import (
    deploy,
    read_calibration,
    require_fits,
    scales_of,
    with_encoders,
)
from eosfm_edge.network.deployed import CPU, TENSORRT, DeployedEncoder, Form

# How the ONNX graphs are computed. ONNX Runtime has neither bf16 nor fp16 products on a CPU.
_CPU_FORMS: dict[Precision, Form] = {"fp32": CPU, "bf16": CPU, "int8": CPU}
_TENSORRT_FORMS: dict[Precision, Form] = {
    "fp32": Form(),
    "fp16": Form(products="fp16", convolutions="fp16", rounded_products=True),
    # ONNX has no convolutions in bf16 before opset 22, which TensorRT 8 and 10 do not parse.
    "bf16": Form(products="bf16", rounded_products=True),
    "int8": TENSORRT,
}
_FORMS: dict[Engine, dict[Precision, Form]] = {
    "onnxruntime": _CPU_FORMS,
    "tensorrt": _TENSORRT_FORMS,
    "tensorrt-rtx": _TENSORRT_FORMS,
}


@dataclass(frozen=True)
class Scales:
    """A calibration that fits the ensemble. ``encoders`` by their places, as it says."""

    calibration: Calibration
    encoders: Mapping[int, DeployedEncoder]

    @property
    def record(self) -> CalibrationRecord:
        """The record that a bundle keeps of it."""
        data = self.calibration.data
        return CalibrationRecord(
            tensors_sha256=self.calibration.tensors_sha256,
            data_sha256=data.sha256,
            tiles=data.tiles,
            source=data.source,
            grn=self.calibration.grn,
        )


def load_scales(directory: Path, ensemble: Ensemble) -> Scales:
    """Read the calibration of an ensemble.

    Raises:
        UserError: it cannot be read, or was made for other specialists.
    """
    calibration, tensors = read_calibration(directory)
    require_fits(calibration, ensemble.spec, directory)
    encoders = {
        owner: deploy(
            ensemble.encoders[owner], scales_of(calibration, specialist), tensors, calibration.grn
        )
        for owner, (specialist, sets) in enumerate(
            zip(ensemble.spec.specialists, ensemble.sets, strict=True)
        )
        if sets
    }
    return Scales(calibration, encoders)


@dataclass(frozen=True)
class Deployment:
    """An ensemble as it is deployed.

    Attributes:
        chain: what is exported, in fp32.
        native: for libeosfm, encoders by their places.
        form: how the ONNX graphs are computed.
    """

    chain: Chain
    native: Mapping[int, DeployedEncoder]
    form: Form

    @property
    def rounds(self) -> bool:
        """True if the ONNX graphs are quantised or cast; in fp32 they are neither."""
        return any(
            layer.precision == "int8" or (layer.precision == "half" and self.form != CPU)
            for encoder in self.native.values()
            for layer in encoder.layers().values()
        )

    def simulated(self, form: Form, layout: Layout = "whole") -> nn.Module:
        """Return what a backend of a form computes, as PyTorch simulates it."""
        encoders = {owner: encoder.in_form(form) for owner, encoder in self.native.items()}
        chain = Chain(with_encoders(self.chain.ensemble, encoders))
        return StackedChain(chain) if layout == "stacked" else chain

    def traceable(self, layout: Layout) -> nn.Module:
        """Return the chain that the ONNX graphs are traced from."""
        if self.rounds or layout == "stacked":
            return self.simulated(replace(self.form, emulated=False), layout)
        return self.chain


def deployment(
    ensemble: Ensemble, engine: Engine, precision: Precision, scales: Scales | None
) -> Deployment:
    """Prepare an ensemble for an engine in a precision.

    Args:
        ensemble: it is not changed.
        engine: that runs the ONNX graphs.
        precision: that of every layer; int8 is what the calibration says.
        scales: for int8, which other precisions do not look at.

    Raises:
        UserError: the engine has no such precision.
    """
    forms = _FORMS[engine]
    if precision not in forms:
        raise UserError(f"{engine} has no {precision}", expected=" or ".join(forms))
    form = forms[precision]
    if precision == "int8":
        assert scales is not None, "require_exportable asks for a calibration"
        return Deployment(Chain(ensemble), scales.encoders, form)
    encoders = {
        owner: DeployedEncoder(encoder)
        for owner, encoder in enumerate(ensemble.encoders)
        if ensemble.sets[owner]
    }
    for encoder in encoders.values():
        for layer in encoder.layers().values():
            layer.precision = "fp32" if precision == "fp32" else "half"
    return Deployment(Chain(ensemble), encoders, form)
