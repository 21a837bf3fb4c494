"""Values that cannot be reflectances are refused, whatever can be is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.scenes import write_scene

from eosfm_edge.ensemble.bands import S2_L1C, S2_L2A
from eosfm_edge.ensemble.spec import InputBand
from eosfm_edge.errors import UserError
from eosfm_edge.scene.radiometry import Doubt, Reflectances, require_plausible
from eosfm_edge.scene.reading import Radiometry
from eosfm_edge.scene.tiles import load_tiles

# First percentiles and medians, times 10000, of Sentinel-2 L1C over the coast of Virginia, without
# an offset: what tests call plausible is taken from the sky, not from the rules.
COAST = {
    "B01": (1282, 1475), "B02": (923, 1215), "B03": (633, 988), "B04": (407, 725),
    "B05": (423, 706), "B06": (299, 555), "B07": (266, 539), "B08": (217, 474),
    "B8A": (198, 443), "B09": (83, 172), "B10": (3, 11), "B11": (47, 269), "B12": (29, 177),
}  # fmt: skip
# The same of L2A over the dry land of a TerraMesh chip (38D_378R), where nothing is dark.
DRY = {
    "B01": (470, 652), "B02": (418, 758), "B03": (662, 1080), "B04": (834, 1496),
    "B05": (1342, 1921), "B06": (1669, 2317), "B07": (1875, 2550), "B08": (1892, 2612),
    "B8A": (2194, 2882), "B09": (2358, 2872), "B11": (2836, 3627), "B12": (1926, 2772),
}  # fmt: skip
# L1C of the same chip.
DRY_L1C = {
    "B02": (1007, 1223), "B03": (965, 1253), "B04": (1025, 1541), "B08": (1860, 2457),
    "B11": (2646, 3368), "B12": (1654, 2371),
}  # fmt: skip


def image(figures: dict[str, tuple[int, int]], size: int = 64, seed: int = 0) -> NDArray[Any]:
    """Return stored values with about these first percentiles and medians."""
    z = np.clip(np.random.default_rng(seed).normal(size=(size, size)), -2.5, 2.5)
    return np.stack([p50 + (p50 - p1) / 2.33 * z for p1, p50 in figures.values()]).astype("f4")


def inputs(names: Any, **values: Any) -> tuple[InputBand, ...]:
    return tuple(InputBand(name=name, **{"scale": 1e-4, **values}) for name in names)


def doubt(stored: NDArray[Any], wanted: tuple[InputBand, ...]) -> Doubt | None:
    seen = Reflectances(wanted)
    for half in np.split(stored.astype("f4"), 2, axis=1):
        seen.add(half)
    return seen.doubt()


def remedy(stored: NDArray[Any], wanted: tuple[InputBand, ...]) -> str:
    found = doubt(stored, wanted)
    assert found is not None
    return found.remedy


def of(figures: dict[str, Any]) -> tuple[InputBand, ...]:
    return inputs(figures)


@pytest.mark.parametrize("figures", [COAST, DRY, DRY_L1C])
def test_what_was_measured_is_plausible(figures: dict[str, tuple[int, int]]) -> None:
    assert doubt(image(figures), of(figures)) is None
    # The same with the offset in the data and in the ensemble.
    assert doubt(image(figures) + 1000, inputs(figures, offset=-0.1)) is None


@pytest.mark.parametrize("names", [S2_L1C, S2_L2A, ("B02", "B03", "B04", "B08", "B11", "B12")])
def test_an_offset_that_was_not_subtracted(names: tuple[str, ...]) -> None:
    figures = {name: COAST[name] for name in names}
    assert "say --offset -0.1" in remedy(image(figures) + 1000, of(figures))


def test_cirrus_says_it_alone() -> None:
    """Dry land has nothing dark but what the air hides."""
    figures = {**DRY, "B10": (3, 11)}
    assert doubt(image(figures), of(figures)) is None
    assert "say --offset -0.1" in remedy(image(figures) + 1000, of(figures))


def test_an_offset_that_was_never_added() -> None:
    found = doubt(image(COAST), inputs(COAST, offset=-0.1))
    assert found is not None and "say --offset 0" in found.remedy
    assert "B11, B12" in found.found and "B01" not in found.found
    # Less than half of the bands: dark water after atmospheric correction.
    water = {**DRY, "B11": (-300, 0), "B12": (-300, 0)}
    assert doubt(image(water), of(water)) is None


def test_a_scale_that_was_forgotten_or_one_too_many() -> None:
    assert "--scale 0.0001" in remedy(image(COAST) * 1e4, of(COAST))
    assert "--scale 1 --offset 0" in remedy(image(COAST) * 1e-4, of(COAST))
    # The ensemble's offset does not hide that there is no light.
    assert "--scale 1" in remedy(image(COAST) * 1e-4, inputs(COAST, offset=-0.1))


def test_bright_scenes_are_plausible() -> None:
    clouds = dict.fromkeys(S2_L2A, (4000, 7000))
    assert doubt(image(clouds), of(clouds)) is None
    desert = {name: (1200 + 300 * i, 1500 + 350 * i) for i, name in enumerate(S2_L2A)}
    assert doubt(image(desert), of(desert)) is None
    rgb = dict.fromkeys(("B04", "B03", "B02"), (1100, 1500))
    assert doubt(image(rgb), of(rgb)) is None


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-40, 30),
    st.floats(0.01, 300),
    st.sampled_from(
        [
            inputs(("VV", "VH"), scale=1),  # dB
            inputs(("VV", "VH"), scale=1e-3),
            inputs(("B04", "B03", "B02"), scale=1 / 255),
            tuple(InputBand(scale=1e-4) for _ in range(3)),  # who knows
            tuple(InputBand(wavelength_nm=nm, scale=1e-4) for nm in (10_900, 12_000)),
        ]
    ),
)
def test_what_is_no_reflectance_is_left_alone(
    mean: float, spread: float, wanted: tuple[InputBand, ...]
) -> None:
    z = np.random.default_rng(0).normal(size=(len(wanted), 32, 32))
    assert doubt(mean + spread * z, wanted) is None


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 10_000), st.floats(3, 3000))
def test_digital_numbers_and_standardised_values_are_left_alone(low: float, spread: float) -> None:
    wanted = inputs(S2_L1C, scale=1)
    z = np.random.default_rng(0).normal(size=(13, 32, 32))
    assert doubt(low + spread * np.abs(z), wanted) is None
    assert doubt(z, wanted) is None


def test_reflectances_as_they_are_can_have_a_wrong_offset() -> None:
    wanted = inputs(COAST, scale=1)
    assert doubt(image(COAST) * 1e-4, wanted) is None
    assert "--offset 0" in remedy(image(COAST) * 1e-4 - 0.1, wanted)
    assert "--offset -0.1" in remedy(image(COAST) * 1e-4 + 0.1, wanted)


def test_wavelengths_and_other_spellings_are_known() -> None:
    wanted = tuple(InputBand(wavelength_nm=nm, scale=1e-4) for nm in (560, 1375, 2200))
    three = {name: COAST[name] for name in ("B03", "B10", "B12")}
    assert "--offset -0.1" in remedy(image(three) + 1000, wanted)
    assert "--offset -0.1" in remedy(image(three) + 1000, inputs(("green", "b10", "b12")))


def test_nothing_seen_is_nothing_wrong() -> None:
    assert Reflectances(of(COAST)).doubt() is None


def test_one_of_many_chips_may_be_a_freak() -> None:
    one = ("3.tif", Doubt("is odd", "even", "say so"))
    require_plausible("chips", [one], 10)
    require_plausible("chips", [], 0)
    with pytest.raises(UserError, match="read as declared, is odd") as error:
        require_plausible("chips", [one, one], 10)
    assert "and so with 1 more of 10 of chips" in str(error.value)
    assert "a manifest says it of some files" in str(error.value)
    with pytest.raises(UserError) as error:
        require_plausible("scene", [one], 1)
    assert "manifest" not in str(error.value)


def test_a_scene_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    """Read as declared; the options that the message names are those that mend it."""
    wanted = inputs(COAST)
    new = write_scene(tmp_path / "new.tif", (image(COAST, 128) + 1000).astype("u2"), S2_L1C)
    with pytest.raises(UserError, match=r"say --offset -0\.1"):
        load_tiles([new], wanted, 32, 4, 0)
    tiles = load_tiles([new], wanted, 32, 4, 0, radiometry=Radiometry(offset=-0.1))
    old = write_scene(tmp_path / "old.tif", image(COAST, 128).astype("u2"), S2_L1C)
    assert load_tiles([old], wanted, 32, 4, 0).calibration[0].shape == (13, 32, 32)
    assert all(tile.min() < 100 for tile in tiles.calibration)
    with pytest.raises(UserError, match="say --offset 0"):
        load_tiles([old], wanted, 32, 4, 0, radiometry=Radiometry(offset=-0.1))
    with pytest.raises(UserError, match=r"--scale 0\.0001"):
        load_tiles([old], wanted, 32, 4, 0, radiometry=Radiometry(scale=1))
