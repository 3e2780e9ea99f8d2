"""One control step of LIBERO's arm, bit for bit as robosuite makes it, in a third of its forward passes.

robosuite calls `mj_forward` before its controller, again inside it, and a third time inside `mj_step`; all three see
the same positions and velocities. Here `mj_step1` computes them once, the controller reads them, `mj_step2` goes on.
The controller is robosuite's operational space controller (Khatib 1987) with its names looked up once. Every sum keeps
robosuite's operands, their order and their memory layout, so torques, and with them joint positions, are the same to
the last bit; tests/test_libero_env.py holds it against the stock path.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout_manager.envs.rendering import import_mujoco
from vla_policy_node.observation import Float64Array

GRIPPER_SPEED = np.array([-1.0, 1.0]) * 0.01
"""Change of the two fingers' commands in [-1, 1] a substep while the gripper closes; robosuite's PandaGripper."""


@dataclass(frozen=True)
class Aim:
    """What the controller remembers from one step to the next."""

    position: Float64Array
    """Of the hand, m, shape (3,)."""
    orientation: Float64Array
    """Of the hand, a rotation matrix."""
    command: Float64Array
    """To the fingers, in [-1, 1], shape (2,)."""


class Physics:
    """Moves one scene's arm. Only this problem's own objects are touched: robosuite's classes stay as they are."""

    def __init__(self, problem: Any) -> None:
        """Args: problem: a LIBERO problem that has been reset once."""
        from robosuite.utils import control_utils

        self._mujoco = import_mujoco()
        self._opspace_matrices = control_utils.opspace_matrices
        self._orientation_error = control_utils.orientation_error
        self._nullspace_torques = control_utils.nullspace_torques
        robot = problem.robots[0]
        self._robot = robot
        self._model, self._data = problem.sim.model._model, problem.sim.data._data
        self._substeps = int(problem.control_timestep / problem.model_timestep)
        self._site = robot.eef_site_id
        self._qpos, self._qvel = np.array(robot._ref_joint_pos_indexes), np.array(robot._ref_joint_vel_indexes)
        self._arm = np.array(robot._ref_joint_actuator_indexes)
        self._torque_low, self._torque_high = robot.torque_limits
        self._fingers = robot._ref_joint_gripper_actuator_indexes
        limits = self._model.actuator_ctrlrange[self._fingers]
        self._finger_middle = 0.5 * (limits[:, 1] + limits[:, 0])
        self._finger_half = 0.5 * (limits[:, 1] - limits[:, 0])
        self._finger_qpos = robot._ref_gripper_joint_pos_indexes
        dofs = self._model.nv
        self._jacp, self._jacr = np.zeros((3, dofs)), np.zeros((3, dofs))
        self._inertia = np.zeros((dofs, dofs))
        self.restart()

    def restart(self) -> None:
        """Take up the controller that robosuite's reset has made, with its goal; the gripper's command is half way."""
        self._controller = self._robot.controller
        self._command = np.zeros(2)

    def hold(self) -> None:
        """Make the pose and the opening that the hand has now its goal. The state must be forwarded."""
        controller = self._controller
        controller.update(force=True)
        controller.reset_goal()
        fingers = self._data.qpos[self._finger_qpos]
        self._command = np.clip((fingers - self._finger_middle) / self._finger_half, -1.0, 1.0)

    def aim(self) -> Aim:
        """What the arm is after."""
        return Aim(self._controller.goal_pos.copy(), self._controller.goal_ori.copy(), self._command.copy())

    def take_aim(self, aim: Aim) -> None:
        """Go on as at the time of `aim()`. The state must be that of then."""
        self._controller.goal_pos, self._controller.goal_ori = aim.position.copy(), aim.orientation.copy()
        self._controller.new_update = True
        self._command = aim.command.copy()

    def step(self, action: Float64Array) -> None:
        """Advance by one control period.

        Poses and contacts in the data are then those of the last substep's start, 2 ms before its joint positions:
        so it is in robosuite, and so LIBERO reads success.

        Args:
            action: shape (7,): the hand's displacement (x 0.05 m), rotation (x 0.5 rad, axis-angle), gripper.
        """
        mujoco, model, data = self._mujoco, self._model, self._data
        grip = GRIPPER_SPEED * np.sign(action[6:])
        for substep in range(self._substeps):
            mujoco.mj_step1(model, data)
            self._solve()
            data.ctrl[self._arm] = self._torques(action if substep == 0 else None)
            self._command = np.minimum(np.maximum(self._command + grip, -1.0), 1.0)
            data.ctrl[self._fingers] = self._finger_middle + self._finger_half * self._command
            mujoco.mj_step2(model, data)

    def _solve(self) -> None:
        """What a forward pass does once positions and velocities are known: forces, then the constraints' solution.

        robosuite's extra passes are superfluous but for this: each solution is where the solver starts the next time.
        """
        self._mujoco.mj_forwardSkip(self._model, self._data, self._mujoco.mjtStage.mjSTAGE_VEL.value, 1)

    def _torques(self, action: Float64Array | None) -> Float64Array:
        """Of the arm's seven joints, N m, shape (7,), towards the goal; `action` sets a new one."""
        data, controller = self._data, self._controller
        if controller.new_update:
            self._solve()
            self._look()
        if action is not None:
            controller.new_update = False
            controller.set_goal(action[:6])
        controller.new_update = True
        position_error = controller.goal_pos - controller.ee_pos
        rotation_error = self._orientation_error(np.array(controller.goal_ori), controller.ee_ori_mat)
        gains, damping = controller.kp, controller.kd
        force = position_error * gains[0:3] + -controller.ee_pos_vel * damping[0:3]
        torque = rotation_error * gains[3:6] + -controller.ee_ori_vel * damping[3:6]
        inertia, jacobian = controller.mass_matrix, controller.J_full
        _, mass, moment, nullspace = self._opspace_matrices(inertia, jacobian, controller.J_pos, controller.J_ori)
        wrench = np.concatenate([np.dot(mass, force), np.dot(moment, torque)])
        torques = np.dot(jacobian.T, wrench) + data.qfrc_bias[self._qvel]
        torques += self._nullspace_torques(
            inertia, nullspace, controller.initial_joint, controller.joint_pos, controller.joint_vel
        )
        clipped: Float64Array = np.minimum(np.maximum(torques, self._torque_low), self._torque_high)
        return clipped

    def _look(self) -> None:
        """What the controller knows of the arm, as its own `update` finds it out, without another forward pass.

        robosuite's controller passes over the first look after a reset, and so over the initial state: for its first
        substep it believes the arm where robosuite's reset had put it. That is 2 cm away, and part of the benchmark.
        """
        data, controller = self._data, self._controller
        self._mujoco.mj_jacSite(self._model, data, self._jacp, self._jacr, self._site)
        self._mujoco.mj_fullM(self._model, self._inertia, data.qM)
        controller.ee_pos = data.site_xpos[self._site].copy()
        controller.ee_ori_mat = data.site_xmat[self._site].reshape(3, 3).copy()
        controller.ee_pos_vel = np.dot(self._jacp, data.qvel)
        controller.ee_ori_vel = np.dot(self._jacr, data.qvel)
        controller.joint_pos = data.qpos[self._qpos]
        controller.joint_vel = data.qvel[self._qvel]
        # np.array keeps the layout that indexing gives, which BLAS chooses its way of summing by.
        controller.J_pos = np.array(self._jacp[:, self._qvel])
        controller.J_ori = np.array(self._jacr[:, self._qvel])
        controller.J_full = np.vstack([controller.J_pos, controller.J_ori])
        controller.mass_matrix = self._inertia[self._qvel, :][:, self._qvel]
