"""Self-distillation: the same from the same seed, whether it was interrupted or not."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.specimens import encoder_of, every_other, same_state, tiles_of
from torch import Tensor

from eosfm_edge.ensemble.specialist import shape_of
from eosfm_edge.formats.plan import GroupPlan
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network import distill as module
from eosfm_edge.network.distill import distill
from eosfm_edge.pruning.encoder import carry_out, kept_widths, levels_left

TILES = tiles_of(8, size=32)
CUT = Recipe(repair_grn=False, repair_fc2=False)
STEPS = 12


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """Four tiles a step, and a checkpoint after every five."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIXELS_PER_STEP", 4 * 32 * 32)
        patch.setattr(module, "_SAVE_EVERY", 5)
        yield


@pytest.fixture(scope="module")
def original() -> Any:
    return encoder_of(0)


@pytest.fixture(scope="module")
def pruned(original: Any) -> Any:
    return carry_out(original, every_other(original), TILES, CUT)


def loss(original: Any, other: Any, tiles: Sequence[Tensor]) -> float:
    with torch.no_grad():
        batch = torch.stack(list(tiles))
        return sum(
            float((b - a).square().mean() / a.var())
            for a, b in zip(original(batch), other(batch), strict=True)
        )


def distilled(original: Any, pruned: Any, seed: int = 0, **options: Any) -> Any:
    student = copy.deepcopy(pruned)
    distill(original, student, TILES, options.pop("count", STEPS), seed, **options)
    return student


@pytest.fixture(scope="module")
def uninterrupted(original: Any, pruned: Any) -> Any:
    torch.manual_seed(1)
    return distilled(original, pruned)


def test_the_loss_on_its_tiles_falls(original: Any, pruned: Any) -> None:
    student = distilled(original, pruned, count=50)
    assert loss(original, student, TILES) < 0.8 * loss(original, pruned, TILES)
    assert not student.training
    assert not any(p.requires_grad for p in student.parameters())


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    original: Any, pruned: Any, uninterrupted: Any
) -> None:
    torch.manual_seed(2)
    assert same_state(uninterrupted, distilled(original, pruned))
    assert not same_state(uninterrupted, distilled(original, pruned, seed=1))


@pytest.mark.parametrize("at", [3, 5, 7])
def test_an_interruption_changes_no_bit(
    original: Any, pruned: Any, uninterrupted: Any, tmp_path: Path, at: int
) -> None:
    ticks = 0

    def interrupt() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == at:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        distilled(original, pruned, checkpoint=checkpoint, tick=interrupt)
    assert checkpoint.exists() == (at >= 5)
    told: list[int] = []
    resumed = distilled(original, pruned, checkpoint=checkpoint, tick=lambda: told.append(1))
    assert len(told) == STEPS
    assert same_state(resumed, uninterrupted)


def test_what_was_done_is_not_done_again(
    original: Any, pruned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = module._draw
    monkeypatch.setattr(module, "_draw", lambda *a: (drawn.append(a[-1]), draw(*a))[1])
    checkpoint = tmp_path / "state"
    distilled(original, pruned, checkpoint=checkpoint)
    distilled(original, pruned, checkpoint=checkpoint)
    assert drawn == [*range(STEPS), *range(10, STEPS)]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\0" * 100])
def test_a_checkpoint_that_cannot_be_used_is_begun_anew(
    original: Any, pruned: Any, uninterrupted: Any, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "state").write_bytes(content)
    resumed = distilled(original, pruned, checkpoint=tmp_path / "state")
    assert same_state(resumed, uninterrupted)


def test_a_narrower_encoder_learns_the_channels_that_it_has_left(original: Any) -> None:
    groups = [GroupPlan(of="stages_1", keeps=8, removes=tuple(range(8)), error=0)]
    kept = kept_widths(shape_of(original), groups)
    assert [None if k is None else k.tolist() for k in kept] == [None, [*range(8, 16)], None, None]
    narrow = carry_out(original, groups, TILES, CUT)

    def teacher(batch: Tensor) -> list[Tensor]:
        return levels_left(original(batch), kept)

    def missed(encoder: Any) -> float:
        with torch.no_grad():
            batch = torch.stack(TILES)
            return float((encoder(batch)[1] - original(batch)[1][:, 8:]).square().mean())

    assert missed(distilled(teacher, narrow, count=50)) < missed(narrow)


def test_tiles_are_turned_and_mirrored_but_not_changed() -> None:
    tile = torch.arange(12.0).reshape(1, 3, 4)
    seen = {tuple(module._draw([tile], 1, 0, step)[0].flatten().tolist()) for step in range(40)}
    whole = {tuple(t.flatten().tolist()) for t in (tile, tile.flip(1), tile.flip(2))}
    assert seen == whole | {tuple(tile.flip(1, 2).flatten().tolist())}
    square = torch.arange(4.0).reshape(1, 2, 2)
    assert len({tuple(module._draw([square], 1, 0, s).flatten().tolist()) for s in range(99)}) == 8


def test_no_tile_is_drawn_twice_where_there_are_enough() -> None:
    tiles = [torch.full((1, 2, 2), float(i)) for i in range(6)]
    for step in range(20):
        assert len(set(module._draw(tiles, 6, 0, step)[:, 0, 0, 0].tolist())) == 6
    assert len(module._draw(tiles, 9, 0, 0)) == 9
