"""What a robot's file says of its arm as a mechanism: its model, how its hand is commanded, where the hand may be."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vla_policy_node.action_spec import ActionDimension, one_of
from vla_policy_node.exceptions import SpecError

DISPLACEMENT_UNITS = ("m", "m", "m", "rad", "rad", "rad")
"""Of a displacement's dimensions: along x, y, z, and a rotation vector."""
AIM_MARGIN = 0.005
"""m that the hand is aimed inside of its workspace's walls: each joint keeps limits of its own, so on the way along a
wall the hand bulges by some millimetres."""


@dataclass(frozen=True)
class WorkspaceSpec:
    """A box that the hand stays in: its corners in the robot's frame, m."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def __post_init__(self) -> None:
        for what in ("low", "high"):
            corner = getattr(self, what)
            numbers = isinstance(corner, Sequence) and all(
                isinstance(v, (int, float)) and math.isfinite(v) for v in corner
            )
            if not numbers or len(corner) != 3:
                raise SpecError(f"workspace: {what} {corner!r} is not x, y, z in metres")
            object.__setattr__(self, what, tuple(map(float, corner)))
        for axis, low, high in zip("xyz", self.low, self.high, strict=True):
            if not high - low > 2 * AIM_MARGIN:
                raise SpecError(
                    f"workspace: {axis} from {low:g} to {high:g} is not more than {2 * AIM_MARGIN:g} m, which it needs"
                )


@dataclass(frozen=True)
class KinematicsSpec:
    """The arm's model, and what of it a policy commands."""

    model: str
    """A file of `config/arms/`, or the path of an MJCF or URDF file."""
    hand: str
    """The site or body of the model that is the hand: the point that displacements move and the workspace holds."""
    base: str = ""
    """The body of the model whose frame is the robot's `frame`; it must not move. Empty: the model's origin."""
    displacement: tuple[str, ...] = ()
    """Dimensions of the action that displace the hand each tick: x, y, z in m and a rotation vector in rad about the
    hand's own point, in the robot's frame. Empty: the action commands the joints themselves."""
    joints: tuple[ActionDimension, ...] = ()
    """Of a robot with a displacement: the joints that inverse kinematics commands instead, with their limits."""
    clearance: float = 0.01
    """Of a robot with a displacement: m that parts of the arm keep from each other and from what stands in the model;
    0: collisions are not looked at. A part that is nearer than that at the model's home pose counts as a neighbour."""

    def __post_init__(self) -> None:
        for what in ("displacement", "joints"):
            object.__setattr__(self, what, tuple(getattr(self, what)))
        if not self.model or not self.hand:
            raise SpecError(f"kinematics: it needs a model ('{self.model}') and a hand ('{self.hand}')")
        if bool(self.displacement) != bool(self.joints):
            raise SpecError("kinematics: a displacement of the hand needs joints that make it, and the other way round")
        if self.displacement and len(set(self.displacement)) != len(DISPLACEMENT_UNITS):
            named = ", ".join(self.displacement)
            raise SpecError(f"kinematics: displacement ({named}) is not {len(DISPLACEMENT_UNITS)} different dimensions")
        if not 0 <= self.clearance < math.inf:
            raise SpecError(f"kinematics: clearance {self.clearance} is not a distance from 0 on")
        for joint in self.joints:
            self._check(joint)

    def _check(self, joint: ActionDimension) -> None:
        if not joint.joint:
            raise SpecError(f"kinematics: '{joint.name}' does not say which joint it commands")
        for what in ("low", "high", "velocity", "acceleration"):
            if not math.isfinite(getattr(joint, what)):
                raise SpecError(f"kinematics: '{joint.name}' has no limit of {what}; inverse kinematics needs one")

    def check_action(self, action: Sequence[ActionDimension], measured: Sequence[str]) -> None:
        """Raises: SpecError: it does not fit the robot's action, or the joints that are measured."""
        names = [d.name for d in action]
        for name, unit in zip(self.displacement, DISPLACEMENT_UNITS, strict=bool(self.displacement)):
            one_of("kinematics: displacement", name, names)
            found = action[names.index(name)]
            if found.unit != unit or found.hold != "zero" or found.levels:
                raise SpecError(
                    f"kinematics: displacement '{name}' must be in {unit}, hold at zero and have no levels; it is in "
                    f"'{found.unit}', holds at {found.hold} and has {len(found.levels)} levels"
                )
        if self.displacement:
            taken = [d.joint for d in (*action, *self.joints) if d.joint]
            repeated = [n for n in names if n in {d.name for d in self.joints}]
            repeated += sorted({n for n in taken if taken.count(n) > 1})
            if repeated:
                raise SpecError(f"kinematics: '{repeated[0]}' is named twice")
        elif not any(d.joint for d in action):
            raise SpecError("kinematics: the action commands no joint and has no displacement: give it one of the two")
        for joint in self.joints:
            one_of(f"kinematics: '{joint.name}': joint", joint.joint, measured)
