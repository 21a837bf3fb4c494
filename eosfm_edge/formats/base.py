"""The base of all file formats: strict models, names and digests, and readers of JSON and YAML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from eosfm_edge.errors import UserError
from eosfm_edge.files import open_regular
from eosfm_edge.text import has_control

MOST_DIGITS = 15  # of a whole number in JSON: doubles hold all of them exactly

Model = TypeVar("Model", bound=BaseModel)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Names become file names.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
LONGEST_NAME = 64


def plain_name(text: str) -> str:
    """Return a text as a name: other characters become ``_``; "" if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-")[:LONGEST_NAME]


class Strict(BaseModel):
    """A part of a file format: immutable, and unknown fields are an error.

    Texts are printed as they are, so they have no control characters but tabs and line ends.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="after")
    @classmethod
    def _no_orders_to_terminals(cls, value: Any) -> Any:
        if has_control(value):
            raise ValueError("must not have control characters")
        return value


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise ValueError("must be a relative path inside the directory")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


def read_json_model(kind: type[Model], path: Path, *, what: str) -> Model:
    """Read a JSON file into a pydantic model, naming file and field in every complaint.

    Args:
        kind: the model.
        path: the file.
        what: what was expected, if it is not there.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
        found = kind.model_validate_json(content)
        _require_plain(content)
        return found
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist", expected=what) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise UserError(f"{path} is not valid: {explain(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid: {error}") from error


def _require_plain(content: bytes) -> None:
    """Refuse JSON that other readers may understand otherwise, or not at all.

    Raises:
        ValueError: a field is there twice, or a number is beyond what a double holds exactly.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            twice = next(name for name in fields if sum(name == other for other, _ in pairs) > 1)
            raise ValueError(f"the field {twice} is there twice")
        return fields

    def whole(digits: str) -> int:
        if len(digits.lstrip("-")) > MOST_DIGITS:
            raise ValueError(f"a number has {len(digits)} digits, expected at most {MOST_DIGITS}")
        return int(digits)

    json.loads(content, object_pairs_hook=once, parse_int=whole)


def read_yaml_model(kind: type[Model], path: Path, *, what: str) -> Model:
    """Read a YAML file into a pydantic model; as :func:`read_json_model`."""
    try:
        with open_regular(path) as file:
            return kind.model_validate(yaml.safe_load(file.read().decode()))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist", expected=what) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {error}", expected=what) from error
    except ValidationError as error:
        raise UserError(f"{path} is not {what}: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """Return the first complaint of a validation, with the field it is about."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"
