"""GRN over a whole scene: tiles agree where they see the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.chains import Array, expected_of, image_of, narrow, random_ensemble, spec_of, write
from support.programs import ISAS
from support.speck import SHALLOW, SPECK
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from eosfm_edge.bundle.known_answer import sqnr_db
from eosfm_edge.ensemble.model import Ensemble
from eosfm_edge.formats.precision import Precision
from eosfm_edge.native.binding import (
    GRN_GATHER,
    GRN_SCENE,
    GRN_TILE,
    Context,
    Model,
)
from eosfm_edge.native.header import EosfmError

BAD_ARGUMENT = 1
TILE, STEP = 448, 32  # two tiles that share all but 32 pixels


def with_strong_grn(ensemble: Ensemble) -> Ensemble:
    """Scale GRN's weights up: those of a random ensemble make little difference."""
    for module in ensemble.modules():
        if isinstance(module, GlobalResponseNorm):
            module.weight.data *= 10
    return ensemble


def left_and_right(context: Context, scene: Array) -> tuple[list[Array], list[Array]]:
    left = context.run(list(scene[:, :, :TILE]))
    return left, context.run(list(scene[:, :, STEP:]))


def middle(levels: list[Array], shift: int) -> list[Array]:
    """Return the cells around the middle of what two tiles share, ``shift`` pixels in a tile."""
    found = []
    for index, level in enumerate(levels):
        stride = 4 << index
        row, column = TILE // 2 // stride, ((TILE + STEP) // 2 - shift) // stride
        found.append(level[:, row, column])
    return found


def furthest(got: list[Array], expected: list[Array]) -> float:
    return max(
        float(np.abs(one - other).max() / np.abs(other).max())
        for one, other in zip(got, expected, strict=True)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("isa", ISAS)
def test_tiles_agree_where_they_see_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str, precision: Precision
) -> None:
    spec = spec_of((2, 2), 2, backbone=SHALLOW, normalisation="batch", fusion="conv1x1")
    ensemble = with_strong_grn(random_ensemble(spec, fused=(8, 9, 10, 11)))
    narrow(ensemble, seed=1)
    bundle = write(tmp_path / "b", ensemble, 64, precision)
    scene = image_of(2, TILE, TILE + STEP, seed=2)
    scene[:, :, : TILE // 8] *= 4  # which only the left tile sees all of
    monkeypatch.setenv("EOSFM_ISA", isa)
    with Model(bundle) as model, model.context(width=TILE, height=TILE, threads=2) as context:
        alone = left_and_right(context, scene)
        context.set_grn(GRN_GATHER)
        gathered = left_and_right(context, scene)
        context.set_grn(GRN_SCENE)
        left, right = left_and_right(context, scene)
    for before, after in zip(alone, gathered, strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)
    assert furthest(middle(left, 0), middle(right, STEP)) <= 1e-5
    assert furthest(middle(alone[0], 0), middle(alone[1], STEP)) > 1e-4


Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def over_many(ensemble: Ensemble, images: list[Array], image: Array) -> list[Array]:
    """Compute an image with the norms of many, gathered as the engine does."""
    sums: defaultdict[tuple[str, int], Tensor | float] = defaultdict(float)
    calls: Counter[str] = Counter()  # of a module in an image: a specialist may run more than once

    def gather(name: str) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            sums[name, calls[name]] += inputs[0].double().square().sum((2, 3), keepdim=True)

        return hook

    def use(name: str) -> Hook:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls[name] += 1
            squares = sums[name, calls[name]]
            assert isinstance(squares, Tensor) and isinstance(module, GlobalResponseNorm)
            norms = squares.sqrt().float()
            weight, bias = (p.reshape(1, -1, 1, 1) for p in (module.weight, module.bias))
            return inputs[0] * (1 + weight * norms / (norms.mean(1, keepdim=True) + 1e-6)) + bias

        return hook

    def run(images: list[Array], make: Callable[[str], Hook]) -> list[Array]:
        modules = [(n, m) for n, m in ensemble.named_modules() if n.endswith(".grn")]
        hooks = [module.register_forward_hook(make(name)) for name, module in modules]
        for one in images:
            calls.clear()
            levels = expected_of(ensemble, one)
        for hook in hooks:
            hook.remove()
        return levels

    run(images, gather)
    return run([image], use)


def test_the_norms_are_those_of_all_images(tmp_path: Path) -> None:
    """The first specialist runs twice, on different bands, and has norms for each."""
    spec = spec_of((3, 13), 13, backbone=SPECK, normalisation="none")
    ensemble = with_strong_grn(random_ensemble(spec))
    images = [factor * image_of(13, 64, 96, seed) for seed, factor in enumerate((1, 3, 0.5))]
    with (
        Model(write(tmp_path / "b", ensemble, 64)) as model,
        model.context(width=96, threads=2) as context,
    ):
        assert model.describe().runs == 3
        alone = context.run(list(images[0]))
        context.set_grn(GRN_GATHER)
        for image in images:
            context.run(list(image))
        context.set_grn(GRN_SCENE)
        got = context.run(list(images[0]))
    expected = over_many(ensemble, images, images[0])
    assert min(map(sqnr_db, got, expected)) >= 100
    assert min(map(sqnr_db, alone, expected)) < 40


def test_modes(specks: dict[str, Path]) -> None:
    image = list(image_of(2, 32, 32))
    with Model(specks["fp32"]) as model, model.context(threads=1) as context:
        expected = context.run(image)
        with pytest.raises(EosfmError, match="no norms of s0 were gathered") as error:
            context.set_grn(GRN_SCENE)
        assert error.value.status == BAD_ARGUMENT
        with pytest.raises(EosfmError, match="the mode of GRN is 7, which is not known"):
            context.set_grn(7)
        context.set_grn(GRN_GATHER)
        context.run(image)
        context.set_grn(GRN_SCENE)
        assert furthest(context.run(image), expected) <= 1e-5
        context.set_grn(GRN_GATHER)  # forgets
        with pytest.raises(EosfmError, match="no norms of s0 were gathered"):
            context.set_grn(GRN_SCENE)
        context.set_grn(GRN_TILE)
        for one, other in zip(context.run(image), expected, strict=True):
            np.testing.assert_array_equal(one, other)
