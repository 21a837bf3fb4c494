"""Check that an ensemble has the tensors that it must have, and no others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eosfm_edge.ensemble.fusion import build_fusion
from eosfm_edge.ensemble.specialist import expected_shapes, widths
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import LEVELS, EnsembleSpec, Shape

SELECTION_WEIGHTS = "encoder_selector.specialists_weights"

_DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def check_specialist(
    tensors: Mapping[str, Tensor],
    backbone: str,
    in_chans: int,
    where: str,
    shape: Shape | None = None,
) -> None:
    """Check an encoder's tensors against its backbone, and its shape if it was pruned.

    Raises:
        UserError: names ``where`` (file and place in it) and the key that is missing, surplus,
            of another shape, or not finite.
    """
    what = f"a {backbone}" if shape is None else f"a pruned {backbone}"
    _check(tensors, expected_shapes(backbone, in_chans, shape), where, what)


def check_shared(tensors: Mapping[str, Tensor], spec: EnsembleSpec, where: str) -> None:
    """Check normalisation, projection, selection and fusion tensors against the spec.

    Raises:
        UserError: as :func:`check_specialist`.
    """
    expected = _shared_shapes(tensors, spec, where)
    what = f"an ensemble with fusion '{spec.fusion}' and normalisation '{spec.normalisation}'"
    _check(tensors, expected, where, what)


def _check(
    tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size], where: str, what: str
) -> None:
    for key, shape in expected.items():
        if key not in tensors:
            raise UserError(f"{where}: key {key} is missing", expected=f"all tensors of {what}")
        if tensors[key].shape != shape:
            raise UserError(
                f"{where}: {key} has shape {tuple(tensors[key].shape)}",
                expected=f"{tuple(shape)} for {what}",
            )
    for key, value in tensors.items():
        if key not in expected:
            raise UserError(f"{where}: key {key} does not belong to {what}")
        if value.dtype not in _DTYPES:
            raise UserError(
                f"{where}: {key} is {value.dtype}", expected="floating point of 16 bits or more"
            )
        if not torch.isfinite(value.float()).all():
            raise UserError(f"{where}: {key} has values that are not finite")
        if key.endswith(".running_var") and (value < 0).any():
            raise UserError(f"{where}: {key} has values below 0", expected="variances")


def _shared_shapes(
    tensors: Mapping[str, Tensor], spec: EnsembleSpec, where: str
) -> dict[str, torch.Size]:
    shapes = {SELECTION_WEIGHTS: torch.Size([len(spec.specialists)])}
    sets = spec.feature_sets()
    for level in LEVELS:
        set_widths: list[int] = []
        for i, specialist in enumerate(spec.specialists):
            width = widths(specialist)[level]
            if spec.normalisation == "batch":
                for statistic in ("running_mean", "running_var"):
                    shapes[f"feature_normalizers.{i}.{level}.{statistic}"] = torch.Size([width])
            if spec.projection:
                prefix = f"feature_projections.{i}.{level}.0"
                projected = _rows(tensors, f"{prefix}.weight", where)
                shapes[f"{prefix}.weight"] = torch.Size([projected, width, 1, 1])
                shapes[f"{prefix}.bias"] = torch.Size([projected])
                width = projected
            set_widths += [width] * len(sets[i])
        shapes |= _fusion_shapes(tensors, spec, level, set_widths, where)
    return shapes


def _fusion_shapes(
    tensors: Mapping[str, Tensor],
    spec: EnsembleSpec,
    level: int,
    set_widths: list[int],
    where: str,
) -> dict[str, torch.Size]:
    prefix = f"feature_fusion.{level}"
    last = {"conv1x1": f"{prefix}.weight", "mlp": f"{prefix}.2.weight"}.get(spec.fusion)
    channels_out = _rows(tensors, last, where) if last else 0
    with torch.device("meta"):
        fusion = build_fusion(spec.fusion, set_widths, channels_out)
    return {f"{prefix}.{key}": value.shape for key, value in fusion.state_dict().items()}


def _rows(tensors: Mapping[str, Tensor], key: str, where: str) -> int:
    if key not in tensors:
        raise UserError(f"{where}: key {key} is missing")
    if tensors[key].ndim != 4 or tensors[key].shape[0] == 0:
        raise UserError(
            f"{where}: {key} has shape {tuple(tensors[key].shape)}",
            expected="a 1x1 convolution, (out, in, 1, 1)",
        )
    return tensors[key].shape[0]
