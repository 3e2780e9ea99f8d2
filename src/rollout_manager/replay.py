"""A recorded try in the simulator again: do the actions that were sent lead where they led?

A simulator that resets exactly and is stepped once an action gives the same states to the last bit, on the machine
and with the versions that the bag was recorded with. On others it drifts; how far is measured at every step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rollout_manager.bag_reader import EpisodeReader
from rollout_manager.env import Env
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError, SimulatorError
from rollout_manager.rollout import Decision, Tick, run_episode
from vla_policy_node.commands import action_from_message
from vla_policy_node.messages import joints_from_message, pose_from_message, stamp_of
from vla_policy_node.observation import Float32Array, Float64Array, Joints, Pose
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import ACTION, EE_POSE, JOINT_STATES


@dataclass(frozen=True)
class Recorded:
    """What a bag says of the T steps of a try."""

    header: EpisodeHeader
    outcome: Outcome
    actions: Sequence[Float32Array]
    """T commands that were sent, each (A,), in the order of their stamps."""
    poses: Sequence[Pose | None]
    """Of each step: where the hand was when the action was decided; None where the bag does not say."""
    joints: Sequence[Joints | None]
    """Likewise, the joints."""


@dataclass(frozen=True)
class Replayed:
    """How the actions of a try went the second time."""

    recorded: Recorded
    outcome: Outcome
    hand_m: Float64Array
    """Of each step made: how far the hand was from where it had been, in m; not a number where that is not known."""
    joints_off: Float64Array
    """Likewise, the largest difference of a joint's position, in rad or m."""
    other_versions: tuple[str, ...]
    """What of the simulator has another version than when the bag was recorded, in words."""

    @property
    def as_recorded(self) -> bool:
        """Whether it ended as it had, after as many steps; of an aborted try, whether all its actions were made."""
        before = self.recorded.outcome
        if before.ending == "aborted":
            return self.outcome.steps == len(self.recorded.actions)
        return (self.outcome.ending, self.outcome.steps) == (before.ending, before.steps)


def check_robot(reader: EpisodeReader, spec: RobotSpec) -> None:
    """Raises: BagError: it was recorded on another robot."""
    header = reader.header
    if header.spec_digest != spec.digest:
        raise BagError(
            f"{reader.path}: recorded on robot '{header.robot}' with spec {header.spec_digest}; robot '{spec.name}' "
            f"has {spec.digest}"
        )


def stamps_of(reader: EpisodeReader, actions: Iterable[int]) -> list[int]:
    """The stamps of a bag's commands, ascending. Raises: BagError: there is none."""
    stamps = sorted(actions)
    if not stamps:
        raise BagError(f"{reader.path}: holds no message on {ACTION}, so there is nothing to replay")
    return stamps


def read_recorded(reader: EpisodeReader, spec: RobotSpec) -> Recorded:
    """The actions of a bag and where the robot was at each.

    Raises:
        BagError: it is another robot's, holds no action, or a message is damaged.
        MessageError: a message is not what the spec promises.
    """
    check_robot(reader, spec)
    actions: dict[int, Float32Array] = {}
    poses: dict[int, Pose] = {}
    joints: dict[int, Joints] = {}
    for topic, _, message in reader.messages((ACTION, EE_POSE, JOINT_STATES)):
        if topic == ACTION:
            stamp_ns, action = action_from_message(spec, message)
            actions[stamp_ns] = action
        elif topic == EE_POSE:
            poses[stamp_of(message)] = pose_from_message(message)
        else:
            joints[stamp_of(message)] = joints_from_message(message)
    stamps = stamps_of(reader, actions)
    return Recorded(
        reader.header,
        reader.outcome,
        [actions[s] for s in stamps],
        [poses.get(s) for s in stamps],
        [joints.get(s) for s in stamps],
    )


def replay_in_simulator(recorded: Recorded, env: Env) -> Replayed:
    """Make the try again with the actions that were sent, one a step.

    Raises:
        SimulatorError: the environment is another one, or has no such task or initial state.
    """
    header = recorded.header
    if header.environment != env.name:
        raise SimulatorError(f"episode '{header.episode_id}' is of '{header.environment}', not of '{env.name}'")
    driver = _Comparing(recorded, env)
    outcome = run_episode(env, driver, header, len(recorded.actions)).outcome
    now = env.versions()
    other = tuple(
        f"{name} {now.get(name, 'not there')}, recorded with {version}"
        for name, version in header.versions.items()
        if now.get(name) != version
    )
    return Replayed(recorded, outcome, np.array(driver.hand_m), np.array(driver.joints_off), other)


class _Comparing:
    """A driver that sends what was recorded, and before each action measures how far the robot is from where it was."""

    def __init__(self, recorded: Recorded, env: Env) -> None:
        self._recorded = recorded
        self._env = env
        self.hand_m: list[float] = []
        self.joints_off: list[float] = []

    def reset(self, header: EpisodeHeader) -> None:
        self.hand_m, self.joints_off = [], []

    def step(self, tick: Tick) -> Decision:
        k = len(self.hand_m)
        now = self._env.read(cameras=False)
        pose, joints = self._recorded.poses[k], self._recorded.joints[k]
        self.hand_m.append(np.nan if pose is None else float(np.linalg.norm(now.ee_pose.position - pose.position)))
        self.joints_off.append(np.nan if joints is None else _difference(now.joints, joints))
        return Decision(self._recorded.actions[k])


def _difference(one: Joints, other: Joints) -> float:
    """The largest difference of positions of the joints that both name; not a number where there is none."""
    both = [name for name in one.names if name in other.names]
    pairs = [(one.position[one.names.index(n)], other.position[other.names.index(n)]) for n in both]
    return max((abs(float(a - b)) for a, b in pairs), default=float("nan"))
