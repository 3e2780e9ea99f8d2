"""Joints that put an arm's hand somewhere: damped least squares on MuJoCo's Jacobian (Wampler, 1986).

With the redundancy that a seventh joint leaves, joints stay near those that one begins with.
"""

import numpy as np

from rollout_manager.arms.arm import Arm
from rollout_manager.envs.rendering import import_mujoco
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

HAND = "grip"
DOWN = (0.0, 1.0, 0.0, 0.0)
"""Quaternion, w first, of a hand that points down with its fingers opening along the base's y."""
DAMPING, STEP = 1e-3, 0.5
POSTURE = 0.05
"""Share of the way back to the joints that one began with, in each iteration, where the hand allows it."""
ITERATIONS = 200
EXACT = 1e-4
"""m and rad at which the hand is there."""


class PoseSolver:
    """Of the arm's joints before its fingers, (7,) for a Panda. It finds a whole pose at once, for plans; what
    displaces a hand at every tick, within its joints' limits, is `vla_policy_node.inverse_kinematics`."""

    def __init__(self, model: str = "panda", joints: int = 7) -> None:
        """Args: model: as for `Arm`; joints: how many, from the first on. Raises: SimulatorError: no such model."""
        self._mujoco = import_mujoco()
        self._arm = Arm(model)
        names = self._arm.joints[:joints]
        self._qpos = [self._arm.model.joint(name).qposadr[0] for name in names]
        self._qvel = [self._arm.model.joint(name).dofadr[0] for name in names]
        self._range = np.array([self._arm.model.joint(name).range for name in names]).T

    def solve(self, position: Float64Array, near: Float64Array) -> Float64Array:
        """Joints, (7,) rad, that put the hand at a position, (3,) m in the base's frame, pointing down.

        Args: near: joints to begin with and to stay near to, (7,).

        Raises:
            SimulatorError: it is out of reach.
        """
        joints: Float64Array = np.clip(near, *self._range)
        for _ in range(ITERATIONS):
            off, jacobian = self._error(position, joints)
            if np.abs(off).max() < EXACT:
                return joints
            damped = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPING * np.eye(6))
            back = POSTURE * (near - joints)
            step = STEP * (damped @ off) + back - np.linalg.pinv(jacobian) @ (jacobian @ back)
            joints = np.clip(joints + step, *self._range)
        raise SimulatorError(f"the hand cannot be brought to {np.round(position, 3).tolist()} m, pointing down")

    def _error(self, position: Float64Array, joints: Float64Array) -> tuple[Float64Array, Float64Array]:
        """How far the hand is off, (6,) m and rad, and its Jacobian, (6, 7)."""
        mujoco, model, data = self._mujoco, self._arm.model, self._arm.data
        data.qpos[self._qpos] = joints
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        site = data.site(HAND)
        turned, turn, is_at = np.empty(4), np.empty(3), np.empty(4)
        mujoco.mju_mat2Quat(is_at, site.xmat)
        mujoco.mju_mulQuat(turned, np.array(DOWN), is_at * (1, -1, -1, -1))
        mujoco.mju_quat2Vel(turn, turned, 1.0)
        moved, rotated = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacSite(model, data, moved, rotated, site.id)
        return np.concatenate([position - site.xpos, turn]), np.vstack([moved, rotated])[:, self._qvel]
