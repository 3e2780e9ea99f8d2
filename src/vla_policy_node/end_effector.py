"""The last gate before a robot whose hand is displaced: from a displacement a tick to joint targets that may be sent.

Where the hand is to go is integrated from where it was last to go, not from where it is measured: servos lag behind,
so that a displacement that began there would be lost in part at every tick. It can get no further ahead than a joint's
`lead` of where that joint is measured, nor than inverse kinematics can follow; after a hold it begins where the arm is
sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from vla_policy_node.inverse_kinematics import InverseKinematics
from vla_policy_node.kinematics import ArmModel
from vla_policy_node.kinematics_spec import AIM_MARGIN, KinematicsSpec
from vla_policy_node.limit_switches import Breach, LimitMode
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.safety import SafeCommand, SafetyFilter
from vla_policy_node.spec import RobotSpec
from vla_policy_node.workspace import Box

SHORT_M, SHORT_RAD = 0.001, 0.01
"""How far the hand may stay short of where it is to go before that counts as out of its reach."""

PACE = 0.95
"""Of the joints' speed, what a hand that they are too slow for is led at: the same way, more slowly."""
TINY = 1e-9
"""rad or m."""


@dataclass(frozen=True)
class HandTarget:
    """Where the hand is to go, in the robot's frame, and joints that bring it there."""

    position: Float64Array
    """(3,), m."""
    rotation: Float64Array
    """(3, 3)."""
    joints: Float64Array
    """(J,), rad or m."""

    def displaced(self, by: Float64Array) -> tuple[Float64Array, Float64Array]:
        """The pose after a displacement (6,): m, and a rotation vector about the hand's own point."""
        return self.position + by[:3], Rotation.from_rotvec(by[3:]).as_matrix() @ self.rotation

    def displacement_to(self, other: "HandTarget") -> Float64Array:
        """What `displaced` makes another's pose of, (6,)."""
        turned = Rotation.from_matrix(other.rotation @ self.rotation.T).as_rotvec()
        return np.concatenate([other.position - self.position, turned])


@dataclass(frozen=True)
class _Way:
    """What a displacement comes to: why it ended at a wall, too far from where joints are measured, or short of it."""

    target: HandTarget
    walls: tuple[Breach, ...]
    far: tuple[Breach, ...]
    short: tuple[Breach, ...]


class EndEffectorFilter(SafetyFilter):
    """Limits the displacement as any action; what joints make of it passes a filter of their own.

    `SafeCommand.action` is the displacement that was accepted of where the hand is to go, `SafeCommand.joints` where
    the joints are sent on the way there, within their limits of position, velocity, acceleration and jerk.
    """

    def __init__(self, spec: RobotSpec, kinematics: KinematicsSpec, mode: LimitMode = "clamp") -> None:
        """Raises: SpecError: as `SafetyFilter`, `ArmModel` and `InverseKinematics`."""
        super().__init__(spec, mode)
        self._arm = ArmModel(kinematics, kinematics.joints)
        self._inverse = InverseKinematics(self._arm, 1 / spec.rate_hz, kinematics.clearance)
        self._aim = None if spec.workspace is None else Box.of(spec.workspace, AIM_MARGIN)
        self._turn = np.array([d.velocity for d in kinematics.joints]) / spec.rate_hz
        self._places = [spec.action_names.index(name) for name in kinematics.displacement]
        jointwise = replace(kinematics, displacement=(), joints=())
        # Whether a displacement is rejected is said before joints are asked for it: what is left of it they follow.
        driven = replace(spec, action=kinematics.joints, commands=(), kinematics=jointwise, limits={})
        self._driven = SafetyFilter(driven)
        self._target = self._next = self._here()

    @property
    def located(self) -> bool:
        return super().located and self._driven.located

    @property
    def at_rest(self) -> bool:
        return super().at_rest and self._driven.at_rest

    @property
    def watches_joints(self) -> bool:
        return True

    def reset(self, last: Float32Array | None = None) -> None:
        """As `SafetyFilter.reset`; where the joints are, the next observation says."""
        super().reset(last)
        self._driven.reset()
        self._stay()

    def check(
        self,
        action: npt.ArrayLike | None,
        reasons: Sequence[str] = (),
        proprioception: Float32Array | None = None,
        now_ns: int | None = None,
    ) -> SafeCommand:
        """As `SafetyFilter.check`."""
        if not self._driven.located:
            self._driven.locate(proprioception)
            self._stay()
        asked = super().check(action, reasons, proprioception, now_ns)
        if asked.held:
            return asked
        self._target = self._next
        sent = self._driven.check(self._target.joints, (), proprioception, now_ns)
        return replace(asked, reasons=asked.reasons + sent.reasons, joints=sent.action)

    def hold(self, reasons: Sequence[str], now_ns: int | None = None) -> SafeCommand:
        """As `SafetyFilter.hold`: the joints brake, and the hand is to stay where they come to."""
        held = super().hold(reasons, now_ns)
        joints = self._driven.hold((), now_ns).action
        self._stay()
        return replace(held, joints=joints)

    def within(
        self, wanted: Float64Array, proprioception: Float32Array | None
    ) -> tuple[Float64Array, tuple[Breach, ...]]:
        """As `SafetyFilter.within`, of a displacement that the hand can make."""
        inside, why = super().within(wanted, proprioception)
        asked = inside[self._places]
        full = self._way(asked, proprioception)
        slower = self._slower(asked, proprioception) if full.short else None
        way = slower or self._what_is_left(full, asked, proprioception)
        self._next = way.target
        if way is not full or full.walls:
            inside[self._places] = self._target.displacement_to(way.target)
        slowed = (Breach("velocity", "motion: the hand goes as fast as it may"),) if slower else ()
        return inside, why + way.walls + (way.far or way.short) + slowed

    def _slower(self, asked: Float64Array, proprioception: Float32Array | None) -> "_Way | None":
        """The part of a displacement that the joints are fast enough for; None where speed is not what hinders them."""
        at_leisure = self._way(asked, proprioception, hurried=False)
        if at_leisure.short:
            return None
        turn = np.abs(at_leisure.target.joints - self._target.joints)
        way = self._way(asked * min(1.0, float((PACE * self._turn / np.maximum(turn, TINY)).min())), proprioception)
        return None if way.short else way

    def _what_is_left(self, full: "_Way", asked: Float64Array, proprioception: Float32Array | None) -> "_Way":
        """Of a displacement that comes short, what can be gone of it along each axis: a hand slides along a table. What
        leads elsewhere is not gone, as an arm at its full length would give way to a side; if nothing is left it stays.
        """
        if not full.short:
            return full
        part = np.clip(self._target.displacement_to(full.target), np.minimum(0, asked), np.maximum(0, asked))
        way = self._way(part, proprioception)
        return replace(full, target=self._target if way.short else way.target)

    def _way(self, asked: Float64Array, proprioception: Float32Array | None, hurried: bool = True) -> "_Way":
        position, rotation = self._target.displaced(asked)
        walls: tuple[Breach, ...] = ()
        if self._aim is not None:
            box = self._aim.including(self._target.position)
            walls = tuple(Breach("workspace", wall) for wall in box.beyond(position))
            position = box.clip(position)
        solved = self._inverse.solve(self._target.joints, position, rotation, hurried)
        joints, far = self._driven.within(solved, proprioception)
        reached = HandTarget(*self._arm.hand(joints), joints)
        short = _short(reached, position, rotation)
        # What is short by less is made up for at the next tick.
        return _Way(reached if short else HandTarget(position, rotation, joints), walls, far, short)

    def _stay(self) -> None:
        """The hand is to go nowhere but where the joints are sent."""
        self._target = self._next = self._here()

    def _here(self) -> HandTarget:
        joints = self._driven.sent.copy()
        return HandTarget(*self._arm.hand(joints), joints)


def _short(reached: HandTarget, position: Float64Array, rotation: Float64Array) -> tuple[Breach, ...]:
    away = float(np.linalg.norm(reached.position - position))
    angle = float(np.linalg.norm(Rotation.from_matrix(reached.rotation @ rotation.T).as_rotvec()))
    if away <= SHORT_M and angle <= SHORT_RAD:
        return ()
    text = f"kinematics: the hand stays {1e3 * away:.1f} mm and {angle:.2f} rad short of where it was to go"
    return (Breach("reach", text),)


def make_safety_filter(spec: RobotSpec, mode: LimitMode = "clamp") -> SafetyFilter:
    """The filter of a robot, whatever its action commands. Raises: SpecError: as the filters."""
    if spec.kinematics is not None and spec.kinematics.displacement:
        return EndEffectorFilter(spec, spec.kinematics, mode)
    return SafetyFilter(spec, mode)
