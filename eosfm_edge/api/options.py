"""Options of the verbs: their types, defaults and help, which the command line shows as they are.

They are plain values, so that they can be written down, and importing them needs no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from eosfm_edge.errors import UserError
from eosfm_edge.files import file_kind
from eosfm_edge.formats.adaptation import AdaptationMode
from eosfm_edge.formats.backends import BACKENDS, Backend, BackendChoice
from eosfm_edge.formats.bands import PRESETS, Band, parse_bands
from eosfm_edge.formats.bundle import Purpose
from eosfm_edge.formats.calibration import Grn, Method
from eosfm_edge.formats.ensemble import FusionMode, NormalisationMode
from eosfm_edge.formats.precision import DevicePrecision
from eosfm_edge.formats.recipe import DEFAULT, Criterion, Measure, Ranking, Scope, shipped
from eosfm_edge.targets.registry import known_targets

PathLike: TypeAlias = str | os.PathLike[str]


class Expert:
    """Marks an option that few need: help shows it last."""


class Imaging:
    """Marks an option that says how imagery is read."""


class Known:
    """Marks an option whose usual values have names, with which shells complete it."""

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self.names = names


def as_path(value: str | os.PathLike[str]) -> Path:
    """Return a path that is no FIFO, socket or device: to read one can take for ever.

    Raises:
        UserError: it is one.
    """
    if not isinstance(value, str | os.PathLike):
        raise ValueError("must be a path")
    path = Path(os.fsdecode(value))
    try:
        kind = file_kind(path.stat().st_mode)
    except (OSError, ValueError):
        return path  # whoever opens it complains better
    if kind not in ("a file", "a folder"):
        raise UserError(f"{path} is {kind}", expected="a file or a folder")
    return path


def as_scene(value: str | os.PathLike[str]) -> Path | str:
    """Return a path, or a name that GDAL knows: a path would lose a slash of ``https://``."""
    if isinstance(value, str) and re.match(r"[A-Za-z0-9_]{2,}:|/vsi", value):
        return value
    return as_path(value)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str | os.PathLike) else value


def _bands(value: Any) -> Any:
    return parse_bands(value) if isinstance(value, str) else value


def _nodata(value: Any) -> Any:
    return value.strip().lower() if value and isinstance(value, str) else value


def _texts(value: Any) -> Any:
    """Return values as the command line takes them: 1, {"B10": 1} or [1, 2], which is each's."""
    if isinstance(value, Mapping):
        return tuple(f"{band}={one}" for band, one in value.items())
    if isinstance(value, str | float | int):
        return (str(value),)
    if isinstance(value, Sequence) and not any(isinstance(one, str) for one in value):
        return (",".join(map(str, value)),) if value else ()
    return value


def _named_classes(value: Any) -> Any:
    """Return names by code, of a mapping or of texts: ``1=water,2=forest``."""
    if value is None or isinstance(value, Mapping):
        return value
    named: dict[int, str] = {}
    for text in (part for one in _one_or_many(value) for part in str(one).split(",")):
        code, separator, name = text.partition("=")
        if not separator or not code.strip().isdigit() or not name.strip():
            raise UserError(f"classes {text!r}", expected="CODE=NAME, as in 1=water,2=forest")
        if int(code) in named:
            raise UserError(f"the class {int(code)} is named twice")
        named[int(code)] = name.strip()
    return named


def _named_bands(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _bands(bands) for name, bands in value.items()}
    named = {}
    for text in _one_or_many(value):
        name, separator, bands = text.partition("=")
        if not separator:
            raise UserError(f"specialist bands {text!r}", expected="NAME=BANDS")
        named[name] = parse_bands(bands)
    return named


FilePath = Annotated[Path, BeforeValidator(as_path)]
FilePaths = Annotated[tuple[FilePath, ...], BeforeValidator(_one_or_many)]
Scene = Annotated[Path | str, BeforeValidator(as_scene)]
Scenes = Annotated[tuple[Scene, ...], BeforeValidator(_one_or_many)]
Bands = Annotated[tuple[Band, ...], BeforeValidator(_bands)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
PerBand = Annotated[tuple[str, ...], BeforeValidator(_texts)]
NamedClasses = Annotated[
    dict[Annotated[int, Field(ge=0, le=254)], Annotated[str, Field(min_length=1)]],
    BeforeValidator(_named_classes),
]
NamedBands = Annotated[dict[str, tuple[Band, ...]], BeforeValidator(_named_bands)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def _presets() -> list[str]:
    return list(PRESETS)


def _multiple_of_32(value: int) -> int:
    if value % 32 or not 32 <= value <= 1024:
        raise UserError(
            f"tiles of {value} pixels a side", expected="a multiple of 32 from 32 to 1024"
        )
    return value


TileSide = Annotated[int, AfterValidator(_multiple_of_32)]


def flag(name: str) -> str:
    """Return an option as the command line takes it: ``--for`` of ``for_``, a word of Python's."""
    return "--" + name.rstrip("_").replace("_", "-")


class Options(BaseModel):
    """Options of a verb: immutable; an unknown name or a wrong value is a UserError."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _complain(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else cls.__name__
            if first["type"] == "extra_forbidden":
                raise UserError(
                    f"{cls.__name__} has no option {name!r}",
                    expected=f"one of {', '.join(cls.model_fields)}",
                ) from error
            expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            raise UserError(f"{flag(name)[2:]} is {first['input']!r}", expected=expected) from error

    def as_arguments(self) -> list[str]:
        """Return the options that were given as the command line takes them."""
        words = []
        for name in type(self).model_fields:
            value = getattr(self, name) if name in self.model_fields_set else None
            option = flag(name)
            if value is True:
                words.append(option)
            elif isinstance(value, tuple) and all(isinstance(one, Band) for one in value):
                words += [option, ",".join(map(str, value))] if value else []
            elif isinstance(value, tuple):
                words += [word for one in value for word in (option, str(one))]
            elif value is not None and not isinstance(value, bool | dict):
                words += [option, str(value)]
        return words


class ImageryOptions(Options):
    """Options of imagery, for what its files do not say."""

    bands: Annotated[Bands | None, Imaging(), Known(_presets)] = Field(
        None,
        description="What the bands of a file are, in order, or the files of a folder in the order "
        "of their names, if these do not say so: names (B04,B03), wavelengths (665nm,560nm) or one "
        f"of {', '.join(PRESETS)}.",
    )
    scale: Annotated[Finite | None, Imaging()] = Field(
        None, description="physical = stored * SCALE + OFFSET, whatever the files say (0.0001)."
    )
    offset: Annotated[Finite | None, Imaging()] = Field(
        None, description="See scale (Sentinel-2 from baseline 04.00: -0.1)."
    )
    nodata: Annotated[
        Annotated[Finite | Literal["none"], BeforeValidator(_nodata)] | None, Imaging()
    ] = Field(
        None,
        description="Stored value of pixels without data, whatever the files say; 'none': no value "
        "is.",
    )
    trust_values: Annotated[bool, Imaging()] = Field(
        False, description="Take values that seem not to be what they are read as."
    )


class ImportOptions(Options):
    """Settings that weight files lack. None: taken from the files, or the reference's default.

    Values of bands are one for all (``scale=1e-4``), by band (``nodata={"B10": "none"}``) or one
    for each in turn.
    """

    name: str | None = Field(None, description="The ensemble's name.  [default: the directory's]")
    bands: Annotated[Bands | None, Known(_presets)] = Field(
        None,
        description="The ensemble's input: names (B04,B03,B02), wavelengths (665nm,560nm) or one "
        f"of {', '.join(PRESETS)}.",
    )
    scale: Annotated[PerBand, Imaging()] = Field(
        (),
        description="physical = stored * SCALE + OFFSET, of all bands or of one; may be repeated. "
        "[default: 1]",
    )
    offset: Annotated[PerBand, Imaging()] = Field((), description="See scale.  [default: 0]")
    mean: Annotated[PerBand, Imaging()] = Field(
        (),
        description="Specialists see (stored - MEAN) / STD, as they were trained to. May be "
        "repeated; 1354.4,1118.2,... is for each band in turn.",
    )
    std: Annotated[PerBand, Imaging()] = Field((), description="See mean.")
    nodata: Annotated[PerBand, Imaging()] = Field(
        (),
        description="Stored value of pixels without data, or 'none', of all bands or of one. May "
        "be repeated.  [default: none]",
    )
    fill: Annotated[PerBand, Imaging()] = Field(
        (),
        description="Stored value that specialists see in such pixels. May be repeated. "
        "[default: 0]",
    )
    data: Scenes = Field(
        (),
        description="Imagery like that which the specialists will see: its description is kept "
        "with the ensemble, and verbs that are given none use it. May be repeated.",
    )
    seed: Annotated[int, Imaging()] = Field(
        0, ge=0, lt=2**31, description="Of the choice of tiles of the imagery."
    )
    specialist_bands: NamedBands = Field(
        default_factory=dict,
        description="What bands a specialist wants, if the files do not say so. May be repeated.",
    )
    adaptation: Annotated[AdaptationMode | None, Expert()] = Field(
        None,
        description="What says which bands a specialist gets: their number, as in the reference, "
        "or their names.  [default: count for EoS-FM ensembles over one of the presets, else name]",
    )
    prefix: Annotated[str | None, Expert()] = Field(
        None,
        description="Which encoder to take of a file with several, by the beginning of its names: "
        "an averaged copy (ema_model.), a teacher.",
    )
    norm: Annotated[NormalisationMode | None, Expert()] = Field(None, description="Normalisation.")
    fusion: Annotated[FusionMode | None, Expert()] = Field(None, description="How sets are fused.")
    selection: Annotated[Literal["topk", "smooth"] | None, Expert()] = Field(
        None, description="How encoders count."
    )
    top_k: Annotated[int | None, Expert()] = Field(
        None, ge=1, description="How many encoders count, with topk."
    )
    scale_features: Annotated[bool, Expert()] = Field(
        False, description="Scale features by the selection weights."
    )


class PruneOptions(ImageryOptions):
    """Options of pruning. Those that a recipe has too override it."""

    data: Scenes = Field(
        (),
        description="Unlabelled scenes, folders of bands or chips, or a manifest (.yaml), to "
        "choose and repair on. May be repeated.  [default: what is kept with the ensemble]",
    )
    ratio: float | None = Field(
        None, ge=0, lt=1, description="The share of multiply-accumulates that goes."
    )
    budget: str | None = Field(None, description="Instead of a ratio: 40ms, 5MB or fidelity=0.98.")
    specialists: str | int | None = Field(
        None,
        description="Keep K whole specialists; 'useful': all but dead ones and duplicates.",
    )
    rank_by: Annotated[Literal["reconstruction", "selection", "probe"], Expert()] = Field(
        "reconstruction", description="What says which specialists go."
    )
    labels: Annotated[FilePath | None, Expert()] = Field(
        None, description="For ranking by probe: a CSV of image files and their labels."
    )
    plan: Annotated[FilePath | None, Expert()] = Field(
        None, description="Replay a plan instead of making one."
    )
    save_plan: Annotated[FilePath | None, Expert()] = Field(
        None, description="Write the plan here; without an output, do no more."
    )
    recipe: Annotated[str, Expert(), Known(shipped)] = Field(
        DEFAULT,
        description=f"How to prune: {', '.join(shipped())}, or a .yaml file. The options below "
        "override it.",
    )
    scope: Annotated[Scope | None, Expert()] = Field(
        None, description="'width' changes the outputs."
    )
    criterion: Annotated[Criterion | None, Expert()] = Field(None, description="Which channels go.")
    ranking: Annotated[Ranking | None, Expert()] = Field(
        None, description="Which channels compete."
    )
    align: Annotated[Literal["8", "16"] | None, Expert()] = Field(
        None, description="Widths are multiples of this."
    )
    by: Annotated[Measure | None, Expert()] = Field(None, description="What a ratio is of.")
    distill: Annotated[int | None, Expert()] = Field(
        None, ge=0, le=1_000_000, description="Steps of self-distillation."
    )
    tiles: Annotated[int | None, Expert()] = Field(
        None,
        ge=1,
        le=100_000,
        description="Tiles for calibration, at most; by default as many as the channels need.",
    )
    seed: Annotated[int | None, Expert()] = Field(
        None, ge=0, lt=2**31, description="Of tiles and distillation."
    )
    tile: Annotated[TileSide, Expert()] = Field(224, description="Pixels a side.")
    precision: Annotated[Literal["fp32", "bf16", "int8"], Expert()] = Field(
        "fp32", description="Of the native engine, for milliseconds and megabytes."
    )
    measured: Annotated[FilePaths, Expert()] = Field(
        (),
        description="For a budget of ms on another device: what bench --json wrote there, for two "
        "bundles or more.",
    )


class CalibrateOptions(ImageryOptions):
    """Options of calibration."""

    data: Scenes = Field(
        (),
        description="Unlabelled imagery: a scene, a folder of bands or chips, or a manifest "
        "(.yaml). May be repeated.  [default: what is kept with the ensemble]",
    )
    method: Annotated[Literal["auto"] | Method, Expert()] = Field(
        "auto",
        description="How activation ranges are clipped. 'auto' picks, per tensor, the method with "
        "the smallest error.",
    )
    grn: Annotated[Grn, Expert()] = Field(
        "exact",
        description="'static' has calibrated constants for the tile's own norms: the network is "
        "local, and less faithful.",
    )
    min_cosine: float = Field(
        0.995,
        ge=0,
        le=1,
        description="What every level keeps: layers that cost too much are half or fp32.",
    )
    max_drop: float | None = Field(
        None,
        ge=0,
        le=100,
        description="The same for the percentage of cells that a probe labels otherwise.",
    )
    distill: Annotated[int, Expert()] = Field(
        0, ge=0, le=1_000_000, description="Steps of quantisation-aware self-distillation."
    )
    tiles: Annotated[int | None, Expert()] = Field(
        None,
        ge=1,
        le=100_000,
        description="Tiles for calibration, at most; by default as many as the channels need.",
    )
    tile: Annotated[TileSide, Expert()] = Field(
        224, description="Pixels a side: those of the export, on which GRN's norms depend."
    )
    seed: Annotated[int | None, Expert()] = Field(
        None, ge=0, lt=2**31, description="Of tiles.  [default: that kept with the imagery, or 0]"
    )


class ExportOptions(ImageryOptions):
    """Options of an export: the bundle's target, and how it is made."""

    target: Annotated[str | FilePath, Known(known_targets)] = Field(
        "cpu",
        description="The device: a name that eosfm-edge targets lists, or a profile of your own "
        "(.yaml).",
    )
    data: Scene | None = Field(
        None,
        description="Real imagery: tiles of it check the exported model and become its known "
        "answer.  [default: what is kept with the ensemble]",
    )
    precision: Literal["auto"] | DevicePrecision | None = Field(
        None,
        description="Of the matrices; int8 needs a calibration; 'auto' takes the fastest that is "
        "faithful here.  [default: auto for cpu; elsewhere int8 with a calibration, else fp16 for "
        "GPUs, else fp32]",
    )
    calibration: FilePath | None = Field(
        None, description="What eosfm-edge calibrate wrote, for int8."
    )
    for_: Purpose | None = Field(
        None,
        description="Whose files are written: 'native' is libeosfm, on CPUs and by cuda on NVIDIA "
        "GPUs; 'onnx' is ONNX Runtime and TensorRT; 'all' is both.  [default: all where the target "
        "has TensorRT, with native for when that fails; else native]",
    )
    tile: Annotated[int | None, Expert()] = Field(
        None,
        description="Pixels a side, a multiple of 32.  [default: the target's, mostly 224]",
    )
    batch: Annotated[int | None, Expert()] = Field(
        None,
        description="Tiles that the ONNX graphs take at once, at most.  [default: the target's, "
        "mostly 1]",
    )
    split: Annotated[bool, Expert()] = Field(
        False,
        description="An ONNX graph for each specialist, for small boards and updates of single "
        "specialists.",
    )
    stack: Annotated[bool, Expert()] = Field(
        False,
        description="One graph that computes specialists of equal shape together, to fill a GPU.",
    )
    sm: Annotated[Texts, Expert()] = Field(
        (),
        description="Compute capability of a GPU to build for, with TensorRT-RTX; may be repeated. "
        "[default: the GPU at hand, or all that the target names]",
    )


class DeployOptions(ImageryOptions):
    """Options of a deployment: the target, the budgets, and on which imagery."""

    target: Annotated[str | FilePath, Known(known_targets)] = Field(
        "cpu",
        description="The device: a name that eosfm-edge targets lists, or a profile of your own "
        "(.yaml).",
    )
    data: Scenes = Field(
        (),
        description="Unlabelled imagery: a scene, a folder of bands or chips, or a manifest "
        "(.yaml). May be repeated.  [default: what is kept with the ensemble]",
    )
    budget: Texts = Field(
        (),
        description="At most 40ms, 5MB or 300mJ; at least fidelity=0.98. Several: 40ms,5MB, or "
        "repeated.",
    )
    max_drop: float | None = Field(
        None,
        ge=0,
        le=100,
        description="At most this percentage of cells that a probe labels otherwise.",
    )
    replay: FilePath | None = Field(
        None, description="Make what a deploy.yaml describes again, without a search."
    )
    tile: Annotated[int | None, Expert()] = Field(
        None,
        description="Pixels a side, a multiple of 32.  [default: the target's, mostly 224]",
    )
    tiles: Annotated[int | None, Expert()] = Field(
        None,
        ge=1,
        le=100_000,
        description="Tiles for calibration, at most; by default as many as the channels need.",
    )
    seed: Annotated[int | None, Expert()] = Field(
        None, ge=0, lt=2**31, description="Of tiles.  [default: that kept with the imagery, or 0]"
    )


class BuildOptions(Options):
    """Options of building a bundle's engines, on the device that runs them."""

    sm: Texts = Field(
        (),
        description="Compute capability of a GPU to build for, with TensorRT-RTX; may be repeated. "
        "[default: the GPU at hand, or all that the target names]",
    )
    dry_run: bool = Field(
        False,
        description="Parse the graphs and check their precisions, without a GPU and without "
        "building.",
    )


class VerifyOptions(Options):
    """Who computes the known answer."""

    backend: BackendChoice = Field(
        "native", description="Who computes. auto: the fastest here that gives the known answer."
    )


class RunOptions(ImageryOptions):
    """Options of a run over a scene."""

    backend: BackendChoice = Field(
        "native", description="Who computes. auto: the fastest here that gives the known answer."
    )
    levels: Literal["all", "none"] = Field(
        "all", description="none: write the maps of the bundle's heads alone."
    )
    probabilities: bool = Field(
        False, description="Write the probabilities of the classes of each head too."
    )
    quicklook: bool = Field(
        False,
        description="Write quicklook.png, the scene and its features, and groups.tif, a map of "
        "groups of features.",
    )
    beside: FilePath | None = Field(
        None,
        description="What another bundle's run over the scene wrote: the quicklook shows both and "
        "says how many cells are in the same group.",
    )
    threads: int = Field(0, ge=0, description="0: all cores.")
    grn: Annotated[Literal["tile", "scene"], Expert()] = Field(
        "tile",
        description="What global response normalisation is over. scene: two passes, native backend "
        "only.",
    )
    overlap: Annotated[int | None, Expert()] = Field(
        None,
        description="Pixels that tiles share, a multiple of 32.  [default: a quarter of a tile]",
    )
    halo: Annotated[int, Expert()] = Field(
        0,
        description="Pixels along tiles' edges whose features are not used, up to half of the "
        "overlap.",
    )
    packets: Annotated[str | None, Expert()] = Field(
        None,
        description="Write features.eosp too: packets for a downlink, each of at most so many "
        "bytes (200kB).",
    )
    packet_levels: Annotated[str, Expert()] = Field("1,2,3,4", description="Which levels are sent.")
    packet_encoding: Annotated[Literal["int8", "fp16"], Expert()] = Field(
        "int8", description="int8: with a step for each channel. fp16: lossless from there on."
    )


class HeadOptions(ImageryOptions):
    """Options of fitting a head."""

    labels: FilePaths = Field(
        (),
        description="What places are: a raster of class codes, polygons, or a CSV of points. One "
        "for all scenes, or one for each: may be repeated.",
    )
    data: Scenes = Field(
        (), description="A scene that has labels, as run takes it. May be repeated."
    )
    classes: NamedClasses | None = Field(
        None,
        description="Names of the classes by code: 1=water,2=forest. Other codes are no labels. "
        "[default: all codes, or the names that the labels have]",
    )
    column: str | None = Field(
        None,
        description="The attribute of polygons with their class.  [default: label, class, or the "
        "only one]",
    )
    levels: str = Field("1,2,3", description="Which levels the head reads.")
    backend: Annotated[Backend, Expert()] = Field(
        "native", description="Who computes the features."
    )
    threads: Annotated[int, Expert()] = Field(0, ge=0, description="0: all cores.")
    cells: Annotated[int, Expert()] = Field(
        20_000, ge=100, le=1_000_000, description="Labelled cells that are used, at most."
    )
    seed: Annotated[int, Expert()] = Field(
        0, ge=0, lt=2**31, description="Of the cells and the parts that are held out."
    )


class BenchOptions(Options):
    """Who is timed, and how often."""

    backend: Annotated[
        tuple[Backend, ...], BeforeValidator(_one_or_many), Known(lambda: BACKENDS)
    ] = Field(
        (),
        description="Who is timed; may be repeated. Ratios are to the last.  [default: native and "
        "onnxruntime, as far as the bundle has their files]",
    )
    threads: int = Field(0, ge=0, description="0: all cores.")
    rounds: int = Field(20, ge=2, description="How often each has its turn.")
