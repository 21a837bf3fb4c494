"""Recipes: the shipped ones, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from eosfm_edge.errors import UserError
from eosfm_edge.formats.recipe import DEFAULT, Recipe, load_recipe, shipped

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_folder_is_shipped() -> None:
    files = list((ROOT / "pruning").glob("*.yaml"))
    assert sorted(path.name for path in files) == [f"{name}.yaml" for name in shipped()]
    assert DEFAULT in shipped()
    # The wheel takes them from there.
    install = (ROOT / "runtime" / "CMakeLists.txt").read_text()
    assert "../pruning/ DESTINATION eosfm_edge/pruning/recipes" in install


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_says_everything_and_is_read(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.model_fields_set == set(Recipe.model_fields)
    assert load_recipe(str(ROOT / "pruning" / f"{name}.yaml")) == recipe


def test_the_default_recipe_is_what_is_said_nowhere() -> None:
    assert load_recipe(DEFAULT) == Recipe()
    assert load_recipe("closed-form") == Recipe(distill=0)
    assert load_recipe("distilled") == Recipe(distill=load_recipe("distilled").distill)
    assert load_recipe("narrow").scope == "width"


def test_a_recipe_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no recipe 'gentle'") as error:
        load_recipe("gentle")
    assert "closed-form, distilled, narrow, standard" in str(error.value)
    with pytest.raises(UserError, match=r"gentle\.yml does not exist"):
        load_recipe(str(tmp_path / "gentle.yml"))
    with pytest.raises(UserError, match="there is no recipe"):
        load_recipe("../pruning/nowhere")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("strength: 3", "strength: Extra inputs"),
        ("align: 12", "align: "),
        ("criterion: luck", "criterion: "),
        ("distill: -1", "distill: "),
        ("seed: 2147483648", "seed: "),
        ("tiles: 0", "tiles: "),
        ("schema_version: 2", "schema_version: "),
        ("- 1", "valid dictionary"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_recipe_is_named_with_its_field(
    tmp_path: Path, content: str, complaint: str
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UserError) as error:
        load_recipe(str(tmp_path / "mine.yaml"))
    assert "mine.yaml" in str(error.value) and complaint in str(error.value)


def test_what_a_recipe_leaves_out_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("align: 16\nseed: 5\n")
    assert load_recipe(str(tmp_path / "mine.yaml")) == Recipe(align=16, seed=5)
