"""Maps that ``run`` writes: values, names, colours, and what is left out."""

from __future__ import annotations

import ctypes
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.command import run
from support.gguf import flip, set_floats
from support.heads import random_head
from support.labelled import patchwork
from support.scenes import write_scene

import eosfm_edge as ee
from eosfm_edge.bundle.heads import read_head
from eosfm_edge.heads.place import changed_bundle, place_head

NAMES = {10: "dark", 20: "plain", 40: "rough <&> "}
READ = ("--bands", "B04,B03,B02", "--trust-values", "-q")


@pytest.fixture(scope="module")
def bundle(small: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with a head of classes and a regression; not to be changed."""
    place = Path(shutil.copytree(small, tmp_path_factory.mktemp("maps") / "small.eosfm"))
    options = ee.HeadOptions(
        labels=labelled / "mask.tif", data=labelled / "scene.tif", bands="B04,B03,B02",
        trust_values=True, classes=NAMES,
    )  # fmt: skip
    ee.fit_head(place, options, "land")
    channels = [level.channels for level in ee.open(place).manifest.levels]
    place_head(place, random_head(channels, "height", (2,), 1, task="regression"))
    return place


@pytest.fixture(scope="module")
def output(bundle: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over the labelled scene, of which a corner has no data."""
    with rasterio.open(labelled / "scene.tif") as source:
        pixels = source.read()
    pixels[:, :70, :50] = 0
    folder = tmp_path_factory.mktemp("output")
    scene = write_scene(folder / "scene.tif", pixels, nodata=0)
    code, _, err = run("run", bundle, scene, "-o", folder / "out", "--probabilities", *READ)
    assert code == 0, err
    return folder / "out"


def test_only_what_is_documented_is_written(output: Path) -> None:
    assert sorted(path.name for path in output.iterdir()) == [
        "height.tif", "land.probabilities.tif", "land.tif", "land.tif.aux.xml",
        "level1.tif", "level2.tif", "level3.tif", "level4.tif",
    ]  # fmt: skip


def test_a_map_lies_on_its_levels_grid_with_codes_and_colours(output: Path) -> None:
    with rasterio.open(output / "land.tif") as land, rasterio.open(output / "level1.tif") as level:
        assert (land.crs, land.transform, land.shape) == (level.crs, level.transform, level.shape)
        assert (land.dtypes, land.nodata, land.descriptions) == (("uint8",), 255, ("land",))
        assert land.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert land.tags()["head"] == "land" and land.tags()["bundle"] == "small"
        colours = land.colormap(1)
        codes, features = land.read(1), level.read(1)
    assert np.array_equal(codes == 255, np.isnan(features)) and (codes == 255).any()
    assert set(np.unique(codes)) == {*NAMES, 255}
    assert colours[10][:3] == (243, 195, 0) and colours[255] == (0, 0, 0, 0)
    # The head was fitted to this scene, which it knows well but for the edges of the patches.
    right = patchwork()[2::4, 2::4]
    assert (codes == right)[codes != 255].mean() > 0.75


def test_the_map_is_the_largest_probability(output: Path) -> None:
    with rasterio.open(output / "land.probabilities.tif") as dataset:
        assert dataset.descriptions == tuple(NAMES.values())
        shares = dataset.read()
    with rasterio.open(output / "land.tif") as dataset:
        codes = dataset.read(1)
    valid = codes != 255
    assert np.isnan(shares[:, ~valid]).all()
    assert np.allclose(shares[:, valid].sum(0), 1, atol=1e-5)
    assert (np.array(list(NAMES))[shares[:, valid].argmax(0)] == codes[valid]).all()


def test_a_regression_is_the_weighted_sum_of_its_level(output: Path, bundle: Path) -> None:
    head = read_head(bundle / "heads" / "height.gguf")
    with rasterio.open(output / "level2.tif") as dataset:
        features = dataset.read()
    with rasterio.open(output / "height.tif") as dataset:
        found = dataset.read(1)
        assert np.isnan(dataset.nodata)
    expected = np.einsum("c,cyx->yx", head.weights[2][:, 0], features) + head.bias[0]
    assert np.allclose(found, expected, atol=1e-4 * np.nanmax(np.abs(expected)), equal_nan=True)


def gdal() -> ctypes.CDLL:
    """The GDAL in rasterio's wheel, for what rasterio does not show."""
    (library,) = (Path(rasterio.__file__).parents[1] / "rasterio.libs").glob("libgdal*")
    loaded = ctypes.CDLL(str(library))
    for name in ("GDALOpen", "GDALGetRasterBand", "GDALGetRasterCategoryNames",
                 "GDALGetDefaultRAT"):  # fmt: skip
        getattr(loaded, name).restype = ctypes.c_void_p
    loaded.GDALRATGetValueAsString.restype = ctypes.c_char_p
    loaded.GDALAllRegister()
    return loaded


def test_gdal_finds_the_names_of_classes(output: Path) -> None:
    library = gdal()
    dataset = ctypes.c_void_p(library.GDALOpen(str(output / "land.tif").encode(), 0))
    band = ctypes.c_void_p(library.GDALGetRasterBand(dataset, 1))
    table = ctypes.c_void_p(library.GDALGetDefaultRAT(band))  # which reads the file of names
    address = library.GDALGetRasterCategoryNames(band)
    names = ctypes.cast(address, ctypes.POINTER(ctypes.c_char_p))
    assert [names[code].decode() for code in (0, 10, 20, 40)] == ["", *NAMES.values()]
    assert library.GDALRATGetRowCount(table) == 3
    row = [library.GDALRATGetValueAsString(table, 2, column).decode() for column in range(5)]
    assert row == ["40", "rough <&> ", "243", "132", "0"]
    library.GDALClose(dataset)


def test_maps_alone_are_those_beside_levels(bundle: Path, output: Path, tmp_path: Path) -> None:
    scene = output.parent / "scene.tif"
    code, out, err = run(
        "run", bundle, scene, "-o", tmp_path / "out", "--levels", "none", "--json", *READ
    )
    assert code == 0, err
    names = ["height.tif", "land.tif", "land.tif.aux.xml"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert sorted(json.loads(out)["report"]["bytes"]) == names
    for name in ("land.tif", "height.tif"):
        with rasterio.open(tmp_path / "out" / name) as one, rasterio.open(output / name) as two:
            assert np.array_equal(one.read(), two.read(), equal_nan=one.dtypes[0] == "float32")


def test_onnxruntime_gives_the_native_engines_map(
    bundle: Path, output: Path, tmp_path: Path
) -> None:
    command = ("run", bundle, output.parent / "scene.tif", "-o", tmp_path / "out")
    code, _, err = run(*command, "--levels", "none", "--backend", "onnxruntime", *READ)
    assert code == 0, err
    maps = (tmp_path / "out" / "land.tif", output / "land.tif")
    found, native = (rasterio.open(path).read(1) for path in maps)
    assert ((found == 255) == (native == 255)).all()
    # Levels agree to 1e-5: only cells between two classes may differ.
    assert (found != native).sum() <= 2


def test_large_maps_have_overviews_of_the_most_frequent_class(bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(300, 3000, (3, 64, 2112)).astype(np.uint16)
    scene = write_scene(tmp_path / "scene.tif", pixels)
    code, _, err = run("run", bundle, scene, "-o", tmp_path / "out", "--levels", "none", *READ)
    assert code == 0, err
    with rasterio.open(tmp_path / "out" / "land.tif") as dataset:
        assert dataset.width == 528 and dataset.overviews(1) == [2]
    with rasterio.open(tmp_path / "out" / "land.tif", overview_level=0) as dataset:
        assert set(np.unique(dataset.read(1))) <= set(NAMES)


def test_an_output_with_maps_is_replaced_on_demand(bundle: Path, output: Path) -> None:
    command = ("run", bundle, output.parent / "scene.tif", "-o", output.parent / "again", *READ)
    assert run(*command)[0] == 0
    assert run(*command)[0] == 2
    assert run(*command, "--overwrite", "--levels", "none")[0] == 0
    assert not (output.parent / "again" / "level1.tif").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--levels", "none"], "no levels are wanted, and"),
        (["--probabilities"], "probabilities are wanted, and"),
    ],
)
def test_maps_need_a_head(
    small: Path, labelled: Path, tmp_path: Path, words: Sequence[str], found: str
) -> None:
    scene = labelled / "scene.tif"
    code, _, err = run("run", small, scene, "-o", tmp_path / "out", *words, *READ)
    assert code == 2 and found in err and "head fit" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["--quicklook"], ["--packets", "200kB"]])
def test_what_is_made_of_levels_needs_them(
    bundle: Path, labelled: Path, tmp_path: Path, words: Sequence[str]
) -> None:
    scene, out = labelled / "scene.tif", tmp_path / "out"
    code, _, err = run("run", bundle, scene, "-o", out, "--levels", "none", *words, *READ)
    assert code == 2 and f"of which {words[0]} is made" in err


class TestDamage:
    @pytest.fixture
    def damaged(self, bundle: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(bundle, tmp_path / "small.eosfm"))

    def test_a_head_that_was_altered_is_named(
        self, damaged: Path, labelled: Path, tmp_path: Path
    ) -> None:
        flip(damaged / "heads" / "land.gguf", "bias", 1)
        for words in (("run", damaged, labelled / "scene.tif", "-o", tmp_path / "out", *READ),
                      ("verify", damaged)):  # fmt: skip
            code, _, err = run(*words)
            assert code == 1 and "heads/land.gguf was altered" in err
        assert not (tmp_path / "out").exists()

    def test_a_head_of_other_features_fails_its_known_answer(
        self, damaged: Path, labelled: Path, tmp_path: Path
    ) -> None:
        """Its digest is right: somebody listed it."""
        with changed_bundle(damaged) as folder:
            path = folder / "heads" / "land.gguf"
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
            set_floats(path, "bias", 0.25)
        for words in (("run", damaged, labelled / "scene.tif", "-o", tmp_path / "out", *READ),
                      ("verify", damaged)):  # fmt: skip
            code, _, err = run(*words)
            assert code == 1 and "another answer than its own" in err and "head remove" in err
        assert not (tmp_path / "out").exists()

    def test_a_head_that_was_not_sent_is_not_missed(
        self, damaged: Path, labelled: Path, tmp_path: Path
    ) -> None:
        (damaged / "heads" / "land.gguf").unlink()
        code, out, err = run("verify", damaged)
        assert code == 0 and "heads/land.gguf is not here" in out, err
        out = tmp_path / "out"
        code, _, err = run("run", damaged, labelled / "scene.tif", "-o", out, *READ)
        assert code == 0 and (out / "height.tif").exists() and not (out / "land.tif").exists(), err


def test_verify_says_how_far_heads_are_off(bundle: Path) -> None:
    code, out, err = run("verify", bundle)
    assert code == 0, err
    assert "head height: " in out
    assert ", 0.0 % of the known image's cells in another class" in out
    for backend in ("native", "onnxruntime"):
        found = ee.verify(bundle, ee.VerifyOptions(backend=backend))
        assert [one.head for one in found.heads] == ["height", "land"]
        assert all(one.relative < 1e-4 for one in found.heads)
