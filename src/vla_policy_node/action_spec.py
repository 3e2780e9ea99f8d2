"""What a dimension of a robot's action is: its limits, how it holds, and how fast it may change."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from vla_policy_node.exceptions import SpecError

HoldRule = Literal["zero", "last"]
NO_PART_OF_THE_DIGEST = ("noise", "velocity", "acceleration", "jerk", "joint", "lead", "levels")
"""Of an action's dimension: how it is practised and made safe, not what a policy says."""


@dataclass(frozen=True)
class ActionDimension:
    """One scalar of the action, its limits, and what it does when the robot is to hold still."""

    name: str
    unit: str
    low: float
    high: float
    hold: HoldRule = "zero"
    """`zero` for a velocity or a delta, `last` (repeat what was sent last) for a target."""
    noise: float = 1.0
    """What it gets of exploration's and demonstrations' noise, as a share; a target gets none. It says how to practise,
    not what the robot is, and so is no part of the digest."""
    velocity: float = math.inf
    """How fast what is sent may change, in the unit a second; this and what follows is no part of the digest."""
    acceleration: float = math.inf
    """How fast that velocity may change, in the unit a second squared."""
    jerk: float = math.inf
    """How fast that acceleration may change, in the unit a second cubed."""
    joint: str = ""
    """The joint whose position this dimension commands; it must be among proprioception's. Empty: none."""
    lead: float = math.inf
    """How far what is sent may be from where `joint` is measured, in the unit: an arm that is blocked is not pushed."""
    levels: tuple[float, ...] = ()
    """The only values that the robot tells apart, ascending; a policy answers with the nearest of them. Empty: all
    count. No part of the digest either: what was learned without them is not wrong."""

    def __post_init__(self) -> None:
        one_of(f"action '{self.name}': hold", self.hold, get_args(HoldRule))
        if not 0 <= self.noise < math.inf:
            raise SpecError(f"action '{self.name}': noise {self.noise} is not a share from 0 on")
        object.__setattr__(self, "levels", tuple(self.levels))
        if any(not self.low <= v <= self.high for v in self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise SpecError(
                f"action '{self.name}': levels {', '.join(map(str, self.levels))} do not ascend from {self.low} to "
                f"{self.high}"
            )
        if not self.low < self.high:
            raise SpecError(f"action '{self.name}': low {self.low} is not below high {self.high}")
        for what in ("velocity", "acceleration", "jerk", "lead"):
            if not getattr(self, what) > 0:
                raise SpecError(f"action '{self.name}': {what} {getattr(self, what)} is not positive")
        for what, before in (("jerk", "acceleration"), ("acceleration", "velocity")):
            if getattr(self, what) < math.inf == getattr(self, before):
                raise SpecError(f"action '{self.name}': {what} {getattr(self, what)} needs a limit of {before} too")
        if self.lead < math.inf and not self.joint:
            raise SpecError(f"action '{self.name}': lead {self.lead} needs the joint that it is measured at")
        if self.joint and self.hold == "zero":
            raise SpecError(f"action '{self.name}': it commands the position of '{self.joint}', so hold must be 'last'")


def one_of(what: str, value: object, valid: Sequence[object]) -> None:
    """Raises: SpecError: a value is not among the valid ones."""
    if value not in valid:
        raise SpecError(f"{what} '{value}' is not one of {', '.join(map(str, valid))}")


def home_places(where: str, home: object, action: Sequence[ActionDimension]) -> dict[int, float]:
    """Index of each dimension of the action that has a home -> that value, in its unit.

    Args: home: by the name of a dimension, or of the joint that it commands.

    Raises:
        SpecError: no such dimension, one that is no target, one that is named twice, or a value not within its limits.
    """
    if not isinstance(home, Mapping):
        raise SpecError(f"{where}: home {home!r} is not joints with their positions")
    known = {name: i for i, d in enumerate(action) if d.hold == "last" for name in (d.name, d.joint) if name}
    places: dict[int, float] = {}
    for name, value in home.items():
        one_of(f"{where}: home", name, sorted(known))
        dimension = action[known[name]]
        if known[name] in places:
            raise SpecError(f"{where}: home of '{dimension.name}' is given twice, as joint and as dimension")
        if not isinstance(value, (int, float)) or not dimension.low <= value <= dimension.high:
            limits = f"[{dimension.low:g}, {dimension.high:g}]"
            raise SpecError(f"{where}: home: {name} {value!r} is not within its limits {limits} {dimension.unit}")
        places[known[name]] = float(value)
    return places
