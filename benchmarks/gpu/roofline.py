"""The least time that a GPU's arithmetic and memory allow, and what that says of another GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """A GPU's peaks.

    Attributes:
        fp16: floating-point operations a second of its matrix units, fp32 sums.
        int8: the same of bytes.
        bandwidth: bytes a second of its memory.
        source: where the figures are from.
    """

    fp16: float
    int8: float
    bandwidth: float
    source: str


ORIN_NANO = "Jetson Orin Nano"
BOARDS = {
    "H100": Board(798e12, 1979e12, 3.0e12, "fp16 and memory measured, int8 NVIDIA's data sheet"),
    "H200": Board(798e12, 1979e12, 4.8e12, "fp16 as the H100's, the rest NVIDIA's data sheet"),
    ORIN_NANO: Board(9.7e12, 19.5e12, 62e9, "published for JetPack 7.2"),
}


@dataclass(frozen=True)
class Work:
    """The least that an image takes.

    Attributes:
        macs: multiply-accumulates.
        weight_bytes: read once for each batch.
        image_bytes: of the image and its levels.
    """

    macs: int
    weight_bytes: int
    image_bytes: int


def floor_ms(board: Board, work: Work, precision: str, batch: int) -> float:
    """Return the least milliseconds an image: of arithmetic or of memory, whichever is longer."""
    peak = board.int8 if precision == "int8" else board.fp16
    arithmetic = 2 * work.macs / peak
    memory = (work.weight_bytes / batch + work.image_bytes) / board.bandwidth
    return max(arithmetic, memory) * 1e3


def board_of(name: str) -> Board | None:
    """Return the peaks of a GPU by the driver's name for it, if they are known."""
    return next((board for part, board in BOARDS.items() if part in name), None)


def estimate_ms(
    measured: float, here: Board, there: Board, work: Work, precision: str, batch: int
) -> float:
    """Estimate milliseconds on another board that is used as well as this one.

    The share of the roofline that was reached here is taken to be reached there. A small board is
    filled by fewer images, so this is of a batch that fills this one.
    """
    here_ms, there_ms = (floor_ms(board, work, precision, batch) for board in (here, there))
    return measured * there_ms / here_ms
