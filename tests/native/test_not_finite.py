"""Values that are not numbers: no check takes them for an answer, and no run gives them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.chains import Array, image_of, random_ensemble, spec_of, write
from support.gguf import flip, float_tensors, set_floats
from support.speck import SPECK

from eosfm_edge.formats.ensemble import FusionMode
from eosfm_edge.native.binding import Context, Model
from eosfm_edge.native.header import NOT_FINITE, EosfmError

# Single bits that flip, as radiation does it; `EOSFM_UPSETS=400` for the whole experiment.
UPSETS = int(os.environ.get("EOSFM_UPSETS", "60"))


def copied(bundle: Path, to: Path) -> Path:
    return Path(shutil.copytree(bundle, to))


def test_no_upset_passes_with_values_that_are_not_finite(
    specks: dict[str, Path], tmp_path: Path
) -> None:
    """A weight's exponent may be anything: NaN, infinity or a level far off are all refused."""
    rng = np.random.default_rng(0)
    outcomes = {"not opened": 0, "wrong answer": 0, "not finite": 0, "right": 0}
    for number in range(UPSETS):
        bundle = copied(specks["fp32"], tmp_path / str(number))
        file = bundle / "specialists" / f"s{number % 2}.gguf"
        tensors = float_tensors(file)
        sizes = np.array([size for _, size in tensors])
        name, size = tensors[rng.choice(len(tensors), p=sizes / sizes.sum())]
        flip(file, name, int(rng.integers(size)))
        try:
            model = Model(bundle)
        except EosfmError:
            outcomes["not opened"] += 1
            continue
        with model, model.context(threads=1) as context:
            is_right, worst = context.verify()
            try:
                levels = context.run(list(image_of(2, 32, 32)))
            except EosfmError as error:
                assert error.status == NOT_FINITE
                assert not is_right and np.isinf(worst).all()
                outcomes["not finite"] += 1
                continue
        assert all(np.isfinite(level).all() for level in levels)
        outcomes["right" if is_right else "wrong answer"] += 1
        shutil.rmtree(bundle)
    assert outcomes["not finite"] > 0, f"the experiment is too small: {outcomes}"
    assert outcomes["wrong answer"] > 0, f"the experiment is too small: {outcomes}"


def damaged(specks: dict[str, Path], to: Path) -> Path:
    """Return a bundle of which half of the cells would be NaN."""
    bundle = copied(specks["fp32"], to)
    flip(bundle / "specialists" / "s1.gguf", "stages.0.blocks.0.fc1.bias", 0)
    return bundle


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_names_the_specialist_and_writes_nothing(
    specks: dict[str, Path], tmp_path: Path, threads: int
) -> None:
    with Model(damaged(specks, tmp_path / "b")) as model, model.context(threads=threads) as context:
        out = [np.full(shape, -9, np.float32) for shape in context.shapes]
        present = np.full(2, 7, np.uint8)
        with pytest.raises(EosfmError, match="specialist s1 gives values that are not") as refused:
            context.run(list(image_of(2, 32, 32)), out, present=present)
        assert refused.value.status == NOT_FINITE
        assert all((level == -9).all() for level in out)
        assert (present == 7).all()
        # What is intact runs on.
        context.set_active([True, False])
        assert all(np.isfinite(one).all() for one in context.run(list(image_of(2, 32, 32))))


@pytest.mark.parametrize("fusion", ["conv1x1", "mlp", "multiplication"])
def test_what_a_fusion_makes_of_numbers_is_looked_at_too(
    tmp_path: Path, fusion: FusionMode
) -> None:
    spec = spec_of((2, 2), 2, backbone=SPECK, fusion=fusion)
    widths = {} if fusion == "multiplication" else {"fused": (8, 9, 10, 11)}
    bundle = write(tmp_path / "b", random_ensemble(spec, **widths), 32)
    chain = bundle / "chain.gguf"
    for name, size in float_tensors(chain):
        if fusion == "multiplication" and name.endswith(".mean"):
            # Each feature is a number still, and their products are not.
            set_floats(chain, name, 1e25)
        elif name.startswith("fusion.") and name.endswith("weight"):
            flip(chain, name, slice(0, size, 7))
    with Model(bundle) as model, model.context(threads=2) as context:
        is_right, worst = context.verify()
        assert not is_right and np.isinf(worst).all()
        with pytest.raises(EosfmError, match="the fusion gives values that are not finite"):
            context.run(list(100 * image_of(2, 32, 32)))


def all_but_the_last(levels: list[Array]) -> list[Array]:
    """Make NaN of all but the last cell, after which a maximum would forget the others."""
    for level in levels:
        level.reshape(-1)[:-1] = np.nan
    return levels


def one_of_all(levels: list[Array]) -> list[Array]:
    levels[2].reshape(-1)[3] = np.inf
    return levels


@pytest.mark.parametrize("spoil", [all_but_the_last, one_of_all])
def test_an_engine_that_gives_nan_is_refused(
    specks: dict[str, Path], spoil: Callable[[list[Array]], list[Array]]
) -> None:
    with Model(specks["fp32"]) as model, model.context() as inner:

        def compute(image: Array) -> list[Array]:
            return spoil(inner.run(list(image)))

        context: Context = model.context(compute)
        is_right, worst = context.verify()
        assert not is_right and np.isinf(worst).any()
        out = [np.full(shape, -9, np.float32) for shape in context.shapes]
        with pytest.raises(EosfmError, match=r"the engine \(host\) gives values that are not"):
            context.run(list(image_of(2, 32, 32)), out)
        assert all((level == -9).all() for level in out)
