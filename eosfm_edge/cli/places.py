"""The ensemble that is meant where none is named, and the names of outputs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from eosfm_edge.api.options import (
    CalibrateOptions,
    DeployOptions,
    ExportOptions,
    PruneOptions,
    as_path,
)
from eosfm_edge.errors import UserError
from eosfm_edge.formats.ensemble import SPEC_NAME
from eosfm_edge.formats.target import Profile

WithImagery = PruneOptions | CalibrateOptions | ExportOptions | DeployOptions


def the_ensemble(named: str | None, verb: str, options: WithImagery) -> Path:
    """Return the ensemble that is named, or else this folder, or the one ensemble in it.

    Args:
        named: its directory.
        verb: that reads it.
        options: of the verb, for the line that is to be copied.

    Raises:
        UserError: none is named, and there is none here, or more than one.
    """
    if named is not None:
        return as_path(named)
    if Path(SPEC_NAME).is_file():
        return Path()
    found = sorted(path.parent for path in Path().glob(f"*/{SPEC_NAME}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(
            "no ensemble was named, and there is none in this folder",
            expected=f"a directory with {SPEC_NAME}",
            remedy="eosfm-edge import WEIGHTS -o ENSEMBLE --bands BANDS, then "
            + _line(verb, "ENSEMBLE", options),
        )
    raise UserError(
        f"no ensemble was named, and there are {len(found)} in this folder",
        expected=f"one of {', '.join(map(str, found))}",
        remedy=_line(verb, str(found[0]), options),
    )


def _line(verb: str, ensemble: str, options: WithImagery) -> str:
    """Return the command as it would be complete."""
    data = [] if options.data else ["--data", "SCENE"]
    return shlex.join(["eosfm-edge", verb, ensemble, *options.as_arguments(), *data])


def pruned_place(ensemble: Path, options: PruneOptions) -> Path | None:
    """Return where a pruned ensemble goes by default: beside it, named after what was done."""
    if options.save_plan is not None:
        return None
    if options.plan is not None:
        done = options.plan.stem
    elif options.specialists is not None:
        done = f"{options.specialists}-specialists"
    elif options.budget is not None:
        done = options.budget
    elif options.ratio is not None:
        done = f"{100 * options.ratio:g}"
    else:
        done = "pruned"  # the API says that nothing is to be pruned
    return _beside(ensemble, done)


def calibration_place(ensemble: Path) -> Path:
    """Return where a calibration goes by default."""
    return _beside(ensemble, "int8")


def bundle_place(ensemble: Path, target: Profile) -> Path:
    """Return where a bundle for a target goes by default."""
    return _beside(ensemble, f"{target.name}.eosfm")


def _beside(ensemble: Path, done: str) -> Path:
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", done).strip("-")
    folder = Path("..") if ensemble == Path() else ensemble.parent
    return folder / f"{ensemble.resolve().name}-{plain}"
