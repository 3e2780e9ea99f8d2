"""Where an arm's hand is for given joints, by its MuJoCo model."""

from typing import Any

import numpy as np

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.arm_files import find_arm, import_mujoco, load_arm
from vla_policy_node.exceptions import SpecError
from vla_policy_node.kinematics_spec import KinematicsSpec
from vla_policy_node.observation import Float64Array

SLACK = 1e-5
"""rad or m that a limit in a robot's file may be beyond the model's, which is rounded."""


class ArmModel:
    """The model with all but some joints at its home pose: the first keyframe, or else zero.

    Poses are in the frame of `KinematicsSpec.base`. Joints are in the order of the dimensions that it was made for.
    """

    def __init__(self, spec: KinematicsSpec, dimensions: tuple[ActionDimension, ...]) -> None:
        """Args: dimensions: those of a robot that command joints; (J,) below counts those whose joint is in the model.

        Raises:
            SpecError: the model has no such hand, base or joint, the hand depends on a joint that no dimension
                commands, or limits are beyond the model's.
        """
        self.mujoco, self.model = import_mujoco(), load_arm(spec.model)
        self.data: Any = self.mujoco.MjData(self.model)
        self._file = find_arm(spec.model)
        if self.model.nkey:
            self.mujoco.mj_resetDataKeyframe(self.model, self.data, 0)
        self.frame_type, self.hand_id = self._hand(spec.hand)
        self.hand_name = spec.hand
        self.joints = self._indices(dimensions, strict=bool(spec.displacement))
        self.addresses = self.model.jnt_qposadr[self.joints]
        self.dofs = self.model.jnt_dofadr[self.joints]
        self._check_chain()
        for joint, dimension in zip(self.joints, self.dimensions, strict=True):
            self._check_limits(joint, dimension)
        self._base_position, self._base_rotation = self._base(spec.base)

    @property
    def home(self) -> Float64Array:
        """Positions of everything in the model at its home pose, (nq,)."""
        return np.array(self.model.key_qpos[0] if self.model.nkey else self.model.qpos0, np.float64)

    def hand(self, joints: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Position (3,) in m and rotation matrix (3, 3) of the hand. Args: joints: (J,), rad or m."""
        self._place(joints)
        position, rotation = self._pose()
        return self._base_rotation.T @ (position - self._base_position), self._base_rotation.T @ rotation

    def positions(self, path: Float64Array) -> Float64Array:
        """Positions (N, 3) of the hand for joints (N, J)."""
        return np.array([self.hand(joints)[0] for joints in path]).reshape(-1, 3)

    def jacobian(self, joints: Float64Array) -> Float64Array:
        """How the hand's position changes with the joints, (3, J)."""
        self._place(joints)
        self.mujoco.mj_comPos(self.model, self.data)
        jacobian = np.empty((3, self.model.nv))
        take = self.mujoco.mj_jacSite if self.frame_type == "site" else self.mujoco.mj_jacBody
        take(self.model, self.data, jacobian, None, self.hand_id)
        return np.asarray(self._base_rotation.T @ jacobian[:, self.dofs])

    def in_world(self, position: Float64Array, rotation: Float64Array) -> tuple[Float64Array, Float64Array]:
        """A pose of the robot's frame in that of the model."""
        return self._base_rotation @ position + self._base_position, self._base_rotation @ rotation

    def _place(self, joints: Float64Array) -> None:
        self.data.qpos[self.addresses] = joints
        self.mujoco.mj_kinematics(self.model, self.data)

    def _pose(self) -> tuple[Float64Array, Float64Array]:
        if self.frame_type == "site":
            return self.data.site_xpos[self.hand_id].copy(), self.data.site_xmat[self.hand_id].reshape(3, 3).copy()
        return self.data.xpos[self.hand_id].copy(), self.data.xmat[self.hand_id].reshape(3, 3).copy()

    def _hand(self, name: str) -> tuple[str, int]:
        kinds = {"site": self.mujoco.mjtObj.mjOBJ_SITE, "body": self.mujoco.mjtObj.mjOBJ_BODY}
        for kind, number in kinds.items():
            if (found := self.mujoco.mj_name2id(self.model, number, name)) >= 0:
                return kind, found
        sites = ", ".join(self.model.site(i).name for i in range(self.model.nsite)) or "none"
        bodies = ", ".join(self.model.body(i).name for i in range(1, self.model.nbody))
        raise SpecError(f"arm's model '{self._file}': hand '{name}' is no site ({sites}) and no body ({bodies}) of it")

    def _indices(self, dimensions: tuple[ActionDimension, ...], strict: bool) -> list[int]:
        """The model's number of each dimension's joint; sets `dimensions` to those that are in the model."""
        known = {self.model.joint(i).name: i for i in range(self.model.njnt)}
        if strict:
            for dimension in dimensions:
                if dimension.joint not in known:
                    raise SpecError(
                        f"arm's model '{self._file}': joint '{dimension.joint}' is not one of {', '.join(known)}"
                    )
        places = tuple(i for i, d in enumerate(dimensions) if d.joint in known)
        self.places = places
        """Where the J dimensions are among those that it was made for."""
        self.dimensions = tuple(dimensions[i] for i in places)
        return [known[d.joint] for d in self.dimensions]

    def _check_chain(self) -> None:
        """A joint that moves the hand and is not commanded would make every pose of the hand wrong."""
        body = self.model.site_bodyid[self.hand_id] if self.frame_type == "site" else self.hand_id
        chain: list[int] = []
        while body:
            first, count = self.model.body_jntadr[body], self.model.body_jntnum[body]
            chain += range(first, first + count) if count else ()
            body = self.model.body_parentid[body]
        if not chain:
            raise SpecError(f"arm's model '{self._file}': no joint moves the hand '{self.hand_name}'")
        if missing := [self.model.joint(i).name for i in chain if i not in self.joints]:
            raise SpecError(
                f"arm's model '{self._file}': '{self.hand_name}' is moved by {', '.join(reversed(missing))}, which no "
                "dimension of the robot commands"
            )

    def _check_limits(self, joint: int, dimension: ActionDimension) -> None:
        low, high = self.model.jnt_range[joint]
        inside = low - SLACK <= dimension.low and dimension.high <= high + SLACK
        if self.model.jnt_limited[joint] and not inside:
            raise SpecError(
                f"'{dimension.name}': its limits [{dimension.low:g}, {dimension.high:g}] are beyond those of "
                f"'{dimension.joint}' in '{self._file}', [{low:g}, {high:g}]; is it another joint?"
            )

    def _base(self, name: str) -> tuple[Float64Array, Float64Array]:
        body = self.mujoco.mj_name2id(self.model, self.mujoco.mjtObj.mjOBJ_BODY, name) if name else 0
        if body < 0 or self.model.body_weldid[body] != 0:
            fixed = [self.model.body(i).name for i in range(self.model.nbody) if self.model.body_weldid[i] == 0]
            raise SpecError(f"arm's model '{self._file}': base '{name}' is not one of its fixed {', '.join(fixed)}")
        self.mujoco.mj_kinematics(self.model, self.data)
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()
