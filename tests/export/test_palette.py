"""The palette of a bundle: of the original ensemble, whatever was done to it since."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.scenes import scene_pixels, write_scene
from support.specimens import ensemble_of, write_ensemble

from eosfm_edge.bundle.palette import Palette, palette_bytes, read_palette
from eosfm_edge.ensemble.model import physical_units
from eosfm_edge.ensemble.store import load_ensemble
from eosfm_edge.errors import UserError
from eosfm_edge.exporting.exporter import ExportOptions, export_bundle
from eosfm_edge.formats.bundle import read_manifest
from eosfm_edge.formats.recipe import Recipe
from eosfm_edge.network import palette as fitting
from eosfm_edge.pruning.prune import PruneOptions, prune_ensemble
from eosfm_edge.scene.sampling import sample_tiles
from eosfm_edge.scene.scene import open_scene

RECIPE = Recipe(tiles=12, criterion="activation", ranking="uniform")
TILE = 64


def exported(ensemble: Path, scene: Path, bundle: Path) -> Path:
    export_bundle(ensemble, scene, bundle, ExportOptions(tile=TILE, purpose="native"))
    return bundle / "palette.safetensors"


def palette_at(path: Path) -> Palette:
    palette = read_palette(path)
    assert palette is not None
    return palette


@pytest.fixture(scope="module")
def motes(motes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ensemble before it has a palette."""
    folder = shutil.copytree(motes, tmp_path_factory.mktemp("plain") / "motes")
    (folder / "palette.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def pruned(motes: Path, imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "half"
    prune_ensemble(motes, [imagery], folder, PruneOptions(recipe=RECIPE, ratio=0.5, tile=TILE))
    return folder


def test_it_is_fitted_to_what_the_ensemble_makes_of_the_scene(
    motes: Path, imagery: Path, tmp_path: Path
) -> None:
    palette = palette_at(exported(motes, imagery, tmp_path / "a.eosfm"))
    manifest = read_manifest(tmp_path / "a.eosfm")
    assert palette.of == load_ensemble(motes).spec.name
    assert palette.channels == tuple(level.channels for level in manifest.levels)
    assert manifest.files["palette.safetensors"].role == "picture"
    ensemble = load_ensemble(motes)
    with open_scene(imagery, ensemble.spec.input) as scene, torch.inference_mode():
        tiles = np.stack(sample_tiles(scene, TILE, 16))
        levels = ensemble(physical_units(ensemble.spec, torch.from_numpy(tiles)))
    for level, colours in zip(levels, palette.levels, strict=True):
        cells = level.permute(0, 2, 3, 1).flatten(0, 2).numpy()
        np.testing.assert_allclose(colours.mean, cells.mean(axis=0), atol=0.1 * cells.std())


def test_the_same_export_gives_the_same_palette(motes: Path, imagery: Path, tmp_path: Path) -> None:
    first, second = (exported(motes, imagery, tmp_path / f"{name}.eosfm") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_pruned_ensemble_is_coloured_as_the_original(
    motes: Path, pruned: Path, imagery: Path, tmp_path: Path
) -> None:
    """Fitted when it is pruned, on the original, and copied into its bundles."""
    original = exported(motes, imagery, tmp_path / "original.eosfm").read_bytes()
    assert (pruned / "palette.safetensors").read_bytes() == original
    assert exported(pruned, imagery, tmp_path / "half.eosfm").read_bytes() == original


def test_what_is_pruned_again_keeps_the_palette_of_the_first(
    pruned: Path, imagery: Path, tmp_path: Path
) -> None:
    options = PruneOptions(recipe=RECIPE, ratio=0.1, tile=TILE)
    prune_ensemble(pruned, [imagery], tmp_path / "third", options)
    again = tmp_path / "third" / "palette.safetensors"
    assert again.read_bytes() == (pruned / "palette.safetensors").read_bytes()


def test_an_ensemble_of_other_channels_gets_its_own(
    motes: Path, pruned: Path, imagery: Path, tmp_path: Path
) -> None:
    palette = palette_at(pruned / "palette.safetensors")
    levels = (palette.levels[0], palette.levels[1], palette.levels[0], palette.levels[3])
    narrow = Palette(palette.of, levels, palette.grouped, palette.centres)
    shutil.copytree(motes, tmp_path / "other")
    (tmp_path / "other" / "palette.safetensors").write_bytes(palette_bytes(narrow))
    found = palette_at(exported(tmp_path / "other", imagery, tmp_path / "other.eosfm"))
    assert found.channels == palette.channels


def test_pruned_widths_leave_no_palette_of_the_original(imagery: Path, tmp_path: Path) -> None:
    """Without a fusion, the channels of a level are those of the specialists."""
    write_ensemble(tmp_path / "plain", ensemble_of(backbone="mote", fusion="none"))
    recipe = RECIPE.model_copy(update={"scope": "width"})
    options = PruneOptions(recipe=recipe, ratio=0.3, tile=TILE)
    prune_ensemble(tmp_path / "plain", [imagery], tmp_path / "narrow", options)
    assert not (tmp_path / "narrow" / "palette.safetensors").exists()
    found = palette_at(exported(tmp_path / "narrow", imagery, tmp_path / "narrow.eosfm"))
    assert found.of == "narrow"


def test_a_damaged_palette_of_an_ensemble_is_named(
    motes: Path, imagery: Path, tmp_path: Path
) -> None:
    shutil.copytree(motes, tmp_path / "other")
    (tmp_path / "other" / "palette.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match=r"palette\.safetensors is no palette"):
        exported(tmp_path / "other", imagery, tmp_path / "other.eosfm")
    assert not (tmp_path / "other.eosfm").exists()


def test_tiles_come_from_all_over_the_imagery(
    motes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 chips as large as a tile, every third is taken."""
    chips = tmp_path / "chips"
    chips.mkdir()
    for number in range(40):
        write_scene(chips / f"{number:02}.tif", scene_pixels(3, TILE, TILE, seed=number))
    taken: list[int] = []
    fit = fitting.fit_palette

    def counted(levels: list[np.ndarray], of: str) -> Palette:
        taken.append(len(levels[3]))
        return fit(levels, of)

    monkeypatch.setattr(fitting, "fit_palette", counted)
    fitting.palette_of(load_ensemble(motes), [chips], TILE, names=None, radiometry=None)
    assert taken == [14 * (TILE // 32) ** 2]
