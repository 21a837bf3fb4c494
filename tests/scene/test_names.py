"""Bands by descriptions and file names, and the meaning of numbers on each sensor."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm_edge.formats.bands import COMMON_NAMES, S1, SENTINEL_2, Band, find, nearest
from eosfm_edge.scene.names import (
    Label,
    is_unexplained,
    meanings,
    order_of,
    read_description,
    read_file_name,
)
from eosfm_edge.scene.sensors import SENSORS, Sensor, sensor_of

# Names of products of each sensor, as their agencies and catalogues give them.
PRODUCTS = {
    "Sentinel-2": (
        "S2A_MSIL1C_20200316T155021_N0209_R054_T18SUG_20200316T192003",
        "T18SUG_20200316T155021",
        "S2A_OPER_MSI_L1C_TL_EPA__20150924T104714_A000634_T32TQR",
        "HLS.S30.T18SUJ.2020158T154000.v2.0",
        "sentinel-2_summer",
    ),
    "Landsat 8-9": (
        "LC08_L1TP_016034_20200606_20200825_02_T1",
        "LC09_L2SP_016034_20220606_20220608_02_T1_SR",
        "LO08_L1TP_016034_20200606_20200825_02_T1",
        "LC80160342014158LGN00",
        "landsat8",
    ),
    "Landsat 7": (
        "LE07_L2SP_016034_20010606_20200917_02_T1_SR",
        "LE70160342001157EDC00",
        "Landsat-7",
    ),
    "Landsat 4-5 TM": ("LT05_L2SP_016034_19990606_20200907_02_T1_SR", "LT50160341999157AAA01"),
    "Landsat 4-5 MSS": ("LM05_L1TP_016034_19840606_20200831_02_T2",),
    "Landsat 1-3": ("LM02_L1TP_016034_19750606_20200831_02_T2",),
    "HLS L30": ("HLS.L30.T18SUJ.2020158T154000.v2.0", "HLSL30.020"),
    "MODIS": ("MOD09GA.A2020158.h11v05.006_sur_refl", "MCD43A4.A2020158"),
    "NAIP": ("m_4709963_se_14_1_20090818",),
    "PlanetScope": ("20200616_153325_1034_3B_AnalyticMS_SR",),
}
CENTRES = {
    "coastal": (425, 450), "blue": (450, 510), "green": (525, 590), "red": (625, 690),
    "nir": (750, 900), "nir08": (750, 900), "cirrus": (1360, 1390), "swir16": (1550, 1750),
    "swir22": (2050, 2350), "lwir": (10000, 12600), "lwir11": (10400, 11300),
    "lwir12": (11400, 12600), "pan": (450, 900),
}  # fmt: skip


def descriptions(*texts: str) -> list[Band]:
    return meanings([read_description(text) for text in texts])


def files(*stems: str, folder: str = "") -> list[Band]:
    return meanings([read_file_name(stem) for stem in stems], folder)


def finds(name: str, bands: Sequence[Band]) -> int | None:
    return find(Band(name=name), bands)


# ---- The table of sensors ----


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda sensor: sensor.title)
def test_product_names_say_their_sensor_and_no_other(sensor: Sensor) -> None:
    for product in PRODUCTS[sensor.title]:
        assert [one.title for one in SENSORS if one.named_in(product)] == [sensor.title]
        assert sensor_of(product.upper()) is sensor_of(product.lower()) is sensor


@pytest.mark.parametrize(
    "text",
    ["scene", "given", "LC08", "m_470", "s20", "plots2b", "xLC08_", "T18SUG", "landsat", "hls"],
)
def test_other_names_say_no_sensor(text: str) -> None:
    assert sensor_of(text) is None


def test_a_name_of_two_sensors_says_none() -> None:
    assert sensor_of("landsat8_on_sentinel2_grid") is None


@pytest.mark.parametrize("sensor", SENSORS, ids=lambda sensor: sensor.title)
def test_each_response_is_where_its_common_name_says(sensor: Sensor) -> None:
    """Ranges of STAC's common names, so that a slip of a digit in the table shows."""
    for response in filter(None, sensor.bands.values()):
        assert 0 < response.first < response.last
        if response.common:
            low, high = CENTRES[response.common]
            assert low <= (response.first + response.last) / 2 <= high


STYLES = ("{p}_B{n}", "{p}_B{n:0>2}", "{p}.B{n:0>2}", "{p}_b{n}", "{p}_SR_B{n}", "{p}_sr_band{n}",
          "{p}_B{n}_30m", "{p}-band-{n}")  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sensor", [s for s in SENSORS if s.bands], ids=lambda s: s.title)
def test_numbers_are_read_in_every_style(sensor: Sensor, style: str) -> None:
    for product in PRODUCTS[sensor.title]:
        stems = [style.format(p=product, n=number[1:]) for number in sensor.bands]
        assert files(*stems) == [sensor.band(number) for number in sensor.bands]
        bare = [style.format(p="x", n=number[1:]) for number in sensor.bands]
        assert files(*bare, folder=product) == files(*stems)


@pytest.mark.parametrize("sensor", [s for s in SENSORS if s.bands], ids=lambda s: s.title)
def test_no_band_is_taken_for_one_of_another_kind(sensor: Sensor) -> None:
    """A thermal band is no short-wave infrared, a panchromatic one no colour."""
    for number in sensor.bands:
        band, response = sensor.band(number), sensor.bands[number]
        assert band is not None
        for name, (centre, width) in SENTINEL_2.items():
            if response is None:
                assert (finds(name, [band]) == 0) == (band.name == name)
            elif finds(name, [band]) == 0:
                assert abs((response.first + response.last) / 2 - centre) <= width / 2
                assert response.last - response.first <= 300
        for nm in (485, 560, 590, 660, 710, 830, 865, 1610, 2200):
            if response and response.common == "pan":
                assert find(Band(wavelength_nm=nm), [band]) is None
            if response and (response.common or "").startswith("lwir"):
                assert find(Band(wavelength_nm=nm), [band]) is None


# ---- The cases that went wrong ----


def test_a_landsat_8_folder_has_its_own_numbers() -> None:
    product = PRODUCTS["Landsat 8-9"][0]
    numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    bands = files(*(f"{product}_B{number}" for number in numbers))
    found = {name: finds(name, bands) for name in SENTINEL_2}
    assert {name: numbers[i] for name, i in found.items() if i is not None} == {
        "B01": 1, "B02": 2, "B03": 3, "B04": 4, "B08": 5, "B8A": 5, "B10": 9, "B11": 6, "B12": 7,
    }  # fmt: skip
    assert find(Band(wavelength_nm=1609), bands) == 5
    assert finds("PAN", bands) == 7 and finds("LWIR11", bands) == 9


def test_an_hls_l30_folder_has_landsats_numbers() -> None:
    bands = files(*(f"{PRODUCTS['HLS L30'][0]}.B{n:02d}" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)))
    assert [finds(name, bands) for name in ("B04", "B08", "B05", "B11")] == [3, 4, None, 5]


@pytest.mark.parametrize(
    "texts",
    [("B1", "B2", "B3", "B4", "B5", "B7"), ("b1", "b2", "b3", "b4"), ("B4", "B3", "B2"), ("B8",),
     ("B10",), ("band 4", "band 3"), tuple(f"B{number}" for number in range(1, 12))],
)  # fmt: skip
def test_numbers_of_several_sensors_stay_unexplained(texts: Sequence[str]) -> None:
    bands = descriptions(*texts)
    assert all(map(is_unexplained, bands))
    assert not any(finds(name, bands) is not None for name in SENTINEL_2)


def test_numbers_that_one_sensor_has_are_its() -> None:
    assert descriptions("B4", "B8A") == [Band(name="B04"), Band(name="B8A")]
    assert descriptions("B11", "B12") == [Band(name="B11"), Band(name="B12")]
    assert descriptions("B02", "B03") == [Band(name="B02"), Band(name="B03")]
    bands = descriptions(*(f"B{number}" for number in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)), "BQA")
    assert [finds(name, bands) for name in ("B08", "B11", "B05")] == [4, 5, None]


def test_names_that_only_count_are_no_numbers_even_of_a_known_sensor() -> None:
    """A stack of four of Sentinel-2's bands is often called b1 to b4."""
    labels = [read_description(f"b{number}") for number in (1, 2, 3, 4)]
    assert all(map(is_unexplained, meanings(labels, "S2A_MSIL2A_x")))
    labels = [read_description(f"B{number}") for number in (1, 2, 3, 4, 5, 6, 7)]
    assert finds("B04", meanings(labels, PRODUCTS["Landsat 8-9"][0])) == 3


def test_padded_numbers_are_sentinel_2s_even_if_they_count() -> None:
    assert descriptions("B01", "B02", "B03") == [Band(name=f"B0{number}") for number in (1, 2, 3)]


def test_control_characters_of_a_description_do_not_reach_a_name() -> None:
    (band,) = descriptions("\x1b[31mheight\x07")
    assert band.name == "?[31MHEIGHT?"


def test_what_no_sensor_has_is_a_name_of_its_own() -> None:
    assert descriptions("B17", "height") == [Band(name="B17"), Band(name="HEIGHT")]


# ---- Descriptions and file names ----


@pytest.mark.parametrize(
    ("text", "name", "wavelength"),
    [
        ("VV_dB", "VV", None), ("Sigma0_VH_db", "VH", None), ("nir08", "B8A", None),
        ("B4, central wavelength 665 nm", "B04", 665), ("665nm", None, 665),
        ("665.2 Nanometers", None, 665.2), ("0.665 um", None, 665), ("1.61 \u00b5m", None, 1610),
        ("B04_10m", "B04", None), ("Red", "B04", None), ("R", "B04", None),
        ("SWIR 1", "B11", None), ("near infrared", "B08", None), ("Red (665 nm)", "B04", 665),
        ("red_reflectance", "B04", None), ("B5 865 nm", "B05", 865), ("rededge2", "B06", None),
    ],
)  # fmt: skip
def test_descriptions_are_read(text: str, name: str | None, wavelength: float | None) -> None:
    (band,) = descriptions(text)
    assert band.name == name
    assert band.wavelength_nm == pytest.approx(wavelength)


@pytest.mark.parametrize(
    "text",
    ["Red Edge", "Green I", "B04 mask", "QA", "VV/VH", "B8-B4", "B04_std", "cloud mask B02",
     "infra red", "blue and green", "0 nm", "sun azimuth B03", "coh_VV", "Phase_VH"],
)  # fmt: skip
def test_what_is_not_a_band_is_not_read_as_one(text: str) -> None:
    bands = descriptions(text)
    assert not any(finds(name, bands) == 0 for name in (*SENTINEL_2, *S1))


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("T18SUG_20200316T155021_B04_10m", "B04"), ("x_B8A", "B8A"), ("nir08", "B8A"),
        ("scene_red", "B04"), ("s1a-iw-grd-vv-20200101t000000-001", "VV"),
        ("x_coastal_blue", "B01"), ("x.swir16", "B11"), ("B04", "B04"), ("R", None),
        ("x_B04_nir", None),
        ("near_infra_red", None), ("x_red_edge", None), ("x_B04_B03", None),
        ("MSK_DETFOO_B04", None), ("plot_b", None), ("plot_b_12", None), ("Fred", None),
        ("redwood", None), ("red_river", None),
    ],
)  # fmt: skip
def test_file_names_are_read(stem: str, name: str | None) -> None:
    bands = files(stem)
    found = [band for band in (*SENTINEL_2, *S1) if finds(band, bands) == 0]
    assert found == ([name] if name else [])


def test_bands_without_names_have_their_sensors_order() -> None:
    labels = [Label()] * 4
    assert order_of(labels, PRODUCTS["NAIP"][0]) == [
        Band(name=name) for name in ("B04", "B03", "B02", "B08")
    ]
    assert order_of(labels, PRODUCTS["PlanetScope"][0]) == [
        Band(name=name) for name in ("B02", "B03", "B04", "B08")
    ]
    assert order_of(labels, "scene") is None
    assert order_of(labels[:3], PRODUCTS["NAIP"][0]) is None
    assert order_of([read_description("red"), *labels[:3]], PRODUCTS["NAIP"][0]) is None


# ---- Whatever is written ----

WORDS = st.sampled_from([
    *COMMON_NAMES, "VV", "VH", "dB", "B4", "B04", "b8a", "B8", "B10", "band", "SR", "665nm",
    "865 nm", "10m", "mask", "QA", "central wavelength", "Sigma0", "S2", "LC08", "HLS.L30", "BQA",
    "1", "12",
])  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda words, join: join.join(words),
        st.lists(WORDS, max_size=5),
        st.sampled_from([" ", "_", "-", ".", ", ", "/"]),
    ),
)


@given(st.lists(TEXTS, max_size=14), st.lists(TEXTS, max_size=2), st.booleans())
def test_no_text_crashes_or_makes_two_of_one(
    texts: list[str], places: list[str], stems: bool
) -> None:
    """A wanted band is found once, or all that it could be is given so that it can be refused."""
    labels = [(read_file_name if stems else read_description)(text) for text in texts]
    bands = meanings(labels, *places)
    assert len(bands) == len(labels)
    for band, label in zip(bands, labels, strict=True):
        assert band.known or not label.text.strip()
    for name in (*SENTINEL_2, *S1):
        found = nearest(Band(name=name), bands)
        same = [i for i, band in enumerate(bands) if band.name == name and not band.wavelength_nm]
        assert set(same) <= set(found)
        for i in found:  # what is found was said, and of the same kind
            assert labels[i].says_band
            if bands[i].wavelength_nm and name in SENTINEL_2:
                assert abs(bands[i].wavelength_nm - SENTINEL_2[name][0]) <= SENTINEL_2[name][1] / 2


@given(TEXTS)
def test_spelling_of_letters_does_not_count(text: str) -> None:
    if text.isascii():
        for read in (read_description, read_file_name):
            one, other = read(text.upper()), read(text.lower())
            assert (one.number, one.word, one.wavelength_nm) == (
                other.number, other.word, other.wavelength_nm,
            )  # fmt: skip
