"""The native engine against PyTorch: shapes, chains and precisions that no trained model has.

Differences are signal to noise ratios. In fp32 the order of sums differs; bf16 and int8 round the
weights and activations of random networks, which are harder to round than trained ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.chains import Array, expected_of, image_of, narrow, random_ensemble, spec_of, write
from support.programs import ALL_ISAS, ISAS
from support.speck import SPECK, register
from support.tiers import thorough
from torch import Tensor

from eosfm_edge.bundle.known_answer import sqnr_db
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.formats.ensemble import FusionMode, NormalisationMode, SelectionSpec
from eosfm_edge.formats.precision import Precision
from eosfm_edge.native.binding import BF16, Context, Model
from eosfm_edge.native.header import EosfmError
from eosfm_edge.network.deployed import DeployedEncoder

LEAST_SQNR = {"fp32": 100.0, "bf16": 30.0, "int8": 18.0}
EXAMPLES = max(8, 30 // len(ISAS))  # of hypothesis, on each isa


def open_on(isa: str, bundle: Path) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EOSFM_ISA", isa)
        return Model(bundle)


def least_sqnr(context: Context, ensemble: Ensemble, image: Array) -> float:
    got = context.run(list(image))
    return min(map(sqnr_db, got, expected_of(ensemble, image)))


@pytest.mark.parametrize("fusion", ["none", "conv1x1", "mlp", "addition", "multiplication"])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("normalisation", ["batch", "layer", "none"])
def test_every_chain(
    tmp_path: Path, normalisation: NormalisationMode, projection: bool, fusion: FusionMode
) -> None:
    options = {"normalisation": normalisation, "projection": projection, "fusion": fusion}
    spec = spec_of((3, 13), 13, backbone=SPECK, **options)
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
    spec = spec_of((3, 3, 3), 3, selection=selection, fusion=fusion, backbone=SPECK)
    widths = {"fused": (24, 40, 56, 72)} if fusion in ("conv1x1", "mlp") else {}
    ensemble = random_ensemble(spec, **widths)
    weights = ensemble.encoder_selector.specialists_weights
    assert isinstance(weights, Tensor)
    weights.data = torch.tensor([0.3, -0.9, 0.7])
    with Model(write(tmp_path / "b", ensemble, 32)) as model, model.context(threads=1) as context:
        assert least_sqnr(context, ensemble, image_of(3, 32, 32)) >= LEAST_SQNR["fp32"]


@pytest.mark.parametrize("backbone", ["atto", "pico", *thorough("femto", "nano", "tiny")])
def test_sizes_that_timm_knows(tmp_path: Path, backbone: str) -> None:
    ensemble = random_ensemble(spec_of((2,), 2, backbone=backbone))
    with Model(write(tmp_path / "b", ensemble, 64)) as model, model.context() as context:
        assert least_sqnr(context, ensemble, image_of(2, 64, 64, seed=1)) >= LEAST_SQNR["fp32"]


@pytest.mark.parametrize("size", [(1024, 1024), (1024, 32), (32, 1024)])
def test_the_largest_and_the_longest_images(tmp_path: Path, size: tuple[int, int]) -> None:
    ensemble = random_ensemble(spec_of((2,), 2, backbone=SPECK, normalisation="none"))
    image = image_of(2, *size)
    expected = expected_of(ensemble, image)
    for precision, least in LEAST_SQNR.items():
        bundle = write(tmp_path / precision, ensemble, 64, precision)
        height, width = size
        with Model(bundle) as model, model.context(height=height, width=width) as context:
            assert min(map(sqnr_db, context.run(list(image)), expected)) >= least


@pytest.mark.parametrize("isa", ALL_ISAS)
def test_the_library_has_the_paths_that_the_processor_has(
    specks: dict[str, Path], isa: str
) -> None:
    """The other tests of paths would not notice one that the library believes is not there."""
    if isa in ISAS:
        with open_on(isa, specks["fp32"]) as model:
            assert model.describe().isa == isa.encode()
    else:
        with pytest.raises(EosfmError, match="EOSFM_ISA"):
            open_on(isa, specks["fp32"])


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31),
    bands=st.sampled_from([1, 2, 3, 5, 12]),
    height=st.integers(1, 5),
    width=st.integers(1, 8),
    depths=st.tuples(*[st.integers(1, 3)] * 4),
    widths=st.tuples(*[st.integers(1, 14)] * 4),
    precision=st.sampled_from(["fp32", "bf16", "int8"]),
)
def test_random_shapes_on_every_isa(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    bands: int,
    height: int,
    width: int,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    precision: Precision,
    isa: str,
) -> None:
    name = "_".join(map(str, ("shape", *depths, *widths)))
    backbone = register(name, depths, [8 * width for width in widths])
    spec = spec_of((bands,), bands, normalisation="none", backbone=backbone)
    ensemble = random_ensemble(spec, seed)
    narrow(ensemble, seed)
    image = image_of(bands, 32 * height, 32 * width, seed)
    bundle = write(tmp_path_factory.mktemp("b") / "b", ensemble, 64, precision, seen=image)
    size = {"height": 32 * height, "width": 32 * width}
    with open_on(isa, bundle) as model, model.context(**size, threads=2) as context:
        assert least_sqnr(context, ensemble, image) >= LEAST_SQNR[precision]


@pytest.fixture(scope="module")
def four_bands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ensemble, Path]:
    """A bundle whose last band has a nodata and a fill value."""
    ensemble = random_ensemble(spec_of((4,), 4, backbone=SPECK, normalisation="none"))
    return ensemble, write(tmp_path_factory.mktemp("four") / "b", ensemble, 32)


# How an image's band may lie in memory: its type, and the steps from row to row and pixel to pixel.
layouts = st.tuples(
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
    st.sampled_from([1, 2, -1]),
    st.sampled_from([1, 2, -1]),
)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=2 * EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    bands=st.tuples(*[layouts] * 4),
    holes=st.integers(0, 3),
)
def test_types_and_strides_of_images(
    four_bands: tuple[Ensemble, Path],
    isa: str,
    seed: int,
    height: int,
    width: int,
    bands: tuple[tuple[type[np.generic], int, int], ...],
    holes: int,
) -> None:
    ensemble, bundle = four_bands
    rng = np.random.default_rng(seed)
    size = {"height": 32 * height, "width": 32 * width}
    image = []
    for dtype, down, right in bands:
        whole = rng.normal(0, 100, (abs(down) * 32 * height, abs(right) * 32 * width))
        if dtype is not np.float32:
            limits = np.iinfo(dtype)
            whole = rng.integers(limits.min, limits.max + 1, whole.shape)
        image.append(whole.astype(dtype)[::down, ::right])
    if bands[-1][0] in (np.int16, np.float32):  # the others cannot be the nodata value, -7
        for y, x in rng.integers((32 * height, 32 * width), size=(holes, 2)):
            image[-1][y, x] = -7
    stored = np.stack([band.astype(np.float32) for band in image])
    fills = np.array([band.fill for band in ensemble.spec.input], np.float32)
    stored = np.where(stored[-1] == -7, fills[:, np.newaxis, np.newaxis], stored)
    with open_on(isa, bundle) as model, model.context(**size, threads=1) as context:
        got = context.run(image)
    assert min(map(sqnr_db, got, expected_of(ensemble, stored))) >= LEAST_SQNR["fp32"]


@pytest.mark.parametrize("fc2", LEAST_SQNR)
@pytest.mark.parametrize("fc1", LEAST_SQNR)
def test_layers_of_different_precisions(tmp_path: Path, fc1: Precision, fc2: Precision) -> None:
    def change(encoder: DeployedEncoder) -> None:
        for name, layer in encoder.layers().items():
            precision = fc1 if name.endswith("fc1") else fc2
            layer.precision = "half" if precision == "bf16" else precision

    ensemble = random_ensemble(spec_of((3,), 3, backbone=SPECK, normalisation="none"))
    narrow(ensemble, seed=1)
    bundle = write(tmp_path / "b", ensemble, 64, "int8", change)
    image = image_of(3, 64, 96, seed=1)
    expected = expected_of(ensemble, image)
    for isa in ISAS:
        with open_on(isa, bundle) as model, model.context(width=96, threads=2) as context:
            got = context.run(list(image))
        least = min(LEAST_SQNR[fc1], LEAST_SQNR[fc2])
        assert min(map(sqnr_db, got, expected)) >= least, isa


@pytest.mark.parametrize("precision", ["fp32", "int8", *thorough("bf16")])
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
    spec = spec_of((3, 3), 3, fusion=fusion, backbone=SPECK)
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


def test_int8_is_the_same_on_every_isa_but_for_its_floats(tmp_path: Path) -> None:
    """Integer sums are exact everywhere; what is between them is fp32, in another order."""
    ensemble = random_ensemble(spec_of((3,), 3, normalisation="none"))
    bundle = write(tmp_path / "b", ensemble, 64, "int8")
    image = image_of(3, 64, 64)
    results = []
    for isa in ISAS:
        with open_on(isa, bundle) as model, model.context(threads=1) as context:
            results.append(context.run(list(image)))
    for other in results[1:]:
        assert min(map(sqnr_db, other, results[0])) >= 30
