"""The profiles that there are: those that come with eosfm-edge, and a user's own."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from eosfm_edge.errors import UserError
from eosfm_edge.formats.base import read_yaml_model
from eosfm_edge.formats.target import Profile

# Names that stand for a device until a user says which of its kind.
ALIASES = {"jetson": "jetson-orin-nano"}


def target_names() -> list[str]:
    """Return the names of the profiles that come with eosfm-edge."""
    return sorted(path.stem for path in _folder().iterdir() if path.suffix == ".yaml")


def known_targets() -> list[str]:
    """Return all names that ``find_target`` takes but those of files."""
    return [*target_names(), *ALIASES]


def find_target(name: str) -> Profile:
    """Read a profile: a shipped one by its name or an alias, or a file by its path.

    Raises:
        UserError: there is none, or it is not a profile; names the field.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return read_yaml_model(Profile, Path(name), what="a target's profile")
    path = _folder() / f"{ALIASES.get(name, name)}.yaml"
    if not path.exists():
        known = known_targets()
        meant = _misspelt(name, known)
        raise UserError(
            f"there is no target {name!r}",
            expected=f"{', '.join(known)}, or a profile of your own (.yaml)",
            remedy=f"perhaps {meant}"
            if meant
            else "use cpu-arm64 or cpu-x86-64-v3 for the board's CPU, or write a profile of your "
            "own (docs/targets.md)",
        )
    return read_yaml_model(Profile, path, what="a target's profile")


def _misspelt(name: str, known: Sequence[str]) -> str | None:
    """Return the target whose name was misspelt; another board is no misspelling."""

    def digits(text: str) -> str:
        return "".join(filter(str.isdigit, text))

    alike = [one for one in known if digits(one) == digits(name)]  # raspberry-pi-4 is not 5
    close = difflib.get_close_matches(name, alike, 1, cutoff=0.9)  # jetson-nano no jetson-orin-nano
    return close[0] if close else None


def describe_choice(asked: str, profile: Profile) -> str | None:
    """Return what an alias or a file came to, if another name was asked for."""
    return None if asked == profile.name else f"{asked} is {profile.name}: {profile.summary}"


def _folder() -> Path:
    """Return the folder of profiles: in the installed package, or at the root of a checkout."""
    installed = Path(str(resources.files("eosfm_edge.targets") / "profiles"))
    return installed if installed.is_dir() else Path(__file__).parents[2] / "targets"
