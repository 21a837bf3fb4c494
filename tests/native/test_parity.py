"""The native engine against PyTorch: shapes, chains and precisions that no trained model has.

Differences are signal to noise ratios. In fp32 the order of sums differs; bf16 and int8 round the
weights and activations of random networks, which are harder to round than trained ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from eosfm_edge.bundle.known_answer import KnownAnswer, sqnr_db
from eosfm_edge.bundle.manifest import Precision
from eosfm_edge.ensemble.bands import Band
from eosfm_edge.ensemble.model import Ensemble, physical_units
from eosfm_edge.ensemble.spec import (
    EnsembleSpec,
    FusionMode,
    InputBand,
    NormalisationMode,
    Provenance,
    SelectionSpec,
    SpecialistSpec,
)
from eosfm_edge.export.chain import Chain
from eosfm_edge.export.native import write_chain, write_specialists
from eosfm_edge.export.ranges import measure_ranges
from eosfm_edge.runtime.binding import BF16, Context, EosfmError, Model

LEAST_SQNR = {"fp32": 100.0, "bf16": 30.0, "int8": 18.0}
PATHS = ("avx2", "avx512", "avx512-vnni", "avx512-bf16", "amx", "neon", "neon-dotprod")

Array = NDArray[np.float32]


def spec_of(
    wants: Sequence[int],
    bands: int,
    *,
    normalisation: NormalisationMode = "batch",
    projection: bool = False,
    selection: SelectionSpec | None = None,
    fusion: FusionMode = "none",
    backbone: str = "atto",
) -> EnsembleSpec:
    return EnsembleSpec(
        name="test",
        input=tuple(InputBand(scale=0.5 + 0.1 * i, offset=0.01 * i) for i in range(bands)),
        specialists=tuple(
            SpecialistSpec(
                name=f"s{i}",
                backbone=f"convnextv2_{backbone}",
                bands=(Band(),) * count,
                weights=f"s{i}.safetensors",
                weights_sha256="0" * 64,
                provenance=Provenance(source="random"),
            )
            for i, count in enumerate(wants)
        ),
        normalisation=normalisation,
        projection=projection,
        selection=selection or SelectionSpec(),
        fusion=fusion,
        shared_sha256="0" * 64,
    )


def random_ensemble(spec: EnsembleSpec, seed: int = 0, **widths: object) -> Ensemble:
    """Build an ensemble with every tensor random, GRN's and variances too."""
    torch.manual_seed(seed)
    ensemble = Ensemble(spec, **widths)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for name, buffer in ensemble.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return ensemble


def narrow(ensemble: Ensemble, seed: int) -> None:
    """Cut every block's hidden width to some multiple of 8, as pruning does."""
    rng = np.random.default_rng(seed)
    for encoder in ensemble.encoders:
        for name, module in list(encoder.named_modules()):
            if not name.endswith(".mlp"):
                continue
            width, hidden = module.fc1.in_channels, module.fc1.out_channels
            kept = torch.from_numpy(
                np.sort(rng.permutation(hidden)[: 8 * rng.integers(1, hidden // 8)])
            )
            fc1, fc2 = nn.Conv2d(width, len(kept), 1), nn.Conv2d(len(kept), width, 1)
            fc1.weight.data, fc1.bias.data = module.fc1.weight[kept], module.fc1.bias[kept]
            fc2.weight.data, fc2.bias.data = module.fc2.weight[:, kept], module.fc2.bias
            module.fc1, module.fc2 = fc1, fc2
            module.grn.weight = nn.Parameter(module.grn.weight[kept])
            module.grn.bias = nn.Parameter(module.grn.bias[kept])


def image_of(bands: int, height: int, width: int, seed: int = 0) -> Array:
    """Return smooth stored values with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    waves = [np.sin(x * rng.uniform(0.2, 2) + y * rng.uniform(0.2, 2) + i) for i in range(bands)]
    noise = rng.normal(0, 0.2, (bands, height, width))
    return np.asarray(np.stack(waves) + noise, np.float32)


@torch.inference_mode()
def expected_of(ensemble: Ensemble, image: Array) -> list[Array]:
    levels = ensemble(physical_units(ensemble.spec, torch.from_numpy(image[np.newaxis])))
    return [level[0].numpy() for level in levels]


def write(folder: Path, ensemble: Ensemble, tile: int, precision: Precision = "fp32") -> Path:
    """Write the native part of a bundle."""
    folder.mkdir()
    chain = Chain(ensemble)
    image = image_of(len(ensemble.spec.input), tile, tile)
    levels = tuple(level[np.newaxis] for level in expected_of(ensemble, image))
    ranges = measure_ranges(chain, [image]) if precision == "int8" else {}
    write_specialists(folder, chain, precision, ranges)
    answer = KnownAnswer(image[np.newaxis], levels)
    write_chain(folder, chain, "test", tile, precision, answer, 1e-4)
    return folder


def least_sqnr(context: Context, ensemble: Ensemble, image: Array) -> float:
    got = context.run(list(image))
    return min(map(sqnr_db, got, expected_of(ensemble, image)))


@pytest.mark.parametrize("fusion", ["none", "conv1x1", "mlp", "addition", "multiplication"])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("normalisation", ["batch", "layer", "none"])
def test_every_chain(
    tmp_path: Path, normalisation: NormalisationMode, projection: bool, fusion: FusionMode
) -> None:
    spec = spec_of((3, 13), 13, normalisation=normalisation, projection=projection, fusion=fusion)
    widths = {"fused": (24, 40, 56, 72)} if fusion in ("conv1x1", "mlp") else {}
    projected = {"projected": ((20, 24, 28, 36),) * 2} if projection else {}
    ensemble = random_ensemble(spec, **widths, **projected)
    with Model(write(tmp_path / "b", ensemble, 64)) as model, model.context(threads=2) as context:
        assert model.describe().runs == 3  # 3 bands of 13 have two rules
        assert least_sqnr(context, ensemble, image_of(13, 64, 64, seed=1)) >= LEAST_SQNR["fp32"]
        within, _ = context.verify()
        assert within


@pytest.mark.parametrize("fusion", ["none", "conv1x1", "mlp", "addition"])
@pytest.mark.parametrize(
    "selection",
    [
        SelectionSpec(mode="topk", k=2),
        SelectionSpec(mode="topk", k=1, scale_features=True),
        SelectionSpec(mode="smooth", scale_features=True),
    ],
)
def test_every_selection(tmp_path: Path, selection: SelectionSpec, fusion: FusionMode) -> None:
    spec = spec_of((3, 3, 3), 3, selection=selection, fusion=fusion)
    widths = {"fused": (24, 40, 56, 72)} if fusion in ("conv1x1", "mlp") else {}
    ensemble = random_ensemble(spec, **widths)
    weights = ensemble.encoder_selector.specialists_weights
    assert isinstance(weights, Tensor)
    weights.data = torch.tensor([0.3, -0.9, 0.7])
    with Model(write(tmp_path / "b", ensemble, 32)) as model, model.context(threads=1) as context:
        assert least_sqnr(context, ensemble, image_of(3, 32, 32)) >= LEAST_SQNR["fp32"]


@pytest.mark.parametrize("backbone", ["atto", "femto", "pico", "nano", "tiny"])
def test_sizes_that_timm_knows(tmp_path: Path, backbone: str) -> None:
    ensemble = random_ensemble(spec_of((2,), 2, backbone=backbone))
    with Model(write(tmp_path / "b", ensemble, 64)) as model, model.context() as context:
        assert least_sqnr(context, ensemble, image_of(2, 64, 64, seed=1)) >= LEAST_SQNR["fp32"]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31),
    bands=st.sampled_from([1, 2, 3, 5, 12]),
    height=st.integers(1, 5),
    width=st.integers(1, 8),
    precision=st.sampled_from(["fp32", "bf16", "int8"]),
    path=st.sampled_from(["", *PATHS]),
)
def test_pruned_shapes_on_every_path(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    bands: int,
    height: int,
    width: int,
    precision: Precision,
    path: str,
) -> None:
    ensemble = random_ensemble(spec_of((bands,), bands, normalisation="none"), seed)
    narrow(ensemble, seed)
    bundle = write(tmp_path_factory.mktemp("b") / "b", ensemble, 64, precision)
    image = image_of(bands, 32 * height, 32 * width, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EOSFM_ISA", path)
        try:
            model = Model(bundle)
        except EosfmError as error:
            assert "EOSFM_ISA" in str(error)  # this machine has not that path
            return
    with model, model.context(height=32 * height, width=32 * width, threads=2) as context:
        assert least_sqnr(context, ensemble, image) >= LEAST_SQNR[precision]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_threads_do_not_change_a_bit(tmp_path: Path, precision: Precision) -> None:
    ensemble = random_ensemble(spec_of((3, 13), 13, fusion="conv1x1"), fused=(24, 40, 56, 72))
    image = list(image_of(13, 96, 160))
    with Model(write(tmp_path / "b", ensemble, 96, precision)) as model:
        results = []
        for threads in (1, 2, 3, 2):
            with model.context(threads=threads, height=96, width=160) as context:
                results.append([level.tobytes() for level in context.run(image)])
    assert all(result == results[0] for result in results)


def test_fp32_weights_can_be_computed_in_bf16(tmp_path: Path) -> None:
    ensemble = random_ensemble(spec_of((3,), 3))
    image = image_of(3, 64, 64)
    with Model(write(tmp_path / "b", ensemble, 64)) as model:
        with model.context(precision=BF16) as context:
            sqnr = least_sqnr(context, ensemble, image)
        native_bf16 = model.describe().isa in (b"avx512-bf16", b"amx")
    assert LEAST_SQNR["bf16"] <= sqnr < (90 if native_bf16 else 200)


@pytest.mark.parametrize("fusion", ["none", "conv1x1", "addition"])
def test_what_is_not_active_counts_as_zero(tmp_path: Path, fusion: FusionMode) -> None:
    spec = spec_of((3, 3), 3, fusion=fusion)
    widths = {"fused": (24, 40, 56, 72)} if fusion == "conv1x1" else {}
    ensemble = random_ensemble(spec, **widths)
    image = image_of(3, 32, 32)
    with Model(write(tmp_path / "b", ensemble, 32)) as model, model.context() as context:
        everything = context.run(list(image))
        context.set_active([True, False])
        got = context.run(list(image))
        context.set_active([True, True])
        again = context.run(list(image))
    selection = SelectionSpec(mode="topk", k=1)
    weights = ensemble.encoder_selector.specialists_weights
    assert isinstance(weights, Tensor)
    weights.data = torch.tensor([1.0, 0.0])
    ensemble.encoder_selector.spec = selection
    assert min(map(sqnr_db, got, expected_of(ensemble, image))) >= LEAST_SQNR["fp32"]
    for one, other in zip(everything, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_int8_is_the_same_on_every_path_but_for_its_floats(tmp_path: Path) -> None:
    """Integer sums are exact everywhere; what is between them is fp32, in another order."""
    ensemble = random_ensemble(spec_of((3,), 3, normalisation="none"))
    bundle = write(tmp_path / "b", ensemble, 64, "int8")
    image = image_of(3, 64, 64)
    results = []
    for path in PATHS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EOSFM_ISA", path)
            try:
                model = Model(bundle)
            except EosfmError:
                continue
        with model, model.context(threads=1) as context:
            results.append(context.run(list(image)))
    assert results
    for other in results[1:]:
        assert min(map(sqnr_db, other, results[0])) >= 30
