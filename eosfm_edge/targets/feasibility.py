"""Check before any work that a device can do what is requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bundle import Purpose, Tile
from eosfm_edge.formats.precision import DevicePrecision
from eosfm_edge.formats.target import Profile

# The first GPUs with units for a precision, by NVIDIA's CUDA C++ Programming Guide, "Compute
# Capabilities". int8 products that give fp32, as ours do, are compiled by TensorRT-RTX from Ampere
# on: it refuses them for SM 7.5.
_FIRST: dict[DevicePrecision, tuple[str, str]] = {
    "bf16": ("8.0", "has no bf16 units"),
    "fp8": ("8.9", "has no fp8 units"),
}
_FIRST_OF_RTX: dict[DevicePrecision, tuple[str, str]] = {
    **_FIRST,
    "int8": ("8.0", "has int8 units that TensorRT-RTX gives no fp32 results of"),
}


@dataclass(frozen=True)
class Need:
    """The memory that a chain needs at the least, in bytes.

    Attributes:
        weights: of all specialists, as they are stored.
        tile: the image, all levels, and the largest hidden tensor: they are there at one time.
        batch: tiles at once.
    """

    weights: int
    tile: int
    batch: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.weights + self.batch * self.tile


def require_precision(profile: Profile, precision: DevicePrecision) -> None:
    """Check that the device supports the precision, and that it can be exported.

    Raises:
        UserError: the device lacks it, or eosfm-edge does not export it.
    """
    exported = [p for p in profile.precisions if p != "fp8"]
    if precision not in profile.precisions:
        where = profile.name
        if profile.gpu:
            where += f" (SM {', '.join(profile.gpu.compute_capabilities)})"
        raise UserError(f"{where} has no {precision}", expected=" or ".join(exported))
    if precision not in exported:
        raise UserError(
            f"{profile.name} has {precision}, but eosfm-edge does not export it",
            expected=" or ".join(exported),
        )


def require_memory(profile: Profile, need: Need) -> None:
    """Check that tiles and batches fit into the device's memory.

    Raises:
        UserError: they need more memory than the device has. Less may fit than passes here.
    """
    if profile.memory_mb is None or need.bytes <= profile.memory_mb << 20:
        return
    room = max((profile.memory_mb << 20) - need.weights, 0) // need.tile
    raise UserError(
        f"{need.batch} tiles at once need at least {need.bytes >> 20:,} MB, and {profile.name} has "
        f"{profile.memory_mb:,} MB",
        expected=f"a batch of at most {room}" if room else "smaller tiles",
        remedy="give a smaller --batch or --tile",
    )


def require_exportable(
    profile: Profile,
    precision: DevicePrecision | Literal["auto"],
    capabilities: Sequence[str],
    *,
    calibrated: bool,
) -> None:
    """Check that a precision can be exported for the device and for the named GPUs of it.

    Args:
        profile: the device's.
        precision: ``auto`` is chosen among what the device has.
        capabilities: compute capabilities of GPUs, such as ``8.6``.
        calibrated: a calibration is given.

    Raises:
        UserError: the device or one of the GPUs cannot compute in it, int8 is asked for without a
            calibration, or ``auto`` for another device than this machine.
    """
    if precision == "auto":
        if profile.name != "cpu":
            raise UserError(
                f"--precision auto measures on this machine, and the target is {profile.name}",
                expected="the target cpu",
                remedy="give a precision, or export on the device",
            )
        return
    if precision == "int8" and not calibrated:
        raise UserError(
            "int8 needs a calibration, and there is none",
            remedy="make one with eosfm-edge calibrate, and give it with --calibration",
        )
    require_precision(profile, precision)
    for capability in capabilities:
        require_capability(profile, precision, capability)


def default_purpose(profile: Profile) -> Purpose:
    """Return whose files are exported for a target, where nothing is asked for.

    libeosfm computes on every target, and where TensorRT does it is what runs when that fails.
    """
    return "native" if profile.engine == "onnxruntime" else "all"


def default_precision(
    profile: Profile, purpose: Purpose, *, calibrated: bool
) -> DevicePrecision | Literal["auto"]:
    """Return the precision of an export that is given none.

    This machine's is measured where libeosfm computes: ``auto``. Elsewhere it is int8 if a
    calibration is given, which kept its fidelity; else fp16 where there is a GPU with units for it,
    else fp32.

    Args:
        profile: the target's.
        purpose: who is to compute.
        calibrated: a calibration is given.
    """
    if profile.name == "cpu" and purpose != "onnx":
        return "auto"
    if calibrated and "int8" in profile.precisions:
        return "int8"
    return "fp16" if profile.gpu is not None and "fp16" in profile.precisions else "fp32"


def tile_of(profile: Profile, size: int | None, batch: int | None) -> Tile:
    """Return the tile to export; what is None is the profile's.

    Raises:
        UserError: there is no such tile.
    """
    size = profile.tile if size is None else size
    batch = profile.batch if batch is None else batch
    try:
        return Tile(size=size, batch=batch)
    except ValidationError as error:
        raise UserError(
            f"{batch} tiles of {size} pixels a side",
            expected="1 to 64, of a multiple of 32 from 32 to 1024",
        ) from error


def require_capability(profile: Profile, precision: DevicePrecision, capability: str) -> None:
    """Check that a GPU is one of the profile's, and new enough for a precision.

    Raises:
        UserError: it is another GPU, or has no units for the precision.
    """
    require_precision(profile, precision)
    capabilities = profile.gpu.compute_capabilities if profile.gpu else ()
    if capability not in capabilities:
        raise UserError(
            f"SM {capability} is no GPU of {profile.name}", expected=", ".join(capabilities) or None
        )
    first = _FIRST_OF_RTX if profile.engine == "tensorrt-rtx" else _FIRST
    if precision in first and float(capability) < float(first[precision][0]):
        needed, reason = first[precision]
        raise UserError(
            f"SM {capability} {reason}",
            expected=f"SM {needed} or later for {precision}",
            remedy="export in fp16, or leave this GPU out with --sm",
        )
