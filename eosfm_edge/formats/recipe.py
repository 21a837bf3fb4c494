"""Recipes: how to prune, as a checked YAML file. What to save is not in them, but asked for."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from eosfm_edge.errors import UserError
from eosfm_edge.formats.base import Strict, read_yaml_model

Scope = Literal["hidden", "width"]
Ranking = Literal["uniform", "global", "isomorphic"]
Criterion = Literal["magnitude", "activation", "taylor", "reconstruction"]
Measure = Literal["macs", "params", "channels"]

DEFAULT = "standard"
LEAST_TILES = 96  # so that they show more than a corner of the imagery


class Recipe(Strict):
    """A recipe of pruning.

    Attributes:
        scope: ``hidden`` channels of the blocks, or the residual ``width`` as well, which changes
            the channels of the levels.
        criterion: what says which channels go; see :mod:`eosfm_edge.pruning.elimination`.
        ranking: which channels compete; see :mod:`eosfm_edge.pruning.allocation`.
        align: widths stay multiples of this.
        by: what a ratio is of.
        repair_grn: scale GRN's weights so that its mean over fewer channels is what it was.
        repair_fc2: solve the blocks' last layers in closed form.
        distill: steps of self-distillation after that; None: by what goes, which
            :func:`eosfm_edge.pruning.encoder.distillation_steps` says.
        tiles: of calibration imagery, at most; None: as many as the unknowns need
            (:mod:`eosfm_edge.network.cells`), and at least LEAST_TILES.
        seed: of the choice of tiles and of distillation.
    """

    schema_version: Literal[1] = 1
    scope: Scope = "hidden"
    criterion: Criterion = "reconstruction"
    ranking: Ranking = "global"
    align: Literal[8, 16] = 8
    by: Measure = "macs"
    repair_grn: bool = True
    repair_fc2: bool = True
    distill: int | None = Field(default=None, ge=0, le=1_000_000)
    tiles: int | None = Field(default=None, ge=1, le=100_000)
    seed: int = Field(default=0, ge=0, lt=2**31)


def shipped() -> list[str]:
    """Return the names of the recipes that come with eosfm-edge."""
    return sorted(path.stem for path in _folder().iterdir() if path.suffix == ".yaml")


def load_recipe(name: str) -> Recipe:
    """Read a recipe: a shipped one by name, or a file by path.

    Raises:
        UserError: there is none, or it is not a recipe; names the field.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = _folder() / f"{name}.yaml"
        if not path.exists():
            raise UserError(
                f"there is no recipe {name!r}", expected=f"{', '.join(shipped())}, or a .yaml file"
            )
    return read_yaml_model(Recipe, path, what="a recipe")


def _folder() -> Path:
    """Return the folder of recipes: in the installed package, or at the root of a checkout."""
    installed = Path(str(resources.files("eosfm_edge.pruning") / "recipes"))
    return installed if installed.is_dir() else Path(__file__).parents[2] / "pruning"
