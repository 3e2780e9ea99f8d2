"""From where an arm's hand is to go to where its joints are: differential inverse kinematics by mink.

Each step is a quadratic program (mink, Zakka 2025, github.com/kevinzakka/mink): of the joint motions that keep limits
of position, of velocity and of distance between parts, the one that brings the hand nearest. That nothing moves keeps
them all, so there is always one.
"""

from itertools import combinations
from typing import Any

import numpy as np

from vla_policy_node.exceptions import OutOfReachError, SpecError
from vla_policy_node.kinematics import ArmModel
from vla_policy_node.observation import Float64Array

STEPS = 3
"""Quadratic programs a tick at most: the way of a hand that turns is curved."""
CLOSE = 1e-5
"""m and rad of what is missing that make another one not worth its time."""
DAMPING = 1e-5
"""m^2 a rad^2: near singularities joints would have to move fast for a hand that hardly does."""
ROTATION = 0.3
"""m a rad: what a rotation that is missing weighs against a way that is."""
DETECTION = 0.07
"""m beyond the clearance from which on two parts are looked at."""
EXACT, TRIES = 1e-4, 20
"""m and rad at which `reach` has the hand where it is to be, and solutions in a row after which it is out of reach."""
APPROACH = 0.05
"""Of what is left beyond the clearance, the share that parts may come nearer in a step: joints take time to stop."""


class InverseKinematics:
    """Moves the joints of one arm; (J,) as in its model."""

    def __init__(self, arm: ArmModel, period_s: float, clearance: float) -> None:
        """
        Args:
            arm: its dimensions have limits of position and velocity.
            period_s: time that joints have for the way that `solve` finds.
            clearance: m between parts of the arm, and between it and what stands in its model; 0: they may collide.

        Raises:
            SpecError: mink is not installed.
        """
        try:
            import mink
        except ImportError as error:
            raise SpecError(f"inverse kinematics needs mink, which cannot be loaded: {error}") from error
        self._mink, self._arm, self._period_s = mink, arm, period_s
        self._configuration = mink.Configuration(arm.model, arm.home)
        self._task = mink.FrameTask(arm.hand_name, arm.frame_type, 1.0, ROTATION)
        self._range = np.array([[d.low for d in arm.dimensions], [d.high for d in arm.dimensions]])
        arm.model.jnt_limited[arm.joints] = 1
        self._positions = mink.ConfigurationLimit(arm.model, gain=1.0)
        self._limits = [self._positions, mink.VelocityLimit(arm.model, _still(arm))]
        if clearance and (pairs := _pairs(arm, clearance)):
            self._limits.append(_avoidance(mink, arm, pairs, clearance, period_s / STEPS))
        self._speeds = mink.VelocityLimit(arm.model, {d.joint: d.velocity for d in arm.dimensions})

    def solve(
        self, joints: Float64Array, position: Float64Array, rotation: Float64Array, hurried: bool = True
    ) -> Float64Array:
        """Joints (J,) whose hand is nearest to a pose.

        Args:
            joints: (J,), from where.
            position: (3,) in m, rotation: (3, 3), both in the robot's frame.
            hurried: they are no further than a period allows; else they may take any time.
        """
        mink, configuration = self._mink, self._configuration
        position, rotation = self._arm.in_world(position, rotation)
        self._task.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), position))
        # From outside the limits, where an arm may have been switched on, a joint may only come back.
        self._positions.lower[self._arm.addresses] = np.minimum(self._range[0], joints)
        self._positions.upper[self._arm.addresses] = np.maximum(self._range[1], joints)
        q = self._arm.home
        q[self._arm.addresses] = joints
        configuration.update(q)
        dt, limits = self._period_s / STEPS, self._limits + [self._speeds] * hurried
        for _ in range(STEPS):
            if np.abs(self._task.compute_error(configuration)).max() < CLOSE:
                break
            try:
                velocity = mink.solve_ik(configuration, [self._task], dt, "daqp", DAMPING, limits=limits)
            except mink.NoSolutionFound:
                break
            configuration.integrate_inplace(velocity, dt)
        return np.asarray(configuration.q[self._arm.addresses])

    def reach(self, joints: Float64Array, position: Float64Array, rotation: Float64Array) -> Float64Array:
        """Joints (J,) near those given whose hand is at a pose, however long the way; for plans.

        Args: as for `solve`.

        Raises:
            OutOfReachError: none were found.
        """
        for _ in range(TRIES):
            joints = self.solve(joints, position, rotation, hurried=False)
            is_at, turned = self._arm.hand(joints)
            if max(np.abs(is_at - position).max(), np.abs(turned - rotation).max()) < EXACT:
                return joints
        raise OutOfReachError(f"the hand cannot be brought to {np.round(position, 3).tolist()} m, turned as asked")


def _still(arm: ArmModel) -> dict[str, float]:
    """The speed of all other hinges and slides of the model: none."""
    others = set(range(arm.model.njnt)) - set(arm.joints)
    return {arm.model.joint(i).name: 0.0 for i in others if arm.model.jnt_type[i] >= 2}


def _pairs(arm: ArmModel, clearance: float) -> list[tuple[int, int]]:
    """The geometries that have to keep away from each other: those that do at the model's home pose.

    Of a body with geometries that collide in simulation only these count, of another one all do. What moves freely, as
    a thing on a table, is passed over: nobody knows where it is. So is what does not move at all.
    """
    mujoco, model = arm.mujoco, arm.model
    free = {int(model.jnt_bodyid[i]) for i in range(model.njnt) if model.jnt_type[i] == 0}
    solid: dict[int, list[int]] = {}
    for geom in range(model.ngeom):
        body = int(model.geom_bodyid[geom])
        if int(model.body_rootid[body]) not in free:
            solid.setdefault(body, []).append(geom)
    chosen = [g for geoms in solid.values() for g in ([g for g in geoms if _collides(model, g)] or geoms)]
    data = mujoco.MjData(model)
    data.qpos[:] = arm.home
    mujoco.mj_forward(model, data)
    return [
        (one, other)
        for one, other in combinations(sorted(chosen), 2)
        if model.body_weldid[model.geom_bodyid[one]] != model.body_weldid[model.geom_bodyid[other]]
        and mujoco.mj_geomDistance(model, data, one, other, 2 * clearance, None) > clearance
    ]


def _collides(model: Any, geom: int) -> bool:
    return bool(model.geom_contype[geom] or model.geom_conaffinity[geom])


def _avoidance(mink: Any, arm: ArmModel, pairs: list[tuple[int, int]], clearance: float, dt: float) -> Any:
    limit = mink.CollisionAvoidanceLimit(
        arm.model,
        [],
        gain=APPROACH * dt,  # mink divides what may be gone by dt, though its unknowns are displacements.
        minimum_distance_from_collisions=clearance,
        collision_detection_distance=clearance + DETECTION,
    )
    # mink would take out what does not collide in simulation, such as a stand-in's own capsules.
    limit.geom_id_pairs, limit.max_num_contacts = pairs, len(pairs)
    return limit
