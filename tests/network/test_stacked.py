"""Stacked encoders against the same encoders one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.specimens import MOTE, encoder_of, tiles_of
from support.speck import SPECK
from support.tiers import thorough

from eosfm_edge.bundle.known_answer import sqnr_db
from eosfm_edge.calibration.ranges import set_scales
from eosfm_edge.ensemble.specialist import shape_of
from eosfm_edge.formats.ensemble import Shape
from eosfm_edge.network.deployed import TENSORRT, DeployedEncoder, Depthwise, Form
from eosfm_edge.network.stacked import StackedEncoders, shape_of_stack

TILES = tiles_of(6)
FORMS = {
    "fp32": (Form(), "fp32"),
    "fp16": (Form("fp16", "fp16", rounded_products=True), "half"),
    "bf16": (Form("bf16", rounded_products=True), "half"),
    "int8": (TENSORRT, "int8"),
}


def members(count: int, form: Form, precision: str, backbone: str = SPECK) -> list[DeployedEncoder]:
    """Return encoders of one shape, whose scales and weights differ."""
    found = []
    for seed in range(count):
        encoder = DeployedEncoder(encoder_of(seed, backbone))
        set_scales(encoder, [torch.stack(TILES) * (1 + seed)], "minmax", seed)
        for layer in encoder.layers().values():
            layer.precision = precision  # type: ignore[assignment]
        found.append(encoder.in_form(form))
    return found


@torch.inference_mode()
def compare(encoders: list[DeployedEncoder], images: list[Any]) -> list[float]:
    """Return the decibels of each level of each member, stacked against alone."""
    found = []
    for encoder, image, levels in zip(
        encoders, images, StackedEncoders(encoders)(images), strict=True
    ):
        for mine, alone in zip(levels, encoder(image), strict=True):
            assert mine.shape == alone.shape and mine.dtype == torch.float32
            found.append(sqnr_db(mine.numpy(), alone.numpy()))
    return found


def images(count: int, batch: int = 2, bands: int = 3) -> list[Any]:
    return [torch.stack(tiles_of(batch, seed=seed))[:, :bands] for seed in range(count)]


@pytest.mark.parametrize("backbone", [SPECK, *thorough(MOTE)])
@pytest.mark.parametrize("precision", FORMS)
def test_stacked_is_as_alone(precision: str, backbone: str) -> None:
    decibels = compare(members(3, *FORMS[precision], backbone), images(3))
    # Where values are rounded, some fall to the other side of an edge, and carry on from there:
    # in int8 that edge is a 255th of the range.
    least = {"fp32": 100, "fp16": 40, "bf16": 40}.get(precision, 35)
    assert min(decibels) > least, decibels


def test_one_member_is_a_stack_too() -> None:
    assert min(compare(members(1, *FORMS["int8"]), images(1))) > 40


@pytest.mark.parametrize("precision", FORMS)
def test_hidden_widths_may_differ(precision: str) -> None:
    """Padding adds nothing, to GRN's mean either."""
    form, layers = FORMS[precision]
    full = shape_of(encoder_of())
    encoders = []
    for seed, fewer in enumerate((0, 8, 16)):
        hidden = tuple(tuple(width - fewer for width in stage) for stage in full.hidden)
        shape = Shape(widths=full.widths, hidden=hidden)
        encoder = DeployedEncoder(encoder_of(seed, shape=shape))
        set_scales(encoder, [torch.stack(TILES)], "minmax", seed)
        for layer in encoder.layers().values():
            layer.precision = layers  # type: ignore[assignment]
        encoders.append(encoder.in_form(form))
    assert len({shape_of_stack(encoder) for encoder in encoders}) == 1
    assert min(compare(encoders, images(3))) > (100 if precision == "fp32" else 40)


@pytest.mark.parametrize("seed", [0, *thorough(1, 2)])
def test_precisions_may_differ_from_member_to_member(seed: int) -> None:
    encoders = members(3, *FORMS["int8"])
    generator = torch.Generator().manual_seed(seed)
    for encoder in encoders:
        for layer in encoder.layers().values():
            choice = int(torch.randint(3, (), generator=generator))
            layer.precision = ("int8", "half", "fp32")[choice]  # type: ignore[assignment]
    assert min(compare(encoders, images(3))) > 40


def test_static_grn_may_differ_too() -> None:
    encoders = members(3, *FORMS["fp32"])
    for block in encoders[1].blocks().values():
        block.grn.static = True
    assert min(compare(encoders, images(3))) > 100
    for encoder in encoders:
        for block in encoder.blocks().values():
            block.grn.static = True
    assert min(compare(encoders, images(3))) > 100


def test_bands_may_differ() -> None:
    encoders = [DeployedEncoder(encoder_of(seed, bands=1 + seed)) for seed in range(3)]
    taken = [image[:, : 1 + seed] for seed, image in enumerate(images(3))]
    assert min(compare(encoders, taken)) > 100


def test_odd_sizes_are_cut_as_alone() -> None:
    taken = [image[:, :, :, :48] for image in images(2)]
    assert min(compare(members(2, *FORMS["fp32"]), taken)) > 100


def test_the_integers_are_those_of_the_network_alone() -> None:
    """One layer of int8, all else exact: nothing can drift, so that every difference is fp32's."""
    form = replace(TENSORRT, products="fp32", convolutions="fp32")
    encoders = members(2, form, "fp32")
    for encoder in encoders:
        for name, layer in encoder.layers().items():
            if name == "stages.0.blocks.0.fc1":
                layer.precision = "int8"
    assert min(compare(encoders, images(2))) > 100


def test_depthwise_integers_are_those_of_the_network_alone() -> None:
    form = replace(TENSORRT, products="fp32", convolutions="fp32")
    encoders = members(2, form, "fp32")
    for encoder in encoders:
        first = next(la for la in encoder.layers().values() if isinstance(la, Depthwise))
        first.precision = "int8"
    assert min(compare(encoders, images(2))) > 100


def test_other_shapes_are_no_stack() -> None:
    speck, mote = (DeployedEncoder(encoder_of(0, backbone)) for backbone in (SPECK, MOTE))
    assert shape_of_stack(speck) != shape_of_stack(mote)
