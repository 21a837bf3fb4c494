"""Names, wavelengths, and when two bands are the same."""

from __future__ import annotations

import pytest

from eosfm_edge.errors import UserError
from eosfm_edge.formats.bands import Band, canonical, find, parse_bands


@pytest.mark.parametrize(
    ("written", "meant"),
    [("B4", "B04"), ("b04", "B04"), ("red", "B04"), ("b8a", "B8A"), ("B08A", "B8A"), ("vv", "VV")],
)
def test_names_have_one_spelling(written: str, meant: str) -> None:
    assert canonical(written) == meant


def test_a_preset_a_list_and_wavelengths_are_read() -> None:
    assert [str(band) for band in parse_bands("s2l2a")][-3:] == ["B09", "B11", "B12"]
    assert parse_bands("B4, b3") == (Band(name="B04"), Band(name="B03"))
    assert parse_bands("665nm,559.8 nm")[1] == Band(wavelength_nm=559.8)


@pytest.mark.parametrize("text", ["", "B04,,B03", "B04,B4", "0nm", f"1{'0' * 400}nm"])
def test_an_empty_repeated_or_impossible_band_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_bands(text)


@pytest.mark.parametrize("text", ["S2L1D", "s2l1", "S2-L1C", "S2", "RGB+S1", "Sentinel-2 L2A"])
def test_what_looks_like_a_preset_is_no_band(text: str) -> None:
    with pytest.raises(UserError, match="is no preset") as error:
        parse_bands(text)
    assert "S2L1C, S1S2L2A" in str(error.value)


@pytest.mark.parametrize("text", ["VV", "B10", "red", "PAN", "HH", "SWIR", "665nm", "B04,S2"])
def test_a_band_that_stands_alone_is_a_band(text: str) -> None:
    assert parse_bands(text)


def test_a_wavelength_finds_the_nearest_band_within_half_a_bandwidth() -> None:
    # Landsat 8: blue, green, red, near infrared
    landsat = [Band(wavelength_nm=nm) for nm in (482, 561, 655, 865)]
    assert find(Band(name="B04"), landsat) == 2  # 664.6 +- 15.5 nm
    assert find(Band(name="B08"), landsat) == 3  # 832.8 +- 53 nm
    assert find(Band(name="B8A"), landsat) == 3  # 864.7 +- 10.5 nm
    assert find(Band(name="B05"), landsat) is None  # 704.1 +- 7.5 nm
    assert find(Band(wavelength_nm=860), landsat) == 3


def test_half_a_bandwidth_is_where_a_band_ends() -> None:
    # B04 is 664.6 +- 15.5 nm.
    assert find(Band(name="B04"), [Band(wavelength_nm=680)]) == 0
    assert find(Band(name="B04"), [Band(wavelength_nm=681)]) is None


def test_of_two_bands_within_the_nearer_is_taken() -> None:
    assert find(Band(name="B04"), [Band(wavelength_nm=675), Band(wavelength_nm=663)]) == 1


def test_a_wavelength_counts_more_than_a_name_that_clashes() -> None:
    # Landsat calls its near infrared B5, which is red edge on Sentinel-2.
    landsat = [Band(name="B05", wavelength_nm=865)]
    assert find(Band(name="B05"), landsat) is None
    assert find(Band(name="B8A"), landsat) == 0


def test_a_wavelength_finds_a_band_known_by_name() -> None:
    assert find(Band(wavelength_nm=660), [Band(name="B03"), Band(name="B04")]) == 1
    assert find(Band(wavelength_nm=5000), [Band(name="B03"), Band(name="VV")]) is None


def test_radar_goes_by_name() -> None:
    assert find(Band(name="VH"), [Band(name="B04"), Band(name="VH")]) == 1
    assert find(Band(name="VH"), [Band(name="B04")]) is None
