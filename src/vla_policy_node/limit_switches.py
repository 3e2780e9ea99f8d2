"""Which limits clamp an action that is beyond them, and which reject it, so that the robot holds. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from vla_policy_node.action_spec import one_of
from vla_policy_node.exceptions import SpecError

LimitMode = Literal["clamp", "reject"]
"""`clamp`: a value beyond a limit is moved to the limit, one that is too far is gone to more slowly. `reject`: the
robot holds instead."""
Limit = Literal["position", "velocity", "acceleration", "jerk", "lead", "workspace", "reach"]
"""`position`: low and high. `lead`: how far from where a joint is measured. `reach`: where a hand that is displaced
cannot get to. The others as they are called in a robot's file."""
OF_PLACE: tuple[Limit, ...] = ("position", "lead", "workspace", "reach")
"""What the one switch for all is for; how fast an action changes is clamped unless the robot's file says otherwise."""
CLAMP_ONLY: tuple[Limit, ...] = ("acceleration", "jerk")
"""An action says where to be a period on. How a speed is got up to and taken back in between, only the filter says."""


@dataclass(frozen=True)
class Breach:
    """A limit that an action is beyond."""

    limit: Limit
    text: str
    """In words, for whoever reads why the robot holds or is limited."""


def check_switches(where: str, switches: object) -> None:
    """Raises: SpecError: no such limit or mode, or one that makes no sense; `where` says whose."""
    if not isinstance(switches, Mapping):
        raise SpecError(f"{where}: limits {switches!r} is not limits with clamp or reject")
    for limit, mode in switches.items():
        one_of(f"{where}: limits", limit, get_args(Limit))
        one_of(f"{where}: limits: {limit}", mode, get_args(LimitMode))
        if mode == "reject" and limit in CLAMP_ONLY:
            raise SpecError(
                f"{where}: limits: {limit} can only clamp: an action says where to be a period on, and how speed is "
                "got up on the way there is for the safety filter alone; 'velocity: reject' refuses what is too fast"
            )


def rejecting(switches: Mapping[str, LimitMode], mode: LimitMode) -> frozenset[str]:
    """The limits that reject. Args: switches: by limit; mode: of those `OF_PLACE` that are not among them.

    Raises:
        SpecError: unknown mode.
    """
    one_of("limit mode", mode, get_args(LimitMode))
    modes: dict[str, LimitMode] = {**dict.fromkeys(OF_PLACE, mode), **switches}
    return frozenset(limit for limit, chosen in modes.items() if chosen == "reject")
