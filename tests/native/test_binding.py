"""libeosfm from Python: what the binding adds to the calls, and that each call arrives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chains import Array, image_of, random_ensemble, spec_of, write
from support.speck import SPECK

import eosfm_edge
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import EnsembleSpec
from eosfm_edge.native.binding import BF16, Context, Model
from eosfm_edge.native.header import EosfmError, version

BAD_ARGUMENT, BAD_BUNDLE, NO_MEMORY, CANCELLED, DEADLINE = 1, 3, 5, 6, 7
BANDS, TILE = 2, 32  # of the specks


@pytest.fixture
def model(specks: dict[str, Path]) -> Iterator[Model]:
    with Model(specks["fp32"]) as opened:
        yield opened


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    with model.context(threads=1) as made:
        yield made


@pytest.fixture
def image() -> list[Array]:
    return list(image_of(BANDS, TILE, TILE))


def assert_same(got: list[Array], expected: list[Array]) -> None:
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_library_is_of_the_package_s_version() -> None:
    assert version() == eosfm_edge.__version__


def test_descriptions(model: Model) -> None:
    info = model.describe()
    assert (info.bands, info.specialists, info.runs, info.tile) == (BANDS, 2, 2, TILE)
    assert (info.name, list(info.channels)) == (b"test", [16, 32, 48, 32])
    first, last = model.band(0), model.band(1)
    assert (first.name, first.fill, first.has_nodata) == (b"", 0.0, 0)
    assert first.scale == pytest.approx(0.5)
    assert (last.fill, last.has_nodata, last.nodata) == (3.0, 1, -7.0)
    assert (last.scale, last.offset) == pytest.approx((0.6, 0.01))
    one = model.specialist(1)
    assert (one.name, one.backbone, one.licence) == (b"s1", b"convnextv2_speck", b"")
    assert (one.bands, one.runs, one.factor) == (BANDS, 1, 1.0)
    for call in (model.band, model.specialist):
        for index in (-1, 2):
            with pytest.raises(EosfmError, match="there is no") as error:
                call(index)
            assert error.value.status == BAD_ARGUMENT


def licensed(licence: str) -> EnsembleSpec:
    spec = spec_of((1,), 1, backbone=SPECK)
    (one,) = spec.specialists
    provenance = one.provenance.model_copy(update={"licence": licence})
    one = one.model_copy(update={"provenance": provenance})
    return spec.model_copy(update={"specialists": (one,)})


@pytest.mark.parametrize(
    ("licence", "given"),
    [
        ("Apache-2.0", "Apache-2.0"),
        ("x" * 255, "x" * 255),
        ("x" * 300, "x" * 255),
        ("é" * 150, "é" * 127),  # 300 bytes; the 255th is half a character
        ("x" + "é" * 150, "x" + "é" * 127),
        ("🛰" * 75, "🛰" * 63),
    ],
    ids=["short", "fits", "ASCII", "two bytes", "two bytes and one", "four bytes"],
)
def test_a_long_licence_is_cut_between_characters(tmp_path: Path, licence: str, given: str) -> None:
    bundle = write(tmp_path / "b", random_ensemble(licensed(licence)), 32)
    with Model(bundle) as model:
        assert model.specialist(0).licence.decode() == given


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EosfmError, match=r"cannot open .*chain\.gguf: it is not there"):
        Model(tmp_path)


def test_what_is_closed_says_so(specks: dict[str, Path], image: list[Array]) -> None:
    model = Model(specks["fp32"])
    context = model.context()
    model.close()
    model.close()
    with pytest.raises(EosfmError, match="it is closed"):
        model.describe()
    assert len(context.run(image)) == 4  # a context keeps its model
    context.close()
    with pytest.raises(EosfmError, match="it is closed"):
        context.run(image)


def test_plans(model: Model) -> None:
    plan, larger = (
        model.requirements(threads=1),
        model.requirements(threads=1, width=256, height=256),
    )
    assert 0 < plan.context_bytes < larger.context_bytes
    assert plan.weights_bytes == larger.weights_bytes > 0
    assert plan.mapped_bytes > 0
    with pytest.raises(EosfmError, match="multiples of 32"):
        model.requirements(width=33)


def test_the_memory_limit_is_for_a_context_and_the_weights(model: Model) -> None:
    plan = model.requirements(threads=2)
    needed = plan.context_bytes + plan.weights_bytes
    with pytest.raises(EosfmError, match=f"needs {plan.context_bytes} bytes") as error:
        model.context(threads=2, memory_limit=needed - 1)
    assert error.value.status == NO_MEMORY
    model.context(threads=2, memory_limit=needed).close()


def test_levels_go_where_they_are_wanted(context: Context, image: list[Array]) -> None:
    expected = context.run(image)
    assert [level.shape for level in expected] == list(context.shapes)
    room = [np.full((c, h + 2, w + 3), -1, np.float32) for c, h, w in context.shapes]
    inside = [array[:, 1:-1, 2:-1] for array in room]
    out: list[Array | None] = [inside[0], None, inside[2], None]
    got = context.run(image, out)
    assert [id(level) for level in got] == [id(inside[0]), id(inside[2])]
    assert_same(got, expected[::2])
    for array, level in zip(room, expected, strict=True):
        written = (array != -1).sum()
        assert written in (0, level.size)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda level: level[1:],
        lambda level: level.astype(np.float64),
        lambda level: level.astype(">f4"),
        lambda level: np.asfortranarray(level),
        lambda level: np.broadcast_to(level[:1], level.shape),
        lambda level: np.frombuffer(level.tobytes(), np.float32).reshape(level.shape),
        lambda level: np.ndarray(
            level.shape, np.float32, bytearray(2 * level.nbytes), 0, (level[0].nbytes + 2, 32, 4)
        ),
    ],
    ids=["shape", "float64", "byte order", "columns", "broadcast", "read-only", "odd strides"],
)
def test_levels_that_cannot_be_written(context: Context, image: list[Array], spoil: Any) -> None:
    out: list[Any] = [np.zeros(shape, np.float32) for shape in context.shapes]
    out[0] = spoil(out[0])
    before = out[0].copy()
    with pytest.raises(ValueError, match="a level's array"):
        context.run(image, out)
    np.testing.assert_array_equal(out[0], before)


def test_a_level_that_is_not_aligned(context: Context, image: list[Array]) -> None:
    out: list[Any] = [np.zeros(shape, np.float32) for shape in context.shapes]
    out[3] = np.ndarray(out[3].shape, np.float32, bytearray(out[3].nbytes + 8), 2)
    with pytest.raises(EosfmError, match="level 4 is not aligned"):
        context.run(image, out)


def test_images_with_strides(context: Context, image: list[Array]) -> None:
    expected = context.run(image)
    upside_down = [np.ascontiguousarray(band[::-1])[::-1] for band in image]
    assert_same(context.run(upside_down), expected)
    assert_same(context.run([np.asfortranarray(band) for band in image]), expected)
    by_pixel = np.ascontiguousarray(np.stack(image, axis=-1))
    assert_same(context.run([by_pixel[..., i] for i in range(BANDS)]), expected)


def test_images_that_do_not_fit(context: Context, image: list[Array]) -> None:
    with pytest.raises(UserError, match="band 1 is complex64"):
        context.run([image[0], image[1].astype(np.complex64)])
    with pytest.raises(UserError, match=r"band 0 is float32 \(31, 32\)"):
        context.run([image[0][1:], image[1]])
    with pytest.raises(EosfmError, match="has 1 bands, expected 2"):
        context.run(image[:1])
    packed = np.zeros((TILE, TILE), [("flag", "u1"), ("value", "f4")])
    with pytest.raises(EosfmError, match="aligned"):
        context.run([image[0], packed["value"]])


def test_progress(context: Context, image: list[Array]) -> None:
    calls = []
    context.run(image, progress=lambda done, total: calls.append((done, total)) or False)
    assert calls == [(1, 2), (2, 2)]
    with pytest.raises(EosfmError) as error:
        context.run(image, progress=lambda done, total: True)
    assert error.value.status == CANCELLED


@pytest.mark.parametrize("raised", [ZeroDivisionError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 2])
def test_what_progress_raises_ends_the_run(
    context: Context, image: list[Array], raised: BaseException, at: int
) -> None:
    expected = context.run(image)
    calls = []

    def progress(done: int, total: int) -> bool:
        calls.append(done)
        if done == at:
            raise raised
        return False

    out = [np.full(shape, -1, np.float32) for shape in context.shapes]
    with pytest.raises(type(raised)) as error:
        context.run(image, out, progress=progress)
    assert error.value is raised
    assert calls == list(range(1, at + 1))
    assert all((level == -1).all() for level in out)
    assert_same(context.run(image), expected)


def test_deadlines(model: Model, image: list[Array]) -> None:
    large = list(image_of(BANDS, 1024, 1024))
    with model.context(width=1024, height=1024, threads=1) as context:
        with pytest.raises(EosfmError, match="the deadline of 1 ms passed") as error:
            context.run(large, deadline_ms=1)
        assert error.value.status == DEADLINE
        context.run(large, deadline_ms=600_000)
        with pytest.raises(EosfmError) as error:
            context.run(large, deadline_ms=-1)
        assert error.value.status == BAD_ARGUMENT


def test_another_thread_cancels(model: Model) -> None:
    image = list(image_of(BANDS, 1024, 1024))
    over = threading.Event()
    with model.context(width=1024, height=1024, threads=1) as context:
        expected = context.run(image)

        def cancel() -> None:
            while not over.wait(0.001):
                context.cancel()

        other = threading.Thread(target=cancel)
        other.start()
        try:
            with pytest.raises(EosfmError, match="cancelled") as error:
                for _ in range(100):  # a run may be over before the other thread has its turn
                    context.run(image)
        finally:
            over.set()
            other.join()
        assert error.value.status == CANCELLED
        with pytest.raises(EosfmError, match="eosfm_context_resume"):
            context.run(image)
        context.resume()
        assert_same(context.run(image), expected)


def test_choosing_specialists(context: Context, image: list[Array]) -> None:
    expected = context.run(image)
    context.set_active([True, False])
    some = context.run(image)
    for level, whole in zip(some, expected, strict=True):
        half = len(level) // 2
        np.testing.assert_array_equal(level[:half], whole[:half])
        assert not level[half:].any()
    for flags in ([False, False], [True]):
        with pytest.raises(EosfmError) as error:
            context.set_active(flags)
        assert error.value.status == BAD_ARGUMENT
    context.set_active([True, True])
    assert_same(context.run(image), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_the_known_answer(specks: dict[str, Path], precision: str) -> None:
    with Model(specks[precision]) as model, model.context() as context:
        within, worst = context.verify()
        assert within
        assert all(0 <= value < 0.5 for value in worst)
        with model.context(width=64) as other, pytest.raises(EosfmError, match="known answer"):
            other.verify()
        with model.context(precision=BF16) as narrow:
            narrow.verify()
