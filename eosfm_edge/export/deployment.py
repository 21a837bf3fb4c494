"""From what was asked for to the networks that are written: for libeosfm, and as an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from eosfm_edge.bundle.manifest import CalibrationRecord, Precision
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.export.chain import Chain
from eosfm_edge.network.calibration import (
    deploy,
    read_calibration,
    require_fits,
    scales_of,
    with_encoders,
)
from eosfm_edge.network.deployed import CPU, TENSORRT, DeployedEncoder, Form
from eosfm_edge.network.scales import Calibration

Target = Literal["cpu", "tensorrt"]
TARGETS: tuple[Target, ...] = get_args(Target)

# How model.onnx is computed. ONNX Runtime has neither bf16 nor fp16 products on a CPU.
_ONNX_FORMS: dict[tuple[Target, Precision], Form] = {
    ("cpu", "fp32"): CPU,
    ("cpu", "bf16"): CPU,
    ("cpu", "int8"): CPU,
    ("tensorrt", "fp32"): Form(),
    ("tensorrt", "fp16"): Form(products="fp16", convolutions="fp16"),
    # ONNX has no convolutions in bf16 before opset 22, which TensorRT 8 and 10 do not parse.
    ("tensorrt", "bf16"): Form(products="bf16"),
    ("tensorrt", "int8"): TENSORRT,
}


@dataclass(frozen=True)
class Scales:
    """A calibration that fits the ensemble. ``encoders`` by their places, as it says."""

    calibration: Calibration
    encoders: Mapping[int, DeployedEncoder]

    @property
    def record(self) -> CalibrationRecord:
        """What a bundle says of it."""
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
        form: how ``model.onnx`` is computed.
    """

    chain: Chain
    native: Mapping[int, DeployedEncoder]
    form: Form

    @property
    def rounds(self) -> bool:
        """Whether ``model.onnx`` is rounded: fp32 is not."""
        return any(
            layer.precision == "int8" or (layer.precision == "half" and self.form != CPU)
            for encoder in self.native.values()
            for layer in encoder.layers().values()
        )

    def simulated(self, form: Form) -> Chain:
        """Return what a backend of a form computes, as PyTorch simulates it."""
        encoders = {owner: encoder.in_form(form) for owner, encoder in self.native.items()}
        return Chain(with_encoders(self.chain.ensemble, encoders))

    def traceable(self) -> Chain:
        """Return the chain that ``model.onnx`` is traced from."""
        return self.simulated(replace(self.form, emulated=False)) if self.rounds else self.chain


def deployment(
    ensemble: Ensemble, target: Target, precision: Precision, scales: Scales | None
) -> Deployment:
    """Prepare an ensemble for a target in a precision.

    Args:
        ensemble: it is not changed.
        target: the device profile.
        precision: that of every layer; int8 is what the calibration says.
        scales: for int8, which other precisions do not look at.

    Raises:
        UserError: the target has no such precision, or int8 is asked for without a calibration.
    """
    form = _ONNX_FORMS.get((target, precision))
    if form is None:
        raise UserError(
            f"the target {target} has no {precision}",
            expected=" or ".join(p for t, p in _ONNX_FORMS if t == target),
        )
    if precision == "int8":
        if scales is None:
            raise UserError(
                "int8 needs a calibration, and there is none",
                remedy="make one with eosfm-edge calibrate, and give it with --calibration",
            )
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
