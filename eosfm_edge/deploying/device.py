"""The target of a deployment: its precisions, its power, and where its milliseconds are from."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass

from eosfm_edge.device.detect import detect
from eosfm_edge.errors import UserError
from eosfm_edge.formats.budget import Budget
from eosfm_edge.formats.deploy import Timing
from eosfm_edge.formats.precision import Precision
from eosfm_edge.formats.target import Profile

# From the most faithful on.
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Device:
    """The target of a deployment.

    Attributes:
        profile: all that is known of it.
        is_here: True if this machine is one.
    """

    profile: Profile
    is_here: bool

    @classmethod
    def of(cls, profile: Profile) -> Device:
        """Return a target, which may be this machine."""
        is_here = profile.name == "cpu"
        if not is_here and profile.architecture in (None, platform.machine()):
            is_here = detect().target()[0].name == profile.name
        return cls(profile, is_here)

    @property
    def timing(self) -> Timing | None:
        """The origin of its milliseconds; None if its profile does not say how fast it is.

        They are measured of the native engine on this machine's CPU, no other.
        """
        if self.is_here and self.profile.engine == "onnxruntime":
            return "measured"
        return "expected" if self.profile.peak_tops else None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that it has and that can be exported, the most faithful first."""
        return tuple(one for one in PRECISIONS if one in self.profile.precisions)

    @property
    def watts(self) -> float | None:
        """The power of its last mode, whose speed the profile gives; None if it is not known."""
        modes = self.profile.power_modes
        return modes[-1].watts if modes else None


def require_known_costs(device: Device, budgets: Sequence[Budget]) -> None:
    """Check that enough is known of a target to say what budgets are about.

    Raises:
        UserError: a budget is of milliseconds or millijoules, and the profile lacks what they are
            computed from.
    """
    name = device.profile.name
    kinds = {budget.kind: budget for budget in budgets}
    for kind in ("ms", "mJ"):
        if kind in kinds and device.timing is None:
            raise UserError(
                f"the budget is {kinds[kind]}, and the profile of {name} does not say how fast it "
                "is",
                expected="peak_tops in the profile, or this machine as the target",
                remedy="run this on the device with --target cpu, or give a profile of your own "
                f"with peak_tops: eosfm-edge targets show {name} --json, and docs/targets.md",
            )
    if "mJ" in kinds and device.watts is None:
        raise UserError(
            f"the budget is {kinds['mJ']}, and the profile of {name} does not say what power it "
            "takes",
            expected="power_modes in the profile",
            remedy="give a profile of your own with power_modes and their source: eosfm-edge "
            f"targets show {name} --json, and docs/targets.md",
        )
