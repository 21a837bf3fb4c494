"""From labels to a head in the bundle, and out again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from support.command import run
from support.labelled import CODES, patchwork, write_mask
from support.scenes import write_scene

import eosfm_edge as ee
from eosfm_edge.api.checks import HeadsGoWarning, require_bundle_output
from eosfm_edge.bundle.heads import read_head
from eosfm_edge.errors import UserError
from eosfm_edge.native.binding import Model

NAMES = {10: "dark", 20: "plain", 40: "rough"}


@pytest.fixture
def bundle(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "small.eosfm"))


def options(labelled: Path, **changed: object) -> ee.HeadOptions:
    return ee.HeadOptions(
        **{
            "labels": labelled / "mask.tif",
            "data": labelled / "scene.tif",
            "trust_values": True,
            "bands": "B04,B03,B02",
            **changed,
        }
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(bundle: Path, words: str, options: ee.HeadOptions, name: str = "land") -> None:
    """Check that a fit is refused with words, and leaves the bundle and its folder alone."""
    before, beside = content(bundle), sorted(bundle.parent.iterdir())
    with pytest.raises(UserError, match=words):
        ee.fit_head(bundle, options, name)
    assert content(bundle) == before
    assert sorted(bundle.parent.iterdir()) == beside


def test_a_bundle_that_is_replaced_says_which_heads_go_with_it(tmp_path: Path) -> None:
    bundle = tmp_path / "six.eosfm"
    (bundle / "heads").mkdir(parents=True)
    (bundle / "heads" / "landuse.gguf").touch()
    with pytest.warns(HeadsGoWarning, match=r"heads of .*six\.eosfm go with it: landuse\. .* fit"):
        require_bundle_output(bundle, [], overwrite=True)


def test_a_head_is_fitted_and_put_into_the_bundle(bundle: Path, labelled: Path) -> None:
    before = content(bundle)
    report = ee.fit_head(bundle, options(labelled, classes=NAMES), "land")
    assert report.accuracy > 0.75 and report.macro_f1 > 0.75
    assert [one.code for one in report.classes] == list(CODES)
    assert [one.cells for one in report.classes] == [sum(row) for row in report.confusion]
    assert report.most_frequent < 0.5
    assert ee.verify(bundle).absent == ()
    after = content(bundle)
    assert set(after) - set(before) == {"heads/land.gguf"}
    assert {name for name in before if after[name] != before[name]} == {"manifest.json"}
    assert len(after["heads/land.gguf"]) == report.bytes < 60_000
    (head,) = ee.open(bundle).heads
    assert (head.name, head.levels, head.score) == (
        "land",
        (1, 2, 3),
        pytest.approx(report.accuracy),
    )
    assert {one.code: one.name for one in head.classes} == NAMES
    with Model(bundle) as model:
        assert [one.name for one in model.head("land").classes] == list(NAMES.values())


def test_what_is_opened_before_stays_as_it_was(bundle: Path, labelled: Path) -> None:
    with Model(bundle) as model, model.context() as context:
        ee.fit_head(bundle, options(labelled), "land")
        assert context.verify()[0]
        with pytest.raises(UserError, match="land"):
            model.head("land")


def test_the_fit_does_not_depend_on_threads_or_the_run(
    bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other.eosfm"))
    ee.fit_head(bundle, options(labelled, threads=1), "land")
    ee.fit_head(other, options(labelled, threads=2), "land")
    one, two = (read_head(place / "heads" / "land.gguf") for place in (bundle, other))
    for number in one.weights:
        assert np.array_equal(one.weights[number], two.weights[number])


def test_colours_come_from_the_masks_table(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "m.tif", patchwork())
    with rasterio.open(mask, "r+") as dataset:
        dataset.write_colormap(1, {10: (1, 2, 3, 255), 20: (4, 5, 6, 255), 40: (7, 8, 9, 255)})
    ee.fit_head(bundle, options(labelled, labels=mask), "land")
    (head,) = ee.open(bundle).heads
    assert [one.colour for one in head.classes] == [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert [one.name for one in head.classes] == ["class 10", "class 20", "class 40"]


def test_classes_that_are_not_named_are_no_labels(bundle: Path, labelled: Path) -> None:
    report = ee.fit_head(bundle, options(labelled, classes="10=dark,40=rough"), "land")
    assert [one.name for one in report.classes] == ["dark", "rough"]


def test_scenes_are_places_of_their_own(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    """Chips that are too small for blocks are held out whole."""
    chips, masks = [], []
    with rasterio.open(labelled / "scene.tif") as source:
        pixels = source.read()
    for number, left in enumerate(range(0, 512, 96)):
        part = np.s_[..., 64:160, left : left + 96]
        chips.append(write_scene(tmp_path / f"c{number}.tif", pixels[part]))
        masks.append(write_mask(tmp_path / f"m{number}.tif", patchwork()[part]))
    report = ee.fit_head(bundle, options(labelled, data=chips, labels=masks), "land")
    assert report.places == len(chips) == 6
    assert sum(map(sum, report.confusion)) == report.cells


def test_a_scene_without_labels_is_named_and_left_out(
    bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    pixels = np.full((3, 64, 64), 700, np.uint16)
    far = write_scene(tmp_path / "far.tif", pixels)
    with rasterio.open(far, "r+") as dataset:
        dataset.transform = rasterio.Affine(10, 0, 600_000, 0, -10, 5_000_000)
    both = options(labelled, data=[labelled / "scene.tif", far])
    with pytest.warns(UserWarning, match=r"far.tif has no cell that .*mask.tif labels"):
        ee.fit_head(bundle, both, "land")
    refused(bundle, r"no cell of .*far.tif is labelled(.|\n)*gdalinfo",
            options(labelled, data=far), "other")  # fmt: skip


def test_a_head_that_another_fit_adds_meanwhile_is_not_lost(bundle: Path, labelled: Path) -> None:
    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "folds" and done == 0 and not (bundle / "heads" / "other.gguf").exists():
            ee.fit_head(bundle, options(labelled, levels="3", cells=500), "other")

    with pytest.raises(UserError, match="changed by someone else"):
        ee.fit_head(bundle, options(labelled), "land", progress=meanwhile)
    assert [head.name for head in ee.open(bundle).heads] == ["other"]
    ee.verify(bundle)


def test_files_of_the_old_bundle_are_not_written_to(
    bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    """Files that are linked twice, as by backups, stay what they were."""
    ee.fit_head(bundle, options(labelled, levels="2"), "land")
    (tmp_path / "backup").mkdir()
    before = content(bundle)
    for name in before:
        link = tmp_path / "backup" / name.replace("/", "-")
        link.hardlink_to(bundle / name)
    ee.fit_head(bundle, options(labelled, levels="1"), "land", overwrite=True)
    for name, data in before.items():
        assert (tmp_path / "backup" / name.replace("/", "-")).read_bytes() == data


class TestRefusals:
    def test_one_class_is_none(self, bundle: Path, labelled: Path) -> None:
        refused(bundle, "all labelled cells are of one class: dark",
                options(labelled, classes="10=dark"))  # fmt: skip

    def test_a_class_without_cells_is_named(self, bundle: Path, labelled: Path) -> None:
        refused(bundle, "class lava .30. has no cell",
                options(labelled, classes="10=dark,20=plain,30=lava"))  # fmt: skip

    @pytest.mark.parametrize("name", ["x" * 80, "\u00e9" * 40, "a\x1b[2Jb"])
    def test_a_name_that_maps_cannot_hold_is_refused(
        self, bundle: Path, labelled: Path, name: str
    ) -> None:
        refused(bundle, "the class 10 is called", options(labelled, classes={10: name, 20: "b"}))

    def test_one_place_cannot_be_held_out(
        self, bundle: Path, labelled: Path, tmp_path: Path
    ) -> None:
        codes = np.full((320, 512), 255, np.uint8)
        codes[40:80, 40:80] = 1
        codes[40:80, 60:80] = 2
        refused(bundle, r"lie in 1 place of the scenes(.|\n)*another scene",
                options(labelled, labels=write_mask(tmp_path / "m.tif", codes)))  # fmt: skip

    def test_a_name_of_another_output_is_refused(self, bundle: Path, labelled: Path) -> None:
        for name in ("level1", "groups", "../x", ""):
            refused(bundle, "head", options(labelled), name)

    def test_a_head_is_replaced_only_on_demand(self, bundle: Path, labelled: Path) -> None:
        ee.fit_head(bundle, options(labelled, levels="2"), "land")
        refused(bundle, "has a head land(.|\n)*--overwrite", options(labelled))
        ee.fit_head(bundle, options(labelled, levels="1"), "land", overwrite=True)
        assert [head.levels for head in ee.open(bundle).heads] == [(1,)]
        ee.verify(bundle)

    def test_a_damaged_bundle_is_refused(self, bundle: Path, labelled: Path) -> None:
        (bundle / "extra").touch()
        refused(bundle, "extra is not in the manifest", options(labelled))

    def test_files_of_labels_are_one_or_as_many_as_scenes(
        self, bundle: Path, labelled: Path, tmp_path: Path
    ) -> None:
        mask = labelled / "mask.tif"
        other = Path(shutil.copy(mask, tmp_path))
        refused(bundle, "2 files of labels are given for 1 scenes",
                options(labelled, labels=[mask, other]))  # fmt: skip


def test_the_command_fits_lists_and_removes(bundle: Path, labelled: Path) -> None:
    data = ("--labels", labelled / "mask.tif", "--data", labelled / "scene.tif")
    command = ("head", "fit", bundle, *data, "--bands", "B04,B03,B02", "--trust-values", "-q")
    code, out, err = run(*command, "--classes", "10=dark,20=plain,40=rough", "-o", "land")
    assert code == 0, err
    assert "held out: " in out and " % right (always the most frequent class: " in out
    assert out.splitlines()[-1].startswith(f"{bundle}: has the head land, ")
    code, out, err = run("head", "list", bundle)
    assert code == 0 and "land  1,2,3   10 dark, 20 plain, 40 rough" in out, err
    code, out, _ = run(*command, "--json")  # named after the labels
    assert code == 0 and json.loads(out)["head"] == "mask"
    code, _, err = run("head", "remove", bundle, "sea")
    assert code == 2 and "has no head sea" in err and "land, mask" in err
    code, _, err = run("head", "remove", bundle, "land")
    assert code == 0, err
    code, _, _ = run("head", "remove", bundle, "mask")
    assert code == 0 and not (bundle / "heads").exists()
    ee.verify(bundle)
    code, out, _ = run("head", "list", bundle)
    assert "has no heads" in out


def test_polygons_without_their_reader_name_the_extra(
    bundle: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyogrio", None)  # as where it is not installed
    (tmp_path / "p.gpkg").touch()
    data = ("--labels", tmp_path / "p.gpkg", "--data", labelled / "scene.tif")
    code, _, err = run("head", "fit", bundle, *data, "--bands", "B04,B03,B02", "--trust-values")
    assert code == 2 and "needs pyogrio" in err and ".[heads]" in err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--labels", "none.tif", "--data", "scene.tif"], "none.tif does not exist"),
        (["--data", "scene.tif"], "no labels were given"),
        (["--labels", "mask.tif"], "no scene was given"),
        (["--labels", "mask.tif", "--data", "scene.tif", "--classes", "water"], "CODE=NAME"),
        (["--labels", "mask.tif", "--data", "scene.tif", "--classes", "300=x"], "classes"),
        (["--labels", "mask.tif", "--data", "scene.tif", "--levels", "5"], "levels are '5'"),
        (["--labels", "mask.tif", "--data", "scene.tif", "--column", "a"], "no attributes"),
    ],
)
def test_wrong_use_exits_with_2(
    bundle: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], found: str
) -> None:
    monkeypatch.chdir(labelled)
    code, _, err = run("head", "fit", bundle, *words, "--bands", "B04,B03,B02", "--trust-values")
    assert code == 2 and found in err, err
