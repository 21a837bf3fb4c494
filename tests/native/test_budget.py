"""Budgets at run time: specialists left out by a deadline, or by another that looks first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.chains import image_of, random_ensemble, spec_of, write

from eosfm_edge.native.binding import Gate, Model
from eosfm_edge.native.header import EosfmError
from eosfm_edge.native.stream import Stream, StreamBand

Array = NDArray[np.float32]

DEADLINE = 1500  # ms: many times what a specialist of these takes, and slept over on purpose


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of three specialists, fused."""
    ensemble = random_ensemble(
        spec_of((2, 2, 2), 2, backbone="speck", fusion="conv1x1"), fused=(8, 9, 10, 11)
    )
    return write(tmp_path_factory.mktemp("bundles") / "three", ensemble, 64, "fp32")


def only(bundle: Path, active: Sequence[bool], image: Sequence[Array]) -> list[Array]:
    with Model(bundle) as model, model.context(threads=1) as context:
        context.set_active(active)
        return context.run(image)


def assert_equal(found: Sequence[Array], wanted: Sequence[Array]) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def late_after(runs: int) -> Callable[[int, int], bool]:
    """Return a progress function that sleeps over the deadline when so many runs are done."""

    def progress(done: int, total: int) -> bool:
        if done == runs:
            time.sleep(1.2 * DEADLINE / 1000)
        return False

    return progress


@pytest.mark.parametrize("runs", [1, 2])
def test_a_deadline_gives_what_was_done(three: Path, runs: int) -> None:
    image = list(image_of(2, 64, 64))
    present = np.full(3, 9, np.uint8)
    with Model(three) as model, model.context(threads=1) as context:
        found = context.run(image, deadline_ms=DEADLINE, progress=late_after(runs), present=present)
        assert present.tolist() == [1] * runs + [0] * (3 - runs)
        assert_equal(found, only(three, present.astype(bool).tolist(), image))
        # The next run is whole again.
        whole = context.run(image, present=present)
        assert present.tolist() == [1, 1, 1]
    assert_equal(whole, only(three, [True] * 3, image))


def test_without_flags_a_deadline_fails(three: Path) -> None:
    with Model(three) as model, model.context(threads=1) as context:
        with pytest.raises(EosfmError, match="deadline") as late:
            context.run(list(image_of(2, 64, 64)), deadline_ms=DEADLINE, progress=late_after(1))
        assert late.value.status == 7


def test_a_deadline_before_any_is_done_fails(three: Path) -> None:
    present = np.full(3, 9, np.uint8)
    image = list(image_of(2, 512, 512))
    with (
        Model(three) as model,
        model.context(threads=1, width=512, height=512) as context,
        pytest.raises(EosfmError, match="deadline"),
    ):
        context.run(image, deadline_ms=1, present=present)
    assert present.tolist() == [9, 9, 9]


def test_flags_are_as_many_as_specialists(three: Path) -> None:
    with (
        Model(three) as model,
        model.context() as context,
        pytest.raises(EosfmError, match=r"2 flags .* expected 3"),
    ):
        context.run(list(image_of(2, 64, 64)), present=np.zeros(2, np.uint8))


@pytest.mark.parametrize("gate", [0, 1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_gate_decides_from_its_own_features(three: Path, gate: int, threads: int) -> None:
    image = list(image_of(2, 64, 64))
    seen: list[list[Array]] = []
    answer = True

    def look(levels: Sequence[Array]) -> bool:
        seen.append([level.copy() for level in levels])
        return answer

    present = np.zeros(3, np.uint8)
    with Model(three) as model, model.context(gate=Gate(gate, look), threads=threads) as context:
        assert_equal(context.run(image, present=present), only(three, [True] * 3, image))
        assert present.tolist() == [1, 1, 1]
        answer = False
        closed = context.run(image, present=present)
        alone = [index == gate for index in range(3)]
        assert present.tolist() == alone
        assert_equal(closed, only(three, alone, image))
        context.set_active([index != gate for index in range(3)])
        context.run(image)
        assert len(seen) == 2, "a gate that is not active is not asked"
        context.set_active([True] * 3)
        assert context.verify()[0], "the known answer is of all"


def test_what_a_gate_sees_goes_into_the_fusion(specks: dict[str, Path]) -> None:
    """Of this bundle the features are put beside each other, the second specialist's last."""
    seen: list[Array] = []

    def look(levels: Sequence[Array]) -> bool:
        seen.extend(level.copy() for level in levels)
        return True

    with (
        Model(specks["fp32"]) as model,
        model.context(gate=Gate(1, look), width=64, height=64) as context,
    ):
        levels = context.run(list(image_of(2, 64, 64)))
    for mine, theirs in zip(seen, levels, strict=True):
        np.testing.assert_array_equal(mine, theirs[-len(mine) :])


def test_what_a_gate_raises_is_raised(three: Path) -> None:
    def fail(_: Sequence[Array]) -> bool:
        raise ZeroDivisionError("on purpose")

    with (
        Model(three) as model,
        model.context(gate=Gate(0, fail)) as context,
        pytest.raises(ZeroDivisionError),
    ):
        context.run(list(image_of(2, 64, 64)))


@pytest.mark.parametrize("specialist", [-1, 3])
def test_a_gate_that_is_not_there_is_refused(three: Path, specialist: int) -> None:
    with Model(three) as model, pytest.raises(EosfmError, match="of 3"):
        model.context(gate=Gate(specialist, lambda _: True))


def test_products_have_no_gate(tmp_path: Path) -> None:
    ensemble = random_ensemble(spec_of((2, 2), 2, backbone="speck", fusion="multiplication"))
    bundle = write(tmp_path / "product", ensemble, 64, "fp32")
    with Model(bundle) as model, pytest.raises(EosfmError, match="products"):
        model.context(gate=Gate(0, lambda _: True))


def test_a_scene_s_tiles_are_gated_one_by_one(three: Path) -> None:
    image = image_of(2, 64, 64 + 3 * 32)
    opened = iter([True, False, False, True])
    with (
        Model(three) as model,
        model.context(gate=Gate(0, lambda _: next(opened))) as context,
    ):
        stream = Stream(context, image.shape[2], [StreamBand(np.dtype(np.float32))] * 2)

        def feed() -> bool:
            for band in range(2):
                assert stream.push_rows(band, image[band]) == 64
            return False

        present = [patch.present.tolist() for patch in stream.patches(feed)]
        stream.close()
    one, every = [True, False, False], [True, True, True]
    assert present == [every, one, one, every]


def test_an_engine_that_is_late_gives_nothing_old(three: Path) -> None:
    """Lateness is the machine's to decide; levels are of this run or there are none."""
    calls = 0

    def compute(tile: Array) -> list[Array]:
        nonlocal calls
        calls += 1
        shapes = [(c, tile.shape[1] >> s, tile.shape[2] >> s) for c, s in channels_and_shifts]
        return [np.full(shape, calls, np.float32) for shape in shapes]

    image = list(image_of(2, 1024, 1024))
    present = np.zeros(3, np.uint8)
    with Model(three) as model:
        info = model.describe()
        channels_and_shifts = list(zip(info.channels, range(2, 6), strict=True))
        with model.context(compute, threads=1, width=1024, height=1024) as context:
            context.run(image, present=present)
            for _ in range(5):
                before = calls
                try:
                    levels = context.run(image, deadline_ms=1, present=present)
                except EosfmError as error:
                    assert error.status == 7
                    assert calls == before
                else:
                    assert calls == before + 1
                    assert all((level == calls).all() for level in levels)
