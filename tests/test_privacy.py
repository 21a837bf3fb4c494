"""A bundle is sent to others: nothing in it says where its maker's files were, or gives a key."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.command import inside

from eosfm_edge.formats.imagery import IMAGERY_NAME, bare_name

SECRET = "the-folder-of-a-project"


def telling(folder: Path) -> list[str]:
    """Return the files that have the secret in them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.name for path in files if SECRET.encode() in path.read_bytes()]


def test_no_file_of_the_road_says_where_its_inputs_were(
    motes: Path, imagery: Path, tmp_path: Path
) -> None:
    home = tmp_path / SECRET
    ensemble = shutil.copytree(motes, home / "motes")
    scene = shutil.copy(imagery, home / "scene.tif")
    chips = home / "chips"
    for name in ("a", "b"):
        (chips / name).mkdir(parents=True)
        shutil.copy(imagery, chips / name / "chip.tif")
    common = ("--tiles", 12, "--tile", 64)
    small, int8, bundle = (home / name for name in ("small", "int8.safetensors", "x.eosfm"))
    recipe = ("--recipe", "closed-form")
    inside("prune", ensemble, "-o", small, "--ratio", 0.1, "--data", scene, *common, *recipe)
    inside("calibrate", small, "-o", int8, "--data", chips, *common)
    inside("export", small, "-o", bundle, "--calibration", int8, "--tile", 64, "--for", "all")
    inside("run", bundle, scene, "-o", home / "features")
    assert telling(small) == [IMAGERY_NAME]  # which is for this machine alone
    assert telling(bundle) == []
    assert telling(home / "features") == []
    assert telling(home) == [IMAGERY_NAME]


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("/home/jo/secret/scene.tif", "scene.tif"),
        ("scene.tif", "scene.tif"),
        ("/home/jo/chips/", "chips"),
        ("https://jo:key@host/a/scene.tif?sig=abc/def", "scene.tif"),
        ("/vsicurl/https://host/scene.tif?X-Token=abc", "scene.tif"),
        ("/vsizip/{/home/jo/a.zip}/inner/scene.tif", "scene.tif"),
        ("/vsizip/{/home/jo/a.zip}", "a.zip"),
        ('NETCDF:"/home/jo/cube.nc":red', "cube.nc:red"),
        ('HDF5:"/home/jo/cube.h5"://group/red', "cube.h5://group/red"),
        ('ZARR:"/vsicurl/https://host/cube.zarr?sig=abc":/red', "cube.zarr:/red"),
        ("PG:host=example.org user=jo password=key", "PG"),
        ("WMS:https://host/service?key=abc&layer=x", "service"),
        (".", "."),
    ],
)
def test_bare_names_have_no_place_and_no_key(name: str, bare: str) -> None:
    assert bare_name(name) == bare
