"""Imagery is given once: its description is kept with the ensemble for later verbs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.scenes import scene_pixels, write_scene
from support.weights import write_pth

import eosfm_edge as ee
from eosfm_edge.files import sha256_file
from eosfm_edge.formats.plan import read_plan

QUICK: dict[str, Any] = {"ratio": 0.3, "tile": 64, "tiles": 48, "recipe": "closed-form"}


@pytest.fixture
def scene(imagery: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(imagery, tmp_path / "scene.tif"))


@pytest.fixture
def six(motes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(motes, tmp_path / "six"))


def kept(ensemble: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((ensemble / "imagery.json").read_text())
    return found


def pruned(*arguments: Any) -> Any:
    """Return the report of a pruning, of one that keeps less than promised too: it is written."""
    try:
        return ee.prune(*arguments)
    except ee.PromiseBrokenError as error:
        return error.report


def test_import_keeps_where_its_imagery_is_and_its_digest(tmp_path: Path, scene: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (3,))
    options = ee.ImportOptions(bands="RGB", scale=1e-4, data=scene, seed=7)
    ee.import_ensemble(source, tmp_path / "e", options)
    assert kept(tmp_path / "e") == {
        "schema_version": 1,
        "files": [{"path": str(scene), "sha256": sha256_file(scene)}],
        "seed": 7,
        "bands": None,
        "scale": None,
        "offset": None,
        "nodata": None,
    }
    ee.import_ensemble(source, tmp_path / "e", options, overwrite=True)  # the file is ours


def test_import_refuses_imagery_that_does_not_fit_before_writing(tmp_path: Path) -> None:
    source = write_pth(tmp_path / "e.pth", (3,))
    wrong = write_scene(tmp_path / "two.tif", scene_pixels(2, 96, 96))
    for data, message in ((wrong, "has 2 bands"), (tmp_path / "none.tif", "does not exist")):
        with pytest.raises(ee.UserError, match=message):
            ee.import_ensemble(
                source, tmp_path / "e", ee.ImportOptions(bands="RGB", scale=1e-4, data=data)
            )
    assert not (tmp_path / "e").exists()


@pytest.mark.filterwarnings("ignore::eosfm_edge.network.cells.FewTilesWarning")
def test_prune_uses_what_is_kept_and_keeps_what_it_is_given(
    six: Path, scene: Path, tmp_path: Path
) -> None:
    with pytest.raises(ee.UserError, match="--data SCENE"):
        ee.prune(six, tmp_path / "half", ee.PruneOptions(**QUICK))
    given = ee.PruneOptions(**QUICK, data=scene, seed=3, nodata="none")
    first = pruned(six, tmp_path / "half", given)
    assert kept(tmp_path / "half")["seed"] == 3
    assert kept(tmp_path / "half")["nodata"] == "none"

    shutil.copy(tmp_path / "half" / "imagery.json", six)
    again = pruned(six, tmp_path / "again", ee.PruneOptions(**QUICK))
    assert again.tiles.sha256 == first.tiles.sha256
    assert again.plan == first.plan and again.plan.recipe.seed == 3
    assert kept(tmp_path / "again") == kept(tmp_path / "half")

    # What is given counts more than what is kept, and recipes and plans of one's own have seeds.
    plan = tmp_path / "plan.yaml"
    ee.prune(six, None, ee.PruneOptions(**QUICK, seed=4, save_plan=plan))
    assert read_plan(plan).recipe.seed == 4
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("seed: 5\ntiles: 48\n")
    mine = {**QUICK, "recipe": str(recipe), "save_plan": plan}
    ee.prune(six, None, ee.PruneOptions(**mine))
    assert read_plan(plan).recipe.seed == 5
    pruned(six, tmp_path / "replayed", ee.PruneOptions(plan=plan, tile=64))
    assert kept(tmp_path / "replayed") == kept(six)


def test_imagery_that_changed_is_refused_with_what_to_do(
    six: Path, scene: Path, tmp_path: Path
) -> None:
    from eosfm_edge.api.imagery import describe_imagery, keep_imagery

    keep_imagery(six, describe_imagery([scene], seed=0))
    write_scene(scene, scene_pixels(3, 400, 600) + np.uint16(1))
    for call in (
        lambda: ee.prune(six, tmp_path / "p", ee.PruneOptions(**QUICK)),
        lambda: ee.calibrate(six, tmp_path / "c", ee.CalibrateOptions(tile=64)),
        lambda: ee.export(six, tmp_path / "b.eosfm", ee.ExportOptions(tile=64)),
    ):
        with pytest.raises(ee.UserError, match=rf"is not what it was(?s:.*)--data {scene}"):
            call()
    scene.unlink()
    with pytest.raises(ee.UserError, match=r"does not exist(?s:.*)--data SCENE"):
        ee.prune(six, tmp_path / "p", ee.PruneOptions(**QUICK))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["six"]


def test_a_folder_of_bands_is_known_by_all_its_files(tmp_path: Path, specks: Path) -> None:
    from eosfm_edge.api.imagery import describe_imagery, require_imagery

    folder = tmp_path / "bands"
    folder.mkdir()
    for name in ("B04", "B03", "B02"):
        write_scene(folder / f"{name}.tif", scene_pixels(1, 96, 96))
    found = describe_imagery([folder, "/vsizip/a.zip/b.tif"], seed=0)
    require_imagery([], specks, found)
    assert found.files[1].sha256 is None
    (folder / "B08.tif").write_bytes(b"")
    with pytest.raises(ee.UserError, match="is not what it was"):
        require_imagery([], specks, found)


def test_a_description_that_is_not_valid_is_named(six: Path, tmp_path: Path) -> None:
    (six / "imagery.json").write_text('{"files": []}')
    with pytest.raises(ee.UserError, match=r"imagery.json is not valid: files"):
        ee.export(six, tmp_path / "b.eosfm")


def test_what_overrides_the_kept_imagery_is_kept_with_the_result(
    six: Path, scene: Path, tmp_path: Path
) -> None:
    from eosfm_edge.api.imagery import describe_imagery, keep_imagery, kept_imagery

    keep_imagery(six, describe_imagery([scene], seed=3))
    pruned(six, tmp_path / "p", ee.PruneOptions(**QUICK, scale=0.002, trust_values=True))
    found = kept_imagery(tmp_path / "p")
    assert found is not None
    assert (found.scale, found.seed) == (0.002, 3)
    assert found.files == describe_imagery([scene], seed=3).files
