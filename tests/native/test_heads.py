"""Heads: against PyTorch's resampling, against blended levels, and on every engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import support.speck  # noqa: F401  (the backbone of these bundles)
import torch
from numpy.typing import NDArray
from support.chains import image_of, random_ensemble, spec_of, write
from support.gguf import flip
from support.heads import add_random_head, known_answer_of, random_head
from support.shared import make_once

from eosfm_edge.bundle.heads import HeadFile, read_head, write_head
from eosfm_edge.native.binding import Context, Model
from eosfm_edge.native.head import NO_CLASS
from eosfm_edge.native.header import EosfmError
from eosfm_edge.native.stream import PatchMap, Stream, StreamBand

Array = NDArray[np.float32]

TILE = 64
FLOAT = np.dtype(np.float32)
NODATA = -7.0  # of the last band, see chains.py
HEAD_ONLY = (False, False, False, False)
HEADS = {"landuse": (1, 2, 3, 4), "water": (2,), "coarse": (3, 4)}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with graphs and three heads."""

    def make(folder: Path) -> None:
        ensemble = random_ensemble(spec_of((2, 2), 2, backbone="speck"))
        place = write(folder / "b", ensemble, TILE, layout="whole")
        for seed, (name, levels) in enumerate(HEADS.items()):
            add_random_head(place, name, levels=levels, seed=seed, outputs=3 + seed)
        add_random_head(place, "height", levels=(1, 3), outputs=1, task="regression")

    return make_once(tmp_path_factory, "bundle-with-heads", make) / "b"


@pytest.fixture
def model(bundle: Path) -> Iterator[Model]:
    with Model(bundle) as model:
        yield model


def by_torch(head: HeadFile, levels: Sequence[Array]) -> NDArray[np.float64]:
    """Return a head's outputs as a decoder would compute them: resample, join, multiply."""
    finest = levels[head.spec.levels[0] - 1].shape[1:]
    joined = [
        torch.nn.functional.interpolate(
            torch.from_numpy(levels[number - 1]).double()[None],
            size=finest,
            mode="bilinear",
            align_corners=False,
        )
        for number in head.spec.levels
    ]
    weight = np.concatenate([head.weights[number] for number in head.spec.levels])
    features = torch.cat(joined, 1)[0].numpy()
    return np.einsum("co,cyx->oyx", weight, features) + head.bias[:, None, None]


def feeder(stream: Stream, bands: Sequence[Array]) -> Callable[[], bool]:
    done = [0] * len(bands)

    def feed() -> bool:
        before = sum(done)
        for index, band in enumerate(bands):
            done[index] += stream.push_rows(index, band[done[index] :][:32])
        return sum(done) > before

    return feed


def maps_of(
    context: Context,
    image: Array,
    heads: Sequence[object],
    levels: Sequence[bool] = HEAD_ONLY,
    **options: object,
) -> tuple[list[Array], list[NDArray[np.uint8] | None], list[Array | None]]:
    """Return outputs, classes and wanted levels over a whole image, by a stream."""
    _, height, width = image.shape
    stream = Stream(
        context, width, [StreamBand(FLOAT)] * len(image), levels=levels, heads=heads, **options
    )

    def cells(pixels: int, level: int) -> int:
        return -(-pixels // (4 << level))

    outputs = [
        np.full((h.outputs, cells(height, h.level), cells(width, h.level)), -9, "f4") for h in heads
    ]
    classes = [np.full(one.shape[1:], 7, "u1") if h.classes else None
               for one, h in zip(outputs, heads, strict=True)]  # fmt: skip
    whole = [
        np.full((shape[0], cells(height, i), cells(width, i)), -9, "f4") if levels[i] else None
        for i, shape in enumerate(context.shapes)
    ]

    def put(to: NDArray[np.generic], part: PatchMap | object, cells: NDArray[np.generic]) -> None:
        rows, columns = cells.shape[-2:]
        to[..., part.row : part.row + rows, part.column : part.column + columns] = cells

    for patch in stream.patches(feeder(stream, image)):
        for one, named, part in zip(outputs, classes, patch.maps, strict=True):
            put(one, part, part.outputs)
            if named is not None:
                put(named, part, part.classes)
        for level, part in zip(whole, patch.levels, strict=True):
            assert (level is None) == (part is None)
            if level is not None:
                put(level, part, part.features)
    stream.close()
    return outputs, classes, whole


@pytest.mark.parametrize("name", [*HEADS, "height"])
def test_a_head_gives_what_torch_gives_by_resampling_first(
    bundle: Path, model: Model, name: str
) -> None:
    head, file = model.head(name), read_head(bundle / "heads" / f"{name}.gguf")
    with model.context(threads=1, width=96, height=64) as context:
        levels = context.run(list(image_of(2, 64, 96, seed=1)))
    outputs, classes = head.apply(levels)
    expected = by_torch(file, levels)
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() < 1e-5 * np.abs(expected).max()
    if not file.spec.classes:
        assert classes is None
        return
    codes = np.array([one.code for one in file.spec.classes])
    margin = np.diff(np.sort(expected, axis=0)[-2:], axis=0)[0]
    clear = margin > 1e-4
    assert clear.mean() > 0.9
    assert (classes == codes[expected.argmax(0)])[clear].all()
    shares, _ = head.apply(levels, probabilities=True)
    assert np.allclose(shares, torch.softmax(torch.from_numpy(expected), 0).numpy(), atol=1e-5)


def test_a_head_says_what_it_is(model: Model) -> None:
    head = model.head("coarse")
    assert (head.name, head.outputs, head.level) == ("coarse", 5, 2)
    assert head.reads == (False, False, True, True)
    assert [(one.name, one.code, one.colour) for one in head.classes][1] == (
        "class 1", 20, (1, 254, 100),
    )  # fmt: skip
    assert not model.head("height").classes


@pytest.mark.parametrize(("overlap", "halo"), [(32, 0), (0, 0)])
def test_a_streams_map_is_the_head_of_the_blended_level(
    bundle: Path, model: Model, overlap: int, halo: int
) -> None:
    """A linear function of one level and blending commute."""
    image = image_of(2, 150, 170, seed=2)
    image[-1, 40:80, 20:100] = NODATA
    file = read_head(bundle / "heads" / "water.gguf")
    with model.context(threads=2, width=TILE, height=TILE) as context:
        (outputs,), (classes,), whole = maps_of(
            context, image, [model.head("water")], (False, True, False, False),
            overlap=overlap, halo=halo,
        )  # fmt: skip
    expected = np.einsum("co,cyx->oyx", file.weights[2], whole[1]) + file.bias[:, None, None]
    assert np.array_equal(np.isnan(outputs), np.isnan(expected)) and np.isnan(expected).any()
    assert np.nanmax(np.abs(outputs - expected)) < 1e-5 * np.nanmax(np.abs(expected))
    assert np.array_equal(classes == NO_CLASS, np.isnan(expected).any(0))
    codes = np.array([10, 20, 30, 40], "u1")
    valid = classes != NO_CLASS
    assert np.array_equal(classes[valid], codes[outputs.argmax(0)][valid])


def test_maps_of_tiles_without_overlap_are_those_of_single_images(model: Model) -> None:
    image = image_of(2, 2 * TILE, 3 * TILE, seed=3)
    head = model.head("landuse")
    with model.context(threads=2, width=TILE, height=TILE) as context:
        (outputs,), (classes,), _ = maps_of(context, image, [head], overlap=0)
        for row in range(2):
            for column in range(3):
                part = np.s_[row * TILE : row * TILE + TILE, column * TILE : column * TILE + TILE]
                alone, codes = head.apply(context.run([band[part] for band in image]))
                cells = np.s_[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
                assert np.array_equal(outputs[:, cells[0], cells[1]], alone)
                assert np.array_equal(classes[cells], codes)


def test_maps_do_not_depend_on_threads_levels_or_other_heads(model: Model) -> None:
    image = image_of(2, 100, 140, seed=4)
    image[-1, :10] = NODATA
    heads = [model.head(name) for name in (*HEADS, "height")]
    with model.context(threads=1, width=TILE, height=TILE) as context:
        first, codes, _ = maps_of(context, image, heads, (True,) * 4)
        alone, _, _ = maps_of(context, image, heads[1:2])
    with model.context(threads=3, width=TILE, height=TILE) as context:
        second, again, _ = maps_of(context, image, heads)
        shares, same, _ = maps_of(context, image, heads, probabilities=True)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other, equal_nan=True)
    for one, two, three in zip(codes, again, same, strict=True):
        assert one is None or (np.array_equal(one, two) and np.array_equal(one, three))
    assert np.array_equal(alone[0], first[1], equal_nan=True)
    for one, share in zip(heads, shares, strict=True):
        if one.classes:
            assert np.allclose(np.nansum(share, 0)[~np.isnan(share[0])], 1, atol=1e-6)
    assert np.array_equal(shares[3], first[3], equal_nan=True), "a regression has no probabilities"


def test_a_stream_of_maps_takes_less_memory_than_one_of_levels(model: Model) -> None:
    def stream_bytes(**how: object) -> int:
        with model.context(threads=1, width=TILE, height=TILE) as context:
            stream = Stream(context, 20_000, [StreamBand(FLOAT)] * 2, overlap=32, **how)
            taken = stream.bytes
            stream.close()
        return taken

    head = model.head("landuse")
    nothing = stream_bytes(levels=HEAD_ONLY)
    maps = stream_bytes(levels=HEAD_ONLY, heads=[head])
    levels = stream_bytes()
    both = stream_bytes(heads=[head])
    assert nothing < maps < levels < both
    # The width counts a few outputs, and not the channels of four levels.
    assert maps - nothing < (levels - nothing) / 3


def test_engines_of_all_kinds_give_the_same_map(bundle: Path, model: Model) -> None:
    image = image_of(2, 130, 200, seed=5)
    head = model.head("landuse")
    found = {}
    with model.context(threads=1) as context:
        found["native"] = maps_of(context, image, [head])[1][0]
        native = model.context(threads=1)
        found["host"] = maps_of(
            model.context(compute=lambda tile: native.run(list(tile))), image, [head]
        )[1][0]
    from eosfm_edge.runtime.backends import onnxruntime_library

    with model.context(
        backends="onnxruntime", backend_library=onnxruntime_library(), threads=1
    ) as context:
        assert context.backend == "onnxruntime"
        found["onnxruntime"] = maps_of(context, image, [head])[1][0]
    assert len(np.unique(found["native"])) == 3
    assert np.array_equal(found["native"], found["host"])
    # Levels agree to 1e-5: only cells between two classes may differ.
    assert (found["native"] != found["onnxruntime"]).mean() < 1e-3


def test_a_head_outlives_its_handle_in_a_stream(model: Model) -> None:
    image = image_of(2, 100, 100, seed=6)
    head = model.head("landuse")
    with model.context(threads=1, width=TILE, height=TILE) as context:
        (expected,), _, _ = maps_of(context, image, [model.head("landuse")])
        stream = Stream(context, 100, [StreamBand(FLOAT)] * 2, levels=HEAD_ONLY, heads=[head])
        head.close()
        for patch in stream.patches(feeder(stream, image)):
            part = patch.maps[0]
            rows, columns = part.outputs.shape[1:]
            cells = np.s_[:, part.row : part.row + rows, part.column : part.column + columns]
            assert np.array_equal(part.outputs, expected[cells], equal_nan=True)
        stream.close()


class TestRefusals:
    """Files and names that are no head of the bundle."""

    @pytest.fixture
    def copy(self, bundle: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(bundle, tmp_path / "b"))

    def refused(self, bundle: Path, name: str, words: str) -> None:
        with Model(bundle) as model, pytest.raises(EosfmError, match=words):
            model.head(name)

    def test_a_head_that_is_not_there_is_named(self, bundle: Path) -> None:
        self.refused(bundle, "roads", "heads/roads.gguf")

    @pytest.mark.parametrize("name", ["../heads/landuse", "a/b", "", "x" * 200])
    def test_a_name_that_is_a_path_is_refused(self, bundle: Path, name: str) -> None:
        self.refused(bundle, name, "no name of a head")

    def test_a_head_of_other_channels_is_refused(self, copy: Path) -> None:
        answer = known_answer_of(copy)
        other = random_head([9, 16, 24, 32])
        good = [level.shape[1] for level in answer.levels]
        answer_of_other = type(answer)(answer.image, tuple(
            np.zeros((1, 9 if i == 0 else n, *level.shape[2:]), "f4")
            for i, (n, level) in enumerate(zip([9, 16, 24, 32], answer.levels, strict=True))
        ))  # fmt: skip
        assert good != [9, 16, 24, 32]
        write_head(copy / "heads" / "landuse.gguf", other, answer_of_other)
        self.refused(copy, "landuse", "level1.weight")

    def test_a_head_of_another_bundles_features_is_refused(
        self, copy: Path, tmp_path: Path
    ) -> None:
        other = write(
            tmp_path / "o", random_ensemble(spec_of((2, 2), 2, backbone="speck"), seed=1), TILE
        )
        add_random_head(other)
        shutil.copy(other / "heads" / "landuse.gguf", copy / "heads" / "landuse.gguf")
        self.refused(copy, "landuse", "another bundle")

    @pytest.mark.parametrize("tensor", ["level1.weight", "level4.weight", "bias", "known.outputs"])
    def test_a_flipped_bit_is_found(self, copy: Path, tensor: str) -> None:
        flip(copy / "heads" / "landuse.gguf", tensor, 1)
        self.refused(copy, "landuse", "another answer|not finite")

    def test_a_specialists_file_is_no_head(self, copy: Path) -> None:
        shutil.copy(copy / "specialists" / "s0.gguf", copy / "heads" / "landuse.gguf")
        self.refused(copy, "landuse", "eosfm-specialist, expected eosfm-head")

    def test_damage_anywhere_is_a_refusal_or_harmless(self, copy: Path) -> None:
        path = copy / "heads" / "landuse.gguf"
        good = path.read_bytes()
        rng = np.random.default_rng(0)
        refused = 0
        with Model(copy) as model:
            for _ in range(300):
                bad = bytearray(good)
                for _ in range(rng.integers(1, 4)):
                    bad[rng.integers(len(bad))] = rng.integers(256)
                other = path.with_suffix(".new")
                other.write_bytes(
                    bad[: rng.integers(1, len(bad) + 1)] if rng.random() < 0.3 else bad
                )
                other.replace(path)
                try:
                    model.head("landuse").close()
                except EosfmError as error:
                    assert str(error)
                    refused += 1
        assert refused > 100

    def test_a_stream_refuses_a_head_of_another_model(self, bundle: Path, model: Model) -> None:
        with Model(bundle) as other, model.context(threads=1) as context:
            head = other.head("landuse")
            with pytest.raises(EosfmError, match="of another model"):
                Stream(context, 100, [StreamBand(FLOAT)] * 2, heads=[head])

    def test_a_stream_refuses_more_heads_than_it_has_room_for(self, model: Model) -> None:
        head = model.head("water")
        with model.context(threads=1) as context, pytest.raises(EosfmError, match="17 heads"):
            Stream(context, 100, [StreamBand(FLOAT)] * 2, heads=[head] * 17)

    def test_apply_names_a_level_that_is_missing(self, model: Model) -> None:
        head = model.head("landuse")
        levels: list[Array | None] = [
            np.zeros((shape, 16 >> i, 16 >> i), "f4")
            for i, shape in enumerate(model.describe().channels)
        ]
        head.apply(levels)
        levels[2] = None
        with pytest.raises(EosfmError, match="level 3 is NULL"):
            head.apply(levels)
