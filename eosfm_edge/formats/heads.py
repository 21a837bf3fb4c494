"""The description of a head in ``heads/NAME.gguf``: ``export/bundle.md`` is the format's page."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from eosfm_edge.errors import UserError
from eosfm_edge.formats.base import Name, Strict

HEADS_FOLDER = "heads"
NO_CLASS = 255  # the code of cells without data
MOST_CLASSES = 254
LONGEST_CLASS_NAME = 79  # bytes of UTF-8

Task = Literal["classes", "regression"]
LevelNumber = Annotated[int, Field(ge=1, le=4)]
Byte = Annotated[int, Field(ge=0, le=255)]
# Names of other files that `run` writes into the folder of its output.
_TAKEN = re.compile(r"level[1-4]|groups|quicklook|features")


def _free(name: str) -> str:
    if _TAKEN.fullmatch(name):
        raise ValueError(f"{name} is the name of another file that run writes")
    return name


def _short(name: str) -> str:
    if not 1 <= len(name.encode()) <= LONGEST_CLASS_NAME:
        raise ValueError(f"must have 1 to {LONGEST_CLASS_NAME} bytes")
    return name


HeadName = Annotated[Name, AfterValidator(_free)]


class HeadClass(Strict):
    """A class: its name, its code in maps and its colour, red, green and blue."""

    name: Annotated[str, AfterValidator(_short)]
    code: int = Field(ge=0, lt=NO_CLASS)
    colour: tuple[Byte, Byte, Byte]


class HeadSpec(Strict):
    """A head, but for its weights.

    Attributes:
        name: of its file and of the maps that it gives.
        task: ``classes``: the largest of a cell's outputs is its class. ``regression``: the outputs
            are numbers.
        levels: that it reads, from 1, the finest first: that one's cells are the answer's.
        classes: in the order of the outputs; none of a regression.
        labels: the name of what it was fitted to.
        cells: how many it was fitted on.
        score: the share of held-out cells that it classified as they are labelled; of a regression,
            the share of the variance that it explained (R²).
    """

    name: HeadName
    task: Task = "classes"
    levels: tuple[LevelNumber, ...] = Field(min_length=1)
    classes: tuple[HeadClass, ...] = Field(default=(), max_length=MOST_CLASSES)
    labels: str = ""
    cells: int = Field(default=0, ge=0)
    score: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> HeadSpec:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must rise")
        if (self.task == "classes") != (len(self.classes) >= 2):
            raise ValueError("a head of the task classes has two or more, another none")
        codes = [one.code for one in self.classes]
        if len(set(codes)) < len(codes):
            raise ValueError("two classes have one code")
        return self


def require_head_name(name: str) -> None:
    """Check that a head can have a name.

    Raises:
        UserError: it has other characters than a file's, or is that of another file of an output.
    """
    try:
        TypeAdapter(HeadName).validate_python(name)
    except ValidationError as error:
        raise UserError(
            f"{name!r} is no name for a head",
            expected="letters, digits, '.', '_' and '-', and not a name that run writes otherwise: "
            "level1 to level4, groups, quicklook, features",
            remedy="choose another (-o)",
        ) from error


def head_file(name: str) -> str:
    """Return the path of a head in its bundle."""
    return f"{HEADS_FOLDER}/{name}.gguf"
