"""The box that an arm's hand stays in, whatever its joints are commanded."""

from dataclasses import dataclass

import numpy as np

from vla_policy_node.kinematics import ArmModel
from vla_policy_node.kinematics_spec import AIM_MARGIN, WorkspaceSpec
from vla_policy_node.observation import Float64Array
from vla_policy_node.spec import RobotSpec

STOP_MARGIN = 0.001
"""m inside of the walls that what is sent stays: the way of braking is looked at twice a period, and float32 rounds."""
ROUNDING = 1e-9
"""m."""
STEPS = 20
"""Of the way back into the box; each halves what is left at least, unless the arm is stretched."""
DAMPING = 1e-4
"""m^2 a rad^2, of that way (Nakamura and Hanafusa 1986, damped least squares), for where the arm cannot go on."""


@dataclass(frozen=True)
class Box:
    """Corners (3,) in m."""

    low: Float64Array
    high: Float64Array

    @classmethod
    def of(cls, spec: WorkspaceSpec, margin: float = 0.0) -> "Box":
        """The workspace less a margin on every side."""
        return cls(np.array(spec.low) + margin, np.array(spec.high) - margin)

    def including(self, point: Float64Array) -> "Box":
        """The smallest box that a point (3,) is in as well: from outside one may only come nearer, on every axis."""
        return Box(np.minimum(self.low, point), np.maximum(self.high, point))

    def clip(self, point: Float64Array) -> Float64Array:
        """The nearest point in the box, (3,)."""
        return np.clip(point, self.low, self.high)

    def has(self, points: Float64Array) -> bool:
        """Whether all points (..., 3) are in it."""
        return not self.excess(points).any()

    def excess(self, points: Float64Array) -> Float64Array:
        """How far points (..., 3) are out of it along each axis, m; 0 inside."""
        out = np.maximum(self.low - points, points - self.high)
        return np.where(out > ROUNDING, out, 0.0)

    def beyond(self, point: Float64Array) -> tuple[str, ...]:
        """In words, the axes on which a point (3,) is not in it."""
        walls = self.clip(point)
        return tuple(
            f"workspace: the hand's {axis} {value:.3f} m is beyond {wall:.3f} m"
            for axis, value, wall in zip("xyz", point, walls, strict=True)
            if abs(value - wall) > ROUNDING
        )


class Workspace:
    """What of joint targets may be sent so that the hand stays in the box."""

    def __init__(self, spec: WorkspaceSpec, arm: ArmModel) -> None:
        self._arm, self._low = arm, np.array([d.low for d in arm.dimensions])
        self._high = np.array([d.high for d in arm.dimensions])
        self._aim, self._walls = Box.of(spec, AIM_MARGIN), Box.of(spec, STOP_MARGIN)

    def near(self, wanted: Float64Array, sent: Float64Array) -> tuple[Float64Array, tuple[str, ...]]:
        """Joint targets whose hand is in the box, near those that are wanted, and why they are others.

        Args: wanted, sent: (A,), what the robot's dimensions are to be, and were sent last.
        """
        places = list(self._arm.places)
        here, hand = self._arm.hand(sent[places])[0], self._arm.hand(wanted[places])[0]
        walls, aim = self._walls.including(here), self._aim.including(here)
        if walls.has(hand):
            return wanted, ()
        inside, found = np.array(wanted), self._project(wanted[places], aim)
        # Where there is no way, as for an arm that is stretched, it stays where it was sent.
        inside[places] = found if walls.has(self._arm.hand(found)[0]) else sent[places]
        return inside, walls.beyond(hand)

    def allows(self, path: Float64Array, sent: Float64Array) -> bool:
        """Whether the hand stays in the box on a path (N, A) once it is inside, and before gets no further out.

        Args: sent: (A,), what was sent last, before the path.
        """
        places = list(self._arm.places)
        out = self._walls.excess(self._arm.positions(np.vstack([sent, path])[:, places]))
        inside = np.logical_or.accumulate(out == 0, axis=0)
        return bool((out <= out[0] + ROUNDING).all() and not (out * inside).any())

    def _project(self, joints: Float64Array, box: Box) -> Float64Array:
        """From joints (J,) a short way to such whose hand is in a box, within the limits."""
        for _ in range(STEPS):
            hand = self._arm.hand(joints)[0]
            way = box.clip(hand) - hand
            if np.abs(way).max() <= ROUNDING:
                break
            jacobian = self._arm.jacobian(joints)
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + DAMPING * np.eye(3), way)
            joints = np.clip(joints + step, self._low, self._high)
        return joints


def make_workspace(spec: RobotSpec) -> Workspace | None:
    """What keeps the hand of a robot that is commanded by its joints in its box; None where it has none.

    Raises:
        SpecError: the arm's model is not to be had, or does not fit the robot.
    """
    if spec.workspace is None or spec.kinematics is None or spec.kinematics.displacement:
        return None
    return Workspace(spec.workspace, ArmModel(spec.kinematics, spec.action))
