"""What `encore robot check` makes of what it hears of a robot: a finding for each stream and each controller.

Pure; `robot_check_node.py` listens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from statistics import median

import numpy as np

from trainer.diagnosis import Finding
from vla_policy_node.command_messages import COMMAND_TYPES
from vla_policy_node.familiarity import unfamiliar
from vla_policy_node.messages import observation_topics
from vla_policy_node.normalization import Statistics
from vla_policy_node.observation import Joints, Observation, Pose
from vla_policy_node.spec import NANOSECONDS, RobotSpec
from vla_policy_node.topics import EE_POSE, INSTRUCTION

SLOW = 0.8
"""Share of the robot's rate below which a stream is too slow."""
FULL_TURN = 2 * np.pi
"""rad; hardly a joint stands further from 0."""
FAR = 5.0
"""m; no arm's hand is further from its base."""


@dataclass
class Stream:
    """What was heard on one topic."""

    types: tuple[str, ...] = ()
    """Types that it is published with, one a publisher."""
    stamps_ns: list[int] = field(default_factory=list)
    """Of the messages' headers."""
    arrivals_ns: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Why messages could not be used."""


@dataclass
class Heard:
    """What was heard of a robot."""

    seconds: float
    """How long it was listened to."""
    streams: Mapping[str, Stream]
    """By topic."""
    topics: Sequence[str] = ()
    """All that there are in the graph."""
    listeners: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Types that each command topic is listened to with."""
    joints: Joints | None = None
    """The last joint state."""
    pose: Pose | None = None
    """The last pose of the hand."""
    observation: Observation | None = None
    """What a policy would be given of it all."""


def check_robot(spec: RobotSpec, heard: Heard, trained: Statistics | None = None) -> list[Finding]:
    """A finding for every topic of the robot, for its joints and its hand, and for how far its streams lie apart.

    Args: trained: of a policy; whether the robot is like the data that it was trained on is found too.
    """
    types = observation_topics(spec)
    findings = [_stream(spec, topic, kind, heard) for topic, kind in types.items() if topic != INSTRUCTION]
    if heard.joints is not None:
        findings.append(_joints(spec, heard.joints))
    if heard.pose is not None:
        findings.append(_hand(heard.pose))
    findings.append(_ages(spec, heard))
    if trained is not None:
        findings += _training(spec, heard.observation, trained)
    return findings + [_controller(command.topic, COMMAND_TYPES[command.kind], heard) for command in spec.commands]


def _stream(spec: RobotSpec, topic: str, kind: str, heard: Heard) -> Finding:
    stream = heard.streams[topic]
    if not stream.types:
        near = get_close_matches(topic, heard.topics, 1, 0.4)
        hint = f"; is it {near[0]}? Then remap it, or name it in the robot's file" if near else ""
        return Finding(topic, "missing", f"nobody publishes it{hint}")
    if kind not in stream.types:
        return Finding(topic, "missing", f"it is published as {', '.join(stream.types)}; the robot's file wants {kind}")
    if stream.problems:
        return Finding(topic, "missing", stream.problems[-1])
    if not stream.arrivals_ns:
        return Finding(topic, "missing", f"nothing came in {heard.seconds:.0f} s; the publisher may offer another QoS")
    rate = len(stream.arrivals_ns) / heard.seconds
    if rate < SLOW * spec.rate_hz:
        return Finding(topic, "missing", f"{rate:.1f} Hz, slower than the robot's {spec.rate_hz:g} Hz")
    latencies = [(a - s) / 1e6 for a, s in zip(stream.arrivals_ns, stream.stamps_ns, strict=True)]
    late = median(latencies)
    if abs(late) > 1e3 * spec.max_skew_s:
        clock = "its clock is another, or it is late" if late > 0 else "its stamps are in the future: clocks differ"
        return Finding(
            topic, "missing", f"stamped {late:.0f} ms before it arrives, more than max_skew_s allows; {clock}"
        )
    several = f", from {len(stream.types)} publishers at once" if len(stream.types) > 1 else ""
    text = f"{rate:.1f} Hz, {late:.0f} ms old when it arrives{several}"
    return _silence(topic, spec.silence_limit_s(topic), stream, Finding(topic, "note" if several else "ok", text))


def _silence(topic: str, limit_s: float, stream: Stream, otherwise: Finding) -> Finding:
    """Whether a stream comes often enough for its limit of silence, which a policy node counts between arrivals too."""
    gaps, limit = np.diff(stream.arrivals_ns) / 1e6, 1e3 * limit_s
    if not len(gaps) or not np.isfinite(limit):
        return otherwise
    longest, beyond = float(gaps.max()), int((gaps > limit).sum())
    if median(gaps) >= limit:
        text = f"a message every {median(gaps):.0f} ms, but its limit of silence is {limit:.0f} ms: it would never move"
        return Finding(topic, "missing", text)
    if beyond:
        text = (
            f"{otherwise.text}; {beyond} of {len(gaps)} intervals are longer than its limit of silence, {limit:.0f} ms "
            f"(one {longest:.0f} ms): the robot would hold each time"
        )
        return Finding(topic, "note", text)
    return replace(otherwise, text=f"{otherwise.text}; at most {longest:.0f} ms apart, {limit:.0f} ms may be")


def _joints(spec: RobotSpec, joints: Joints) -> Finding:
    wanted = [f for f in spec.proprioception if f.source == "joint_position" and f.unit == "rad"]
    places = {name: i for i, name in enumerate(joints.names)}
    for item in wanted:
        value = float(joints.position[places[item.key]]) if item.key in places else 0.0
        if abs(value) > FULL_TURN:
            return Finding("joints", "missing", f"{item.key} is at {value:.4g} rad: are these degrees (57.3 a radian)?")
    for dimension in spec.commanded:
        if dimension.joint in places:
            value = float(joints.position[places[dimension.joint]])
            if not dimension.low <= value <= dimension.high:
                limits = f"[{dimension.low:g}, {dimension.high:g}]"
                text = f"{dimension.joint} is at {value:.4g} {dimension.unit}, outside {limits}"
                if dimension.low <= value / 1000 <= dimension.high:
                    text += "; are these millimetres?"
                return Finding("joints", "missing", text)
    return Finding("joints", "ok", f"{len(joints.names)} joints, all within the limits of the robot's file")


def _hand(pose: Pose) -> Finding:
    away = float(np.linalg.norm(pose.position))
    if away > FAR:
        return Finding(EE_POSE, "missing", f"the hand is {away:.4g} m from the frame's origin: are these millimetres?")
    length = float(np.linalg.norm(pose.orientation))
    if abs(length - 1) > 0.01:
        return Finding(EE_POSE, "missing", f"the quaternion's length is {length:.3g}, not 1")
    return Finding(EE_POSE, "ok", f"the hand is {away:.2f} m from the frame's origin")


def _training(spec: RobotSpec, observation: Observation | None, trained: Statistics) -> list[Finding]:
    if observation is None:
        return [Finding("training data", "note", "not compared: no whole observation was heard")]
    unlike = unfamiliar(spec, trained, observation)
    if not trained.views:
        unlike = (*unlike, "what the cameras showed in training is not known of this checkpoint")
    like = [Finding("training data", "ok", "cameras and proprioception are as in training")]
    return [Finding("training data", "missing", text) for text in unlike] or like


def _ages(spec: RobotSpec, heard: Heard) -> Finding:
    """How far the streams' newest samples lie apart."""
    newest = {topic: stream.stamps_ns[-1] for topic, stream in heard.streams.items() if stream.stamps_ns}
    if len(newest) < 2:
        return Finding("together", "note", "fewer than two streams were heard")
    first, last = min(newest, key=newest.__getitem__), max(newest, key=newest.__getitem__)
    apart = (newest[last] - newest[first]) / NANOSECONDS
    if apart > spec.max_skew_s:
        text = f"{first} is {1e3 * apart:.0f} ms behind {last}, more than max_skew_s {spec.max_skew_s:g} s"
        return Finding("together", "missing", text)
    return Finding("together", "ok", f"the newest samples lie {1e3 * apart:.0f} ms apart, {spec.max_skew_s:g} s may be")


def _controller(topic: str, kind: str, heard: Heard) -> Finding:
    types = heard.listeners.get(topic, ())
    if not types:
        return Finding(topic, "missing", "nobody listens to it; is the controller loaded and active?")
    if kind not in types:
        return Finding(topic, "missing", f"it is listened to as {', '.join(types)}; the robot's file sends {kind}")
    return Finding(topic, "ok", f"{len(types)} listening")
