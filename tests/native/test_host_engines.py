"""Engines of the host's own in libeosfm's ladder, under its known-answer check."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.chains import Array

from eosfm_edge.errors import UserError
from eosfm_edge.native.binding import Compute, Context, Model
from eosfm_edge.native.header import WRONG_ANSWER, EosfmError

BAD_ARGUMENT = 1


class Host:
    """A model whose warnings are kept, and an engine that computes what native does."""

    def __init__(self, bundle: Path) -> None:
        self.warnings: list[str] = []
        self.model = Model(bundle, self.warnings.append)
        self.reference = self.model.context(threads=1)
        self.images = 0

    def compute(self, image: Array) -> list[Array]:
        self.images += 1
        return self.reference.run(list(image))

    def open(self, backends: str, compute: Compute | None = None) -> Context:
        return self.model.context(
            compute or self.compute, backends=backends, name="mine", threads=1
        )


@pytest.fixture
def host(specks: dict[str, Path]) -> Iterator[Host]:
    made = Host(specks["fp32"])
    yield made
    made.model.close()


def test_a_host_s_engine_is_used_once_it_gives_the_known_answer(host: Host) -> None:
    with host.open("mine native") as context:
        assert (context.backend, host.images, host.warnings) == ("mine", 1, [])
        is_right, worst = context.verify()
        assert is_right and max(worst) < min(context.tolerance())


def test_a_host_s_engine_takes_its_turn(host: Host) -> None:
    with host.open("nonesuch mine native") as context:
        assert context.backend == "mine"
    with host.open("native mine") as context:
        assert context.backend == "native"
    assert host.images == 1
    assert len(host.warnings) == 1 and host.warnings[0].startswith("nonesuch is not used: ")


def wrong(image: Array) -> list[Array]:
    raise UserError("the GPU is gone", expected="a GPU", remedy="put it back")


def test_an_engine_that_fails_is_followed_by_the_next_with_its_reason(host: Host) -> None:
    with host.open("mine native", wrong) as context:
        assert context.backend == "native"
        context.verify()  # what the engine raised is no error of this one
    (warning,) = host.warnings
    assert warning.startswith("mine is not used: ") and warning.endswith("; native is next")
    assert "the GPU is gone; expected: a GPU; fix: put it back" in warning


def test_an_engine_that_is_not_used_gives_back_what_it_holds(host: Host) -> None:
    class Held:
        def compute(self, image: Array) -> list[Array]:
            return [level + 1 for level in host.compute(image)]

    held = Held()
    alive = weakref.ref(held)
    with host.open("mine native", held.compute) as context:
        del held
        gc.collect()
        assert context.backend == "native" and alive() is None


def test_an_engine_that_fails_alone_raises_what_it_raised(host: Host) -> None:
    with pytest.raises(UserError, match="the GPU is gone") as error:
        host.open("mine", wrong)
    assert not isinstance(error.value, EosfmError)


def test_the_last_backend_s_reason_is_raised_and_not_an_earlier_one(host: Host) -> None:
    with pytest.raises(EosfmError, match=r"libeosfm_nonesuch\.so"):
        host.open("mine nonesuch", wrong)


def test_an_engine_with_a_wrong_answer_is_not_used(host: Host) -> None:
    def off(image: Array) -> list[Array]:
        return [level + 1 for level in host.compute(image)]

    with host.open("mine native", off) as context:
        assert context.backend == "native"
    assert "off the known answer" in host.warnings[0]
    with pytest.raises(EosfmError, match="off the known answer") as error:
        host.open("mine", off)
    assert error.value.status == WRONG_ANSWER


@pytest.mark.parametrize("levels", ["narrow", "few", "many"])
def test_levels_of_another_shape_are_refused(host: Host, levels: str) -> None:
    def misshapen(image: Array) -> list[Array]:
        found = host.compute(image)
        if levels == "narrow":
            return [level[:1] for level in found]  # which numpy would stretch to all channels
        return found[:3] if levels == "few" else [*found, found[0]]

    with pytest.raises(UserError, match="mine gives levels of"):
        host.open("mine", misshapen)


def test_an_interrupt_is_no_reason_to_take_the_next(host: Host) -> None:
    def interrupted(image: Array) -> list[Array]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.open("mine native", interrupted)


def test_an_error_of_who_is_warned_is_raised(specks: dict[str, Path]) -> None:
    def warn(sentence: str) -> None:
        raise BrokenPipeError(sentence)

    with (
        Model(specks["fp32"], warn) as model,
        pytest.raises(BrokenPipeError, match="nonesuch is not used"),
    ):
        model.context(backends="nonesuch native")


@pytest.mark.parametrize(
    ("backends", "name", "message"),
    [
        ("native", "mine", "the name of the engine that is given, 'mine', among them"),
        ("native", "native", "the engine's name is 'native'"),
        ("mine", "Mine", "the engine's name is 'Mine'"),
        ("mine two", "mine two", "the engine's name is 'mine two'"),
        ("mine", "", "the engine's name is ''"),
    ],
)
def test_names_that_cannot_be_are_refused(
    host: Host, backends: str, name: str, message: str
) -> None:
    with pytest.raises(EosfmError, match=message) as error:
        host.model.context(host.compute, backends=backends, name=name)
    assert error.value.status == BAD_ARGUMENT


def test_tolerances_are_those_of_what_computes(host: Host) -> None:
    """Hosts' engines are taken to compute from the graphs."""
    assert host.reference.tolerance() == pytest.approx([1e-4] * 4)
    with host.open("mine") as context:
        assert np.isfinite(context.tolerance()).all() and min(context.tolerance()) > 0
