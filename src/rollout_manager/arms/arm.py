"""An arm in MuJoCo whose joints follow the positions that its controllers command, as a real arm's servos do.

Its hardware defends itself as Franka's does: a command that jumps further than the joint could go is not followed. The
arm stops where it is and stays there until the fault is cleared.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout_manager.envs.rendering import OffscreenRenderer, View, import_mujoco
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.arm_files import find_arm, load_arm, speed_of
from vla_policy_node.exceptions import SpecError
from vla_policy_node.observation import Float32Array, Float64Array, ImageArray, Joints, Pose
from vla_policy_node.spec import CameraSpec

REFLEX = 1.5
"""How many times as fast as it can go a joint may be commanded before the hardware stops it."""


@dataclass(frozen=True)
class Sight:
    """All of an arm and its scene that a camera can tell."""

    positions: Float64Array
    """Of everything in the model, (nq,)."""
    colours: Float32Array
    """RGBA of its geoms, (ngeom, 4), in [0, 1]."""


class Arm:
    """One model with its state. Names of joints and cameras are the model's own."""

    def __init__(self, model: str = "panda", cameras: tuple[CameraSpec, ...] = ()) -> None:
        """Args: model: a file of `config/arms/`, or the path of one; cameras: those that are rendered.

        Raises:
            SimulatorError: there is no such model, or it has no such camera.
        """
        self._mujoco = mujoco = import_mujoco()
        try:
            self.model: Any = load_arm(model)
            self._path = find_arm(model)
        except SpecError as error:
            raise SimulatorError(f"arm '{model}': {error}") from error
        self.data: Any = mujoco.MjData(self.model)
        self.joints = tuple(self.model.actuator(i).name for i in range(self.model.nu))
        self._qpos = np.array([self.model.joint(name).qposadr[0] for name in self.joints])
        self._qvel = np.array([self.model.joint(name).dofadr[0] for name in self.joints])
        self._colours = np.array(self.model.geom_rgba)
        speeds = np.array([speed_of(self.model, self.model.joint(name).id) for name in self.joints])
        self._jump = REFLEX * np.where(np.isfinite(speeds), speeds, np.inf) * self.period_s
        known = [self.model.camera(i).name for i in range(self.model.ncam)]
        if unknown := [camera.name for camera in cameras if camera.name not in known]:
            raise SimulatorError(f"arm '{model}': camera '{unknown[0]}' is not one of {', '.join(known)}")
        self._views = {camera.name: View(camera.name, camera.height, camera.width) for camera in cameras}
        self._renderer: OffscreenRenderer | None = None
        self.fault = ""
        """Why the hardware has stopped the arm; empty while it obeys."""
        self.reset()

    @property
    def period_s(self) -> float:
        """Time that one `step` takes, in seconds."""
        return float(self.model.opt.timestep)

    @property
    def digest(self) -> str:
        """SHA-256 of the model's file, its first 16 hex digits."""
        return hashlib.sha256(self._path.read_bytes()).hexdigest()[:16]

    def reset(self, joints: Float64Array | None = None) -> None:
        """Everything at its place and at rest, in its own colours; the arm at `joints`, (J,), or at home."""
        self._mujoco.mj_resetDataKeyframe(self.model, self.data, 0)
        self.model.geom_rgba[:] = self._colours
        if joints is not None:
            self.data.qpos[self._qpos] = joints
        self.settle()

    def settle(self) -> None:
        """Take over positions that were written into `data`; the arm obeys from where it is."""
        self._mujoco.mj_forward(self.model, self.data)
        self.clear_fault()

    def clear_fault(self) -> None:
        """Obey again, from where the arm is."""
        self.fault = ""
        self.data.ctrl[:] = self.data.qpos[self._qpos]

    def step(self, target: Float64Array) -> None:
        """Move on by one period. Args: target: positions that the joints are to have, (J,), ordered as `joints`."""
        if not self.fault:
            jump = np.abs(target - self.data.ctrl)
            share = np.where(np.isfinite(target), jump / self._jump, np.inf)
            if (share > 1).any():
                worst = int(share.argmax())
                self.fault = (
                    f"{self.joints[worst]} was commanded {REFLEX * share[worst]:.1f} times as fast as it can go"
                )
                self.data.ctrl[:] = self.data.qpos[self._qpos]
            else:
                self.data.ctrl[:] = target
        # Servos hold the arm's own weight up by themselves, as real ones do.
        self.data.qfrc_applied[self._qvel] = self.data.qfrc_bias[self._qvel]
        self._mujoco.mj_step(self.model, self.data)

    def measured(self) -> Float64Array:
        """Positions (rad, m) and velocities of the joints, shape (2, J)."""
        return np.stack([self.data.qpos[self._qpos], self.data.qvel[self._qvel]])

    def joint_state(self) -> Joints:
        """As `measured`, by name."""
        position, velocity = self.measured()
        return Joints(self.joints, position, velocity)

    def hand(self) -> Pose:
        """Pose of the point between the fingers in the frame of the arm's base."""
        quaternion, site = np.empty(4), self.data.site("grip")
        self._mujoco.mju_mat2Quat(quaternion, site.xmat)
        return Pose(site.xpos.copy(), np.roll(quaternion, -1))  # MuJoCo: w first.

    def sight(self) -> Sight:
        """What a camera can tell of it now."""
        return Sight(np.array(self.data.qpos), np.array(self.model.geom_rgba))

    def images_of(self, sight: Sight) -> dict[str, ImageArray]:
        """What the cameras see of a `sight` of this model: RGB (height, width, 3) by name. The arm is moved there."""
        self.data.qpos[:] = sight.positions
        self.model.geom_rgba[:] = sight.colours
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_camlight(self.model, self.data)
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self.model, self._views)
        return self._renderer.render(self.data)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
