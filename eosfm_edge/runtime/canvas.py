"""Draw a page of pictures with titles, legends and a scale bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Shades = NDArray[np.uint8]  # (H, W, 3)
Colour = tuple[int, int, int]

WIDTH = 1280  # pixels of a page
_MARGIN = 16
_GAP = 12
_TALLEST = 1.25  # a picture's height over its width, at most
_TITLE, _TEXT, _SMALL = 22, 15, 13  # sizes of letters
_INK: Colour = (32, 32, 32)
_PALE: Colour = (110, 110, 110)
_PAPER: Colour = (255, 255, 255)
_FRAME: Colour = (208, 208, 208)


@dataclass(frozen=True)
class Legend:
    """Swatches with words, in a line below a picture."""

    entries: Sequence[tuple[Colour, str]]


@dataclass(frozen=True)
class ScaleBar:
    """A bar of a round length. ``pixels`` are of the scene, ``words`` say the length."""

    pixels: float
    words: str


@dataclass(frozen=True)
class Panel:
    """A picture of a scene with its title.

    Attributes:
        title: above it.
        shades: (H, W, 3), cells or pixels that begin at the scene's corner.
        step: pixels of the scene that one of them covers, across and down.
        note: below it.
        legend: below it.
        bar: a scale bar, in its corner.
    """

    title: str
    shades: Shades
    step: tuple[float, float]
    note: str = ""
    legend: Legend | None = None
    bar: ScaleBar | None = None


@dataclass(frozen=True)
class Row:
    """Panels side by side, under a line of text if there is one."""

    panels: Sequence[Panel]
    heading: str = ""


def panel_size(scene: tuple[int, int], panels: int) -> tuple[int, int]:
    """Return the pixels (width, height) of a scene's picture in a row of so many panels.

    Args:
        scene: its pixels, (width, height).
        panels: how many share the row.
    """
    room = _column(panels)
    zoom = min(room / scene[0], room * _TALLEST / scene[1])
    return max(1, round(scene[0] * zoom)), max(1, round(scene[1] * zoom))


def draw_page(
    scene: tuple[int, int], title: str, subtitle: str, rows: Sequence[Row], footer: str
) -> Image.Image:
    """Draw a page: a title, rows of panels of one scene, and a footer.

    Args:
        scene: its pixels, (width, height).
        title: above the rows.
        subtitle: between the title and the rows.
        rows: from the top.
        footer: below them.
    """
    heights = [_row_height(scene, row) for row in rows]
    top = _MARGIN + _TITLE + _TEXT + 2 * _GAP
    height = top + sum(heights) + _GAP * len(rows) + _TEXT + _MARGIN
    page = Image.new("RGB", (WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(page)
    _write(draw, (_MARGIN, _MARGIN), title, _TITLE, _INK, WIDTH - 2 * _MARGIN)
    _write(draw, (_MARGIN, _MARGIN + _TITLE + 8), subtitle, _TEXT, _PALE, WIDTH - 2 * _MARGIN)
    for row, tall in zip(rows, heights, strict=True):
        _draw_row(page, draw, scene, row, top)
        top += tall + _GAP
    _write(draw, (_MARGIN, top), footer, _TEXT, _PALE, WIDTH - 2 * _MARGIN)
    return page


def _column(panels: int) -> int:
    return (WIDTH - 2 * _MARGIN - _GAP * (panels - 1)) // panels


def _row_height(scene: tuple[int, int], row: Row) -> int:
    lines = _line() * (1 + bool(row.heading))
    return (
        lines
        + panel_size(scene, len(row.panels))[1]
        + max(_line() * (bool(panel.note) + bool(panel.legend)) for panel in row.panels)
    )


def _line() -> int:
    return _TEXT + 9


def _draw_row(
    page: Image.Image, draw: ImageDraw.ImageDraw, scene: tuple[int, int], row: Row, top: int
) -> None:
    room = _column(len(row.panels))
    size = panel_size(scene, len(row.panels))
    if row.heading:
        _write(draw, (_MARGIN, top), row.heading, _TEXT, _INK, WIDTH - 2 * _MARGIN)
        top += _line()
    for place, panel in enumerate(row.panels):
        left = _MARGIN + place * (room + _GAP)
        _write(draw, (left, top), panel.title, _TEXT, _INK, room)
        corner = (left, top + _line())
        page.paste(_placed(panel, scene, size), corner)
        box = (corner[0] - 1, corner[1] - 1, corner[0] + size[0], corner[1] + size[1])
        draw.rectangle(box, outline=_FRAME)
        if panel.bar:
            _draw_bar(draw, panel.bar, size[0] / scene[0], corner, size)
        below = corner[1] + size[1] + 7
        if panel.legend:
            _draw_legend(draw, panel.legend, (left, below), room)
            below += _line()
        if panel.note:
            _write(draw, (left, below), panel.note, _TEXT, _PALE, room)


def _placed(panel: Panel, scene: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Return a panel's picture at its size on the page.

    The last cells may reach over the scene's end: that part is cut off.
    """
    zoom = (size[0] / scene[0], size[1] / scene[1])
    height, width, _ = panel.shades.shape
    whole = (
        max(1, round(width * panel.step[0] * zoom[0])),
        max(1, round(height * panel.step[1] * zoom[1])),
    )
    picture = Image.fromarray(panel.shades).resize(whole, Image.Resampling.NEAREST)
    return picture.crop((0, 0, *size))


def _draw_bar(
    draw: ImageDraw.ImageDraw,
    bar: ScaleBar,
    zoom: float,
    corner: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """Draw a scale bar into the lower left corner of a picture, on a ground of its own."""
    length = max(1, round(bar.pixels * zoom))
    words = draw.textlength(bar.words, font=_font(_TEXT))
    wide = max(length, round(words)) + 16
    tall = _TEXT + 20
    if wide + 8 > size[0] or tall + 8 > size[1]:
        return
    left, bottom = corner[0] + 4, corner[1] + size[1] - 5
    draw.rectangle((left, bottom - tall, left + wide, bottom), fill=_PAPER)
    draw.text((left + 8, bottom - tall + 2), bar.words, fill=_INK, font=_font(_TEXT))
    draw.rectangle((left + 8, bottom - 9, left + 8 + length, bottom - 5), fill=_INK)


def _draw_legend(
    draw: ImageDraw.ImageDraw, legend: Legend, place: tuple[int, int], room: int
) -> None:
    """Draw swatches with their words at even distances."""
    left, top = place
    share = room / max(1, len(legend.entries))
    for number, (colour, words) in enumerate(legend.entries):
        x = left + round(number * share)
        draw.rectangle((x, top + 1, x + _SMALL, top + 1 + _SMALL), fill=colour, outline=_FRAME)
        _write(draw, (x + _SMALL + 4, top), words, _SMALL, _INK, round(share) - _SMALL - 4)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: Colour,
    room: int,
) -> None:
    """Write a line, cut where it would leave its room."""
    font = _font(size)
    if draw.textlength(text, font=font) > room:
        while text and draw.textlength(f"{text}…", font=font) > room:
            text = text[:-1]
        text = f"{text}…"
    draw.text(place, text, fill=colour, font=font)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
