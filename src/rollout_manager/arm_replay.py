"""A recording's actions into a live arm: brought to where it began, then as they were sent, through the safety filter.

Pure: times are integer ns, and who listens or publishes is somebody else's business (`arm_replay_node.py`).
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from rollout_manager.bag_reader import EpisodeReader
from rollout_manager.exceptions import BagError
from rollout_manager.replay import check_robot, stamps_of
from vla_policy_node.commands import action_from_message
from vla_policy_node.events import kind_of
from vla_policy_node.messages import joints_from_message, stamp_of
from vla_policy_node.observation import Float32Array, Float64Array, Joints
from vla_policy_node.safety import SafeCommand, SafetyFilter, travelling
from vla_policy_node.spec import NANOSECONDS, RobotSpec
from vla_policy_node.topics import ACTION, JOINT_STATES

Phase = Literal["approach", "play", "stop", "over"]
THERE = 0.02
"""How far a joint may be from where the recording began, in its unit, when it is played: servos lag and sag."""
APPROACH_SLACK_S = 5.0
"""How much longer than at an even speed the approach may take before it is given up."""
GONE_NS = NANOSECONDS // 2
"""Age of the last joint states at which the replay ends; from `RobotSpec.silence_limit_s` on it waits for them."""


@dataclass(frozen=True)
class ArmRecording:
    """What of a bag is sent to an arm, and what its joints did then. Times in ns from the first action on."""

    name: str
    times_ns: Sequence[int]
    """Of each action, ascending."""
    actions: Float32Array
    """(T, A)."""
    joint_times_ns: Sequence[int]
    positions: Mapping[str, Float64Array]
    """Of each joint that an action commands, at the times above: (N,)."""

    @property
    def ends_ns(self) -> int:
        """When the last action has been there for as long as the others."""
        steps = np.diff(self.times_ns)
        return self.times_ns[-1] + (int(np.median(steps)) if len(steps) else 0)

    def action_at(self, time_ns: int) -> Float32Array:
        """The newest action by then, (A,); before the first, that one."""
        action: Float32Array = self.actions[max(0, bisect_right(self.times_ns, time_ns) - 1)]
        return action

    def position_at(self, joint: str, time_ns: int) -> float:
        """Where a joint was then; not a number where the bag does not say."""
        if joint not in self.positions:
            return float("nan")
        return float(np.interp(time_ns, self.joint_times_ns, self.positions[joint], left=np.nan, right=np.nan))


def read_arm_recording(reader: EpisodeReader, spec: RobotSpec) -> ArmRecording:
    """The actions of a bag, and the joints that they commanded.

    Raises:
        BagError: it is another robot's, holds no action, or the robot is not commanded by the positions of its joints.
        MessageError: a message is not what the spec promises.
    """
    check_robot(reader, spec)
    if other := [d.name for d in spec.action if not d.joint]:
        raise BagError(
            f"robot '{spec.name}': {', '.join(other)} command no joint's position; only an arm that is commanded by "
            "the positions of its joints can be brought to where a recording began"
        )
    actions: dict[int, Float32Array] = {}
    joints: list[tuple[int, Joints]] = []
    for topic, _, message in reader.messages((ACTION, JOINT_STATES)):
        if topic == ACTION:
            stamp_ns, action = action_from_message(spec, message)
            actions[stamp_ns] = action
        else:
            joints.append((stamp_of(message), joints_from_message(message)))
    stamps = stamps_of(reader, actions)
    first = stamps[0]
    joints.sort(key=lambda one: one[0])
    names = dict.fromkeys(d.joint for d in spec.action if joints and d.joint in joints[0][1].names)
    positions = {n: np.array([j.position[j.names.index(n)] for _, j in joints]) for n in names}
    times = [stamp - first for stamp in stamps]
    return ArmRecording(
        reader.header.episode_id,
        times,
        np.stack([actions[s] for s in stamps]),
        [t - first for t, _ in joints],
        positions,
    )


@dataclass(frozen=True)
class ArmReplayConfig:
    """How a recording is sent to an arm."""

    rate: float = 1.0
    """How many times as fast as recorded, above 0."""
    within: float = 1.0
    """How far a joint may be from where the recording began, in its unit; further off nothing is sent at all."""
    approach: float = 0.25
    """Share of the robot's speeds at which the arm is brought there, in (0, 1]."""

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.within > 0 and 0 < self.approach <= 1):
            raise BagError(
                f"replay into an arm: rate {self.rate} and within {self.within} must be above 0, approach "
                f"{self.approach} in (0, 1]"
            )


@dataclass
class ArmReplayReport:
    """How a replay went."""

    ended: str = ""
    """Why it did not play to the end; empty where it did."""
    sent: int = 0
    """Commands that were sent while the recording played."""
    limited: Counter[str] = field(default_factory=Counter)
    """How often what was recorded was not sent as it was, by the dimension and the limit."""
    errors: dict[str, list[float]] = field(default_factory=dict)
    """By joint, of each tick: how far it was from where it had been at the same moment, in rad or m."""


class ArmReplay:
    """Says what to send at each tick: approach, play, and brake wherever something ends it."""

    def __init__(self, recording: ArmRecording, spec: RobotSpec, config: ArmReplayConfig) -> None:
        self._recording, self._spec, self._config = recording, spec, config
        slow = tuple(replace(d, velocity=d.velocity * config.approach) for d in spec.action)
        self._slow = SafetyFilter(travelling(replace(spec, action=slow)))
        self._safety = self._slow
        self._silent_ns = min(GONE_NS, int(min(spec.silence_limit_s(JOINT_STATES), 1e3) * NANOSECONDS))
        self._begun_ns = self._ticked_ns = 0
        self.report = ArmReplayReport(errors={d.joint: [] for d in spec.action})
        self.phase: Phase = "approach"

    def check_start(self, joints: Joints) -> None:
        """Raises: BagError: a joint is not told of, or further from where the recording began than is allowed."""
        for dimension, first in zip(self._spec.action, self._recording.actions[0], strict=True):
            if dimension.joint not in joints.names:
                raise BagError(f"the arm says nothing of {dimension.joint}, which the recording commands")
            at = joints.position[joints.names.index(dimension.joint)]
            if not abs(at - first) <= self._config.within:
                raise BagError(
                    f"{dimension.joint} is at {at:.3f} {dimension.unit}, the recording begins at {first:.3f}: further "
                    f"than {self._config.within:g} off; bring the arm nearer, or allow more with --within"
                )

    def tick(self, now_ns: int, joints: Joints, joints_ns: int, stopped: Sequence[str] = ()) -> SafeCommand | None:
        """The command for now; None when all is over.

        Args:
            joints: the newest joint states, and `joints_ns` when they were heard.
            stopped: why the arm must stop; it brakes, and the replay ends with it.
        """
        age_ns, since_ns = now_ns - joints_ns, now_ns - (self._ticked_ns or now_ns)
        self._ticked_ns = now_ns
        silence = f"joint states: the last are {age_ns / 1e6:.0f} ms old"
        if stopped or age_ns > GONE_NS:
            self._stop("; ".join([*stopped, *[silence] * (age_ns > GONE_NS)]))
        if self.phase == "stop":
            return self._brake(now_ns)
        self._begun_ns = self._begun_ns or now_ns
        if age_ns > self._silent_ns and self._safety.located:
            self._begun_ns += since_ns  # The recording waits, and goes on where it was.
            self.report.limited["joint states: late"] += 1
            return self._safety.hold((silence,), now_ns)
        seen = self._proprioception(joints)
        if self.phase == "approach":
            command = self._safety.check(self._recording.actions[0], (), seen, now_ns)
            self._see_arrival(now_ns, joints, command)
            return command
        return self._play(now_ns, joints, seen)

    def _play(self, now_ns: int, joints: Joints, seen: Float32Array) -> SafeCommand | None:
        at_ns = round((now_ns - self._begun_ns) * self._config.rate)
        if at_ns >= self._recording.ends_ns:
            self.phase = "stop"
            return self._brake(now_ns)
        # Half a period on: a tick that is a little early is not to repeat the action before.
        half = round(self._spec.period_ns * self._config.rate / 2)
        command = self._safety.check(self._recording.action_at(at_ns + half), (), seen, now_ns)
        self.report.sent += 1
        self.report.limited.update(map(kind_of, command.reasons))
        for joint, errors in self.report.errors.items():
            errors.append(joints.position[joints.names.index(joint)] - self._recording.position_at(joint, at_ns))
        return command

    def _stop(self, why: str) -> None:
        if self.phase in ("approach", "play"):
            self.phase, self.report.ended = "stop", why

    def _brake(self, now_ns: int) -> SafeCommand | None:
        if not self._safety.located:
            self.phase = "over"
            return None
        command = self._safety.hold((self.report.ended or "the recording is over",), now_ns)
        if self._safety.at_rest:
            self.phase = "over"
        return command

    def _see_arrival(self, now_ns: int, joints: Joints, command: SafeCommand) -> None:
        first = self._recording.actions[0]
        at = np.array([joints.position[joints.names.index(d.joint)] for d in self._spec.action])
        off = np.abs(np.stack([at, command.action]) - first).max(axis=0)
        if (off <= THERE).all():
            self.phase, self._begun_ns = "play", now_ns
            self._safety = SafetyFilter(self._spec)
            self._safety.reset(command.action)
            return
        speeds = np.array([d.velocity * self._config.approach for d in self._spec.action])
        allowed_s = APPROACH_SLACK_S + float((self._config.within / speeds).max())
        if now_ns - self._begun_ns > allowed_s * NANOSECONDS:
            worst = self._spec.action[int(off.argmax())]
            self._stop(f"{worst.joint} did not come to where the recording began: {off.max():.3f} {worst.unit} off")

    def _proprioception(self, joints: Joints) -> Float32Array:
        """What the safety filter looks at, (P,): where the joints are that an action commands."""
        seen = np.zeros(len(self._spec.proprioception), np.float32)
        for dimension, place in zip(self._spec.action, self._spec.measured_at, strict=True):
            if place is not None:
                seen[place] = joints.position[joints.names.index(dimension.joint)]
        return seen
