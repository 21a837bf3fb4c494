"""A target: what a device can run, and what it has. ``targets/*.yaml`` are such profiles.

``targets/profile.schema.json`` is this model's JSON schema, ``docs/targets.md`` its page.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from eosfm_edge.formats.base import Name, Strict
from eosfm_edge.formats.precision import DevicePrecision

Version = Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}$")]
ComputeCapability = Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]
Architecture = Literal["x86_64", "aarch64"]
TensorRt = Literal["tensorrt", "tensorrt-rtx"]
Engine = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]


class Gpu(Strict):
    """The graphics processor.

    Attributes:
        name: as its maker calls it.
        compute_capabilities: ``8.7``; several where a profile is of several devices.
        shares_memory: with the CPU, as on a Jetson.
    """

    name: str
    compute_capabilities: tuple[ComputeCapability, ...] = Field(min_length=1)
    shares_memory: bool = False


class System(Strict):
    """A release of the software that the device may have.

    Attributes:
        name: ``JetPack 6.2``.
        glibc: what libeosfm links with.
        python: its system's.
        cuda: none where there is no GPU.
        tensorrt: none where ``build`` has nothing to build with.
    """

    name: str
    glibc: Version | None = None
    python: Version | None = None
    cuda: Version | None = None
    tensorrt: Version | None = None


class PowerMode(Strict):
    """A setting of the device that trades time for power."""

    name: str
    watts: float = Field(gt=0)


class Profile(Strict):
    """A target: what a device can run, and what it has.

    Attributes:
        name: what ``--target`` takes.
        summary: the device, in a line.
        architecture: of its CPU; none is any.
        instructions: of the CPU that libeosfm uses there, as it names its paths.
        engine: what ``model.onnx`` is written for, besides libeosfm.
        gpu: none where there is none.
        systems: oldest first.
        precisions: that there are units for.
        cores: of the CPU; the fewest where a profile is of several devices.
        memory_mb: of the device, or of the GPU where that has its own; none if it is not known.
        workspace_mb: what building an engine may take of it.
        power_modes: least first.
        opset: of ``model.onnx``.
        tile: pixels of a tile's side, where nothing is asked for.
        batch: tiles at once, where nothing is asked for.
        peak_tops: 1e12 operations a second, dense, by precision; a multiply-add is two.
        bandwidth_gbs: of the memory, 1e9 bytes a second.
        experience: what has been run on the real device, and what never has.
        sources: of the facts: by field, a page or the document that says so.
    """

    schema_version: Literal[1] = 1
    name: Name
    summary: str
    architecture: Architecture | None = None
    instructions: tuple[str, ...] = ()
    engine: Engine
    gpu: Gpu | None = None
    systems: tuple[System, ...] = ()
    precisions: tuple[DevicePrecision, ...] = Field(min_length=1)
    cores: int | None = Field(default=None, ge=1, le=256)
    memory_mb: int | None = Field(default=None, ge=64)
    workspace_mb: int | None = Field(default=None, ge=16)
    power_modes: tuple[PowerMode, ...] = ()
    opset: Literal[17] = 17
    tile: int = Field(default=224, ge=32, le=1024, multiple_of=32)
    batch: int = Field(default=1, ge=1, le=64)
    peak_tops: dict[DevicePrecision, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    bandwidth_gbs: float | None = Field(default=None, gt=0)
    experience: str
    sources: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.engine != "onnxruntime" and not (self.gpu and self.workspace_mb):
            raise ValueError(f"engine {self.engine} without gpu or workspace_mb")
        if surplus := set(self.peak_tops) - set(self.precisions):
            raise ValueError(f"peak_tops: {', '.join(sorted(surplus))} not among precisions")
        fields = type(self).model_fields
        facts = (
            "gpu",
            "systems",
            "cores",
            "memory_mb",
            "power_modes",
            "peak_tops",
            "bandwidth_gbs",
        )
        for field in facts:
            if getattr(self, field) and field not in self.sources:
                raise ValueError(f"sources: nothing is said of {field}")
        if unknown := set(self.sources) - set(fields):
            raise ValueError(f"sources: {', '.join(sorted(unknown))} is no field")
        return self
