"""Band adaptation: every rule of the reference written out, and what names add to them."""

from __future__ import annotations

import pytest

from eosfm_edge.formats.adaptation import feature_sets
from eosfm_edge.formats.bands import S2_L1C, S2_L2A, Band

Sets = tuple[tuple[int, ...], ...]

# (bands wanted, bands of the input): what is taken, as EoS-FM's table has it
REFERENCE: dict[tuple[int, int], Sets] = {
    (3, 12): ((3, 2, 1),),
    (3, 13): ((3, 2, 1), (7, 3, 2)),
    (3, 2): ((0, 1, 1),),
    (3, 14): ((5, 4, 3),),
    (3, 4): ((3, 0, 1), (0, 1, 2)),
    (3, 5): ((0, 1, 2), (3, 4, 4)),
    (12, 14): ((2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13),),
    (2, 14): ((0, 1),),
    (12, 3): ((0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2),),
    (12, 4): ((0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3),),
    (12, 2): ((0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1),),
    (13, 3): ((0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0),),
    (13, 4): ((0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0),),
    (13, 2): ((0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0),),
    (14, 3): ((0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1),),
    (14, 4): ((0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1),),
    (14, 2): ((0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1),),
}

NAMES = {
    2: ("VV", "VH"),
    3: ("B04", "B03", "B02"),
    4: ("B04", "B03", "B02", "B08"),
    5: ("B04", "B03", "B02", "VV", "VH"),
    12: S2_L2A,
    13: S2_L1C,
    14: ("VV", "VH", *S2_L2A),
}


def unknown(count: int) -> list[Band]:
    return [Band() for _ in range(count)]


def named(*names: str) -> list[Band]:
    return [Band(name=name) for name in names]


@pytest.mark.parametrize("wanted", range(1, 16))
@pytest.mark.parametrize("available", range(1, 16))
def test_counts_follow_the_reference(wanted: int, available: int) -> None:
    same: Sets = (tuple(range(wanted)),)
    expected = same if wanted == available else REFERENCE.get((wanted, available), ())
    assert feature_sets(unknown(wanted), unknown(available)) == expected


@pytest.mark.parametrize(("counts", "expected"), REFERENCE.items())
def test_names_of_the_reference_inputs_give_the_same(
    counts: tuple[int, int], expected: Sets
) -> None:
    wanted, available = counts
    assert feature_sets(named(*NAMES[wanted]), named(*NAMES[available])) == expected


@pytest.mark.parametrize("wanted", NAMES)
@pytest.mark.parametrize("available", NAMES)
def test_by_count_names_are_not_looked_at(wanted: int, available: int) -> None:
    expected = feature_sets(unknown(wanted), unknown(available))
    named_sets = feature_sets(named(*NAMES[wanted]), named(*NAMES[available]), "count")
    assert named_sets == expected


def test_one_band_of_unknown_name_makes_it_a_matter_of_counts() -> None:
    assert feature_sets(named(*NAMES[3]), unknown(13)) == ((3, 2, 1), (7, 3, 2))


def test_names_are_found_wherever_they_stand() -> None:
    # Another common order has B8A last.
    b8a_last = named(*[name for name in S2_L1C if name != "B8A"], "B8A")
    own, *more = feature_sets(named(*S2_L1C), b8a_last)
    assert own == (0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 9, 10, 11)
    assert more == []


def test_rules_look_their_bands_up_by_name() -> None:
    blue_first = named("B02", "B03", "B04", "B08")
    # By count this would be infrared, blue, green.
    assert feature_sets(named("B04", "B03", "B02"), blue_first) == ((3, 2, 1), (2, 1, 0))


def test_a_specialist_runs_where_all_its_bands_are() -> None:
    assert feature_sets(named(*S2_L2A), named(*S2_L1C)) == ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12),)
    clouds = named("B02", "B03", "B04", "B08", "B11", "B12")
    assert feature_sets(clouds, named(*S2_L1C)) == ((1, 2, 3, 7, 11, 12),)


def test_a_specialist_with_its_own_three_bands_is_not_taken_for_rgb() -> None:
    assert feature_sets(named("B12", "B11", "B04"), named(*S2_L1C)) == ((12, 11, 3),)


def test_a_larger_input_counts_as_the_largest_set_within() -> None:
    both = named(*S2_L1C, "VV", "VH")  # 15 bands: S1 and L2A are in it
    assert feature_sets(named("VV", "VH"), both) == ((13, 14),)
    assert feature_sets(named("B04", "B03", "B02"), both) == ((3, 2, 1),)


def test_radar_may_stand_anywhere_beside_optical_bands() -> None:
    radar = named("VV", "VH")
    assert feature_sets(radar, named("B04", "B03", "VH", "VV", "B02")) == ((3, 2),)
    radar_first = named("VV", "VH", "B04", "B03", "B02")
    # The rules for RGB, VV, VH: its own bands, and VV, VH, VH.
    assert feature_sets(named("B04", "B03", "B02"), radar_first) == ((2, 3, 4), (0, 1, 1))


def test_rgb_and_infrared_within_more_bands_still_make_two_sets() -> None:
    input_ = named("B11", "B08", "B02", "B03", "B04")
    # infrared, red, green; and red, green, blue
    assert feature_sets(named("B04", "B03", "B02"), input_) == ((1, 4, 3), (4, 3, 2))


def test_bands_are_not_repeated_where_the_input_has_more_than_the_rule_says() -> None:
    ten_metres_and_more = named("B02", "B03", "B04", "B08", "B11", "B12")
    assert feature_sets(named(*S2_L1C), ten_metres_and_more) == ()


def test_radar_specialists_have_no_rule_for_optical_input() -> None:
    assert feature_sets(named("VV", "VH"), named(*S2_L1C)) == ()


def test_wavelengths_carry_rules_over_to_other_sensors() -> None:
    landsat = [Band(wavelength_nm=nm) for nm in (443, 482, 561, 655, 865, 1609, 2201)]
    assert feature_sets(named("B04", "B03", "B02"), landsat) == ((4, 3, 2), (3, 2, 1))


def test_wavelengths_are_believed_before_landsats_names() -> None:
    centres = {"B01": 443, "B02": 482, "B03": 561, "B04": 655, "B05": 865, "B06": 1609, "B07": 2201}
    landsat = [Band(name=name, wavelength_nm=nm) for name, nm in centres.items()]
    # Sentinel-2's short-wave infrared, B11 and B12, is Landsat's B6 and B7.
    assert feature_sets(named("B12", "B11", "B04"), landsat) == ((6, 5, 3),)
    assert feature_sets(named("B05", "B06"), landsat) == ()
