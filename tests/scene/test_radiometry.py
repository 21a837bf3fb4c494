"""Values that cannot be what they are read as are refused; whatever can be is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.scenes import write_scene

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import S2_L1C, S2_L2A
from eosfm_edge.formats.ensemble import InputBand
from eosfm_edge.scene.radiometry import Doubt, Values, require_plausible, require_plausible_scene
from eosfm_edge.scene.reading import Declared, Radiometry
from eosfm_edge.scene.scene import open_scene
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


def doubt(
    stored: NDArray[Any],
    wanted: tuple[InputBand, ...],
    dtype: str = "uint16",
    scale: float | None = None,
    offset: float | None = None,
    tagged: bool = False,
) -> Doubt | None:
    """Return the doubt of values as a file stores them; its scale and offset are the input's."""
    declared = [
        Declared(
            band,
            dtype,
            band.scale if scale is None else scale,
            band.offset if offset is None else offset,
            tagged,
        )
        for band in wanted
    ]
    seen = Values(declared)
    physical = [x * one.scale + one.offset for x, one in zip(stored, declared, strict=True)]
    given = [(x - band.offset) / band.scale for x, band in zip(physical, wanted, strict=True)]
    for half in np.split(np.stack(given).astype("f4"), 2, axis=1):
        seen.add(half)
    return seen.doubt()


def remedy(stored: NDArray[Any], wanted: tuple[InputBand, ...], **options: Any) -> str:
    found = doubt(stored, wanted, **options)
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
    assert "pass --offset -0.1" in remedy(image(figures) + 1000, of(figures))


def test_cirrus_says_it_alone() -> None:
    """Dry land has nothing dark but what the air hides."""
    figures = {**DRY, "B10": (3, 11)}
    assert doubt(image(figures), of(figures)) is None
    assert "pass --offset -0.1" in remedy(image(figures) + 1000, of(figures))


def test_an_even_landscape_shows_an_offset_by_its_cirrus() -> None:
    """Few pixels are dark, in any band."""
    even = dict.fromkeys(S2_L1C, (600, 2100))
    assert "pass --offset -0.1" in remedy(image(even) + 1000, of(even))
    assert doubt(image(even), of(even)) is None
    # Under a deck of high clouds nothing is dark either, and most bands are bright.
    overcast = {**dict.fromkeys(S2_L1C, (3500, 6000)), "B10": (1600, 3000)}
    assert doubt(image(overcast), of(overcast)) is None


def test_an_offset_that_was_never_added() -> None:
    found = doubt(image(COAST), inputs(COAST, offset=-0.1))
    assert found is not None and "pass --offset 0" in found.remedy
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
    snow = {"B04": (8800, 9600), "B03": (8900, 9700), "B02": (9000, 9800)}
    assert doubt(image(snow), of(snow)) is None


def test_landsats_numbers_are_not_sentinel_2s() -> None:
    """Level 1 stores 0.1 + reflectance in steps of 0.00002, level 2 0.2 in steps of 0.0000275."""
    visible = ("B04", "B03", "B02")
    for names, figures in ((visible, DRY), (("B04", "B08", "B11"), COAST)):
        light = image({name: figures[name] for name in names}) * 1e-4
        for step, zero in ((2e-5, 0.1), (2.75e-5, 0.2)):
            numbers = (light + zero) / step
            assert "--scale 0.00002 --offset -0.1" in remedy(numbers, inputs(names))
            assert doubt(numbers, inputs(names), scale=step, offset=-zero) is None
            # The options reach an ensemble that takes Landsat's numbers, too.
            assert doubt(numbers, inputs(names, scale=step, offset=-zero)) is None


PICTURE = image({"B04": (60, 110), "B03": (50, 110), "B02": (40, 100)}).clip(1, 255)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_picture_of_8_bits_is_not_of_sixteen(dtype: str) -> None:
    rgb = inputs(("B04", "B03", "B02"))
    assert "--scale 0.00392157 --offset 0" in remedy(PICTURE, rgb, dtype=dtype)
    assert doubt(PICTURE, rgb, dtype=dtype, scale=1 / 255, offset=0) is None
    assert doubt(PICTURE, inputs(("B04", "B03", "B02"), scale=1 / 255), dtype=dtype) is None
    # Read by the scale 1, it is a reflectance of 100.
    assert "--scale 0.00392157" in remedy(PICTURE, rgb, dtype=dtype, scale=1, offset=0)


def test_a_dark_picture_of_8_bits_is_known_by_its_type() -> None:
    rgb = inputs(("B04", "B03", "B02"))
    night = (PICTURE * 0.2).round()
    assert "8-bit step" in remedy(night, rgb, dtype="uint8")
    # Open water has such reflectances too: 16 bits are believed.
    assert doubt(night, rgb) is None


def test_numbers_are_not_a_picture() -> None:
    """An ensemble of 8-bit pictures is given stored reflectances, of whole numbers and not."""
    rgb = inputs(("B04", "B03", "B02"), scale=1 / 255)
    light = image({name: COAST[name] for name in ("B04", "B03", "B02")})
    assert "--scale 0.0001" in remedy(light, rgb)
    assert doubt(light, rgb, scale=1e-4) is None
    assert "--scale 1 --offset 0" in remedy(light * 1e-4, rgb, dtype="float32")
    assert doubt(light * 1e-4, rgb, dtype="float32", scale=1) is None


def test_a_scale_tag_that_holds_no_longer_is_named() -> None:
    found = doubt(image(COAST) * 1e-4, of(COAST), dtype="float32", tagged=True)
    assert found is not None
    assert "scale tag of 0.0001" in found.found
    assert "--scale 1 --offset 0, whatever the tag says" in found.remedy
    assert doubt(image(COAST), of(COAST), tagged=True) is None
    untagged = doubt(image(COAST) * 1e-4, of(COAST), dtype="float32")
    assert untagged is not None and "tag" not in untagged.found + untagged.remedy


def test_a_nodata_value_that_nobody_stated_is_named() -> None:
    pixels = image(COAST)
    pixels[:, :, :10] = -9999
    assert "--nodata -9999" in remedy(pixels, of(COAST), dtype="int16")
    pixels[:, :, :10] = -3.4028234663852886e38 * 1e-5  # what is left of it in stored values
    assert "--nodata -3.40282" in remedy(pixels, of(COAST), dtype="float32")
    radar = np.stack([image({"VV": (-15, -10)})[0]] * 2)
    assert doubt(radar, inputs(("VV", "VH"), scale=1)) is None
    radar[:, :, :10] = -9999
    assert "--nodata -9999" in remedy(radar, inputs(("VV", "VH"), scale=1))


def test_a_fill_that_an_offset_makes_negative_is_named() -> None:
    """Landsat's 0 is no data; --offset 0 would not mend that."""
    rgb = ("B04", "B03", "B02")
    numbers = (image({name: COAST[name] for name in rgb}) * 1e-4 + 0.1) / 2e-5
    landsat: Any = {"scale": 2e-5, "offset": -0.1}
    assert doubt(numbers, inputs(rgb), **landsat) is None
    numbers[:, :, :10] = 0
    told = remedy(numbers, inputs(rgb), **landsat)
    assert told.startswith("if it stands for no data, pass --nodata 0;")
    # Control: an offset too many, without a fill.
    assert "nodata" not in remedy(image(COAST), inputs(COAST, offset=-0.1))


def test_linear_power_and_amplitude_are_not_decibels() -> None:
    radar = inputs(("VV", "VH"), scale=1)
    decibels = np.stack([image({"VV": (-16, -9)}, seed=1)[0], image({"VH": (-24, -16)}, seed=2)[0]])
    assert doubt(decibels, radar, dtype="float32") is None
    power = 10 ** (decibels / 10)
    for linear in (power, np.sqrt(power), np.sqrt(power) * 1000):
        assert "dB" in remedy(linear, radar, dtype="float32")
    assert "--scale 0.01" in remedy(decibels * 100, radar, dtype="int16")
    assert doubt(decibels * 100, radar, dtype="int16", scale=0.01) is None
    assert doubt(decibels * 100, inputs(("VV", "VH"), scale=0.01), dtype="int16") is None
    # Backscatter beside reflectances is looked at alone, and so are they.
    both = inputs(("B04", "B03")) + inputs(("VV", "VH"), scale=1)
    light = image({name: COAST[name] for name in ("B04", "B03")})
    assert doubt(np.concatenate([light, decibels]), both) is None
    assert "dB" in remedy(np.concatenate([light, power]), both)
    assert "--scale 0.0001" in remedy(np.concatenate([light * 1e4, decibels]), both)


def standardised(names: Any, mean: float, std: float, **values: Any) -> tuple[InputBand, ...]:
    return inputs(names, mean=mean, std=std, **values)


def test_standardised_values_are_looked_at_in_their_own_unit() -> None:
    """The numbers that they are of, or reflectances, where the ensemble says so."""
    names = ("B04", "B03", "B02")
    numbers = image({name: COAST[name] for name in names})
    light = numbers * 1e-4
    of_numbers = standardised(names, 1000, 300, scale=1)
    assert doubt(numbers, of_numbers) is None
    assert "--scale 10000 --offset 0" in remedy(light, of_numbers, dtype="float32")
    assert doubt(light, of_numbers, dtype="float32", scale=1e4) is None
    of_light = standardised(names, 0.1, 0.03, scale=1)
    assert doubt(light, of_light, dtype="float32") is None
    assert "--scale 0.0001 --offset 0" in remedy(numbers, of_light)
    assert doubt(numbers, of_light, scale=1e-4) is None
    # With a scale, physical values are reflectances, and offsets can be seen.
    whole = standardised(COAST, 1000, 300)
    assert doubt(image(COAST), whole) is None
    assert "--offset -0.1" in remedy(image(COAST) + 1000, whole)
    assert doubt(image(COAST) + 1000, whole, offset=-0.1) is None


def test_what_the_ensemble_declares_of_radar_is_believed() -> None:
    decibels = np.stack([image({"VV": (-16, -9)}, seed=1)[0], image({"VH": (-24, -16)}, seed=2)[0]])
    power = 10 ** (decibels / 10)
    assert doubt(decibels, standardised(("VV", "VH"), -12, 5, scale=1)) is None
    assert "dB" in remedy(power, standardised(("VV", "VH"), -12, 5, scale=1))
    assert doubt(power, standardised(("VV", "VH"), 0.1, 0.05, scale=1)) is None


def test_a_scale_that_standardises_is_no_unit() -> None:
    """Neither a file's own scale nor an option can be converted to it."""
    folded = inputs(("B04", "B03", "B02"), scale=1 / 300, offset=-1000 / 300)
    numbers = image({name: COAST[name] for name in ("B04", "B03", "B02")})
    assert doubt(numbers, folded) is None
    for options in ({"scale": 1e-4, "offset": 0.0}, {"offset": 0.0}):
        told = remedy(numbers, folded, **options)
        assert "--mean and --std" in told and "--offset 0" not in told


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-40, 30),
    st.floats(0.01, 300),
    st.sampled_from(
        [
            inputs(("VV", "VH"), scale=0.04, offset=1),  # dB brought to 0 ... 1
            inputs(("elevation",), scale=1),
            inputs(("B04", "B03"), scale=0.004, offset=-5.5),  # standardised
            tuple(InputBand(scale=1e-4) for _ in range(3)),  # who knows
            tuple(InputBand(wavelength_nm=nm, scale=1e-4) for nm in (10_900, 12_000)),
        ]
    ),
)
def test_other_quantities_are_left_alone(
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
    for error, mended in ((-0.1, "--offset 0.1"), (0.1, "--offset -0.1")):
        light = image(COAST) * 1e-4 + error
        assert mended in remedy(light, wanted)
        assert doubt(light, wanted, offset=-error) is None


def test_wavelengths_and_other_spellings_are_known() -> None:
    wanted = tuple(InputBand(wavelength_nm=nm, scale=1e-4) for nm in (560, 1375, 2200))
    three = {name: COAST[name] for name in ("B03", "B10", "B12")}
    assert "--offset -0.1" in remedy(image(three) + 1000, wanted)
    assert "--offset -0.1" in remedy(image(three) + 1000, inputs(("green", "b10", "b12")))


def test_nothing_seen_is_nothing_wrong() -> None:
    assert Values([Declared(band, "uint16", 1e-4, 0) for band in of(COAST)]).doubt() is None


def test_one_of_many_chips_may_be_a_freak() -> None:
    one = ("3.tif", Doubt("is odd", "even", "say so"))
    require_plausible("chips", [one], 10)
    require_plausible("chips", [], 0)
    with pytest.raises(UserError, match="read as declared, is odd") as error:
        require_plausible("chips", [one, one], 10)
    assert "and so with 1 more of 10 of chips" in str(error.value)
    assert "a manifest says it of some files" in str(error.value)
    assert "--trust-values" in str(error.value)
    with pytest.raises(UserError) as error:
        require_plausible("scene", [one], 1)
    assert "manifest" not in str(error.value)


def test_a_scene_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    """Read as declared; the options that the message names are those that mend it."""
    wanted = inputs(COAST)
    new = write_scene(tmp_path / "new.tif", (image(COAST, 128) + 1000).astype("u2"), S2_L1C)
    with pytest.raises(UserError, match=r"pass --offset -0\.1"):
        load_tiles([new], wanted, 32, 4, 0)
    tiles = load_tiles([new], wanted, 32, 4, 0, radiometry=Radiometry(offset=-0.1))
    old = write_scene(tmp_path / "old.tif", image(COAST, 128).astype("u2"), S2_L1C)
    assert load_tiles([old], wanted, 32, 4, 0).calibration[0].shape == (13, 32, 32)
    assert all(tile.min() < 100 for tile in tiles.calibration)
    with pytest.raises(UserError, match="pass --offset 0"):
        load_tiles([old], wanted, 32, 4, 0, radiometry=Radiometry(offset=-0.1))
    with pytest.raises(UserError, match=r"--scale 0\.0001"):
        load_tiles([old], wanted, 32, 4, 0, radiometry=Radiometry(scale=1))


def test_values_that_are_trusted_are_taken(tmp_path: Path) -> None:
    new = write_scene(tmp_path / "new.tif", (image(COAST, 128) + 1000).astype("u2"), S2_L1C)
    trusted = Radiometry(trusted=True)
    assert load_tiles([new], of(COAST), 32, 4, 0, radiometry=trusted).calibration
    with open_scene(new, of(COAST), radiometry=trusted) as scene:
        require_plausible_scene(scene)
    with open_scene(new, of(COAST)) as scene, pytest.raises(UserError, match="--trust-values"):
        require_plausible_scene(scene)


@pytest.mark.parametrize(("size", "overviews"), [(200, False), (2100, False), (2100, True)])
def test_a_scene_is_sampled_all_over_without_reading_it_all(
    tmp_path: Path, size: int, overviews: bool
) -> None:
    """The left half is offset, the right half is not: what is dark decides."""
    pixels = np.full((1, size, size), 1100, np.uint16)
    pixels[:, :, size // 2 :] = 100
    pixels[:, : size // 2, : size // 2] = 0
    path = write_scene(tmp_path / "s.tif", pixels, ["B12"], nodata=0)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4, 8, 16])
    with open_scene(path, inputs(["B12"])) as scene:
        image, valid = scene.sample()
    assert image.shape[1:] == valid.shape and valid.size <= 192 * 192
    assert valid.mean() == pytest.approx(0.75, abs=0.02)
    assert set(np.unique(image[0][valid])) == {100, 1100}
    assert np.mean(image[0][valid] == 100) == pytest.approx(2 / 3, abs=0.02)
