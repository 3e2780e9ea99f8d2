"""Small real bags for the tests of the trainer."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from rollout_manager.bag import EpisodeWriter
from rollout_manager.episode import Driver, EpisodeHeader, LabelSource, Outcome
from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.commands import action_to_message, chunk_to_message
from vla_policy_node.messages import readings_to_messages, rosbags_maker, text_to_message, typestore
from vla_policy_node.observation import Float32Array, Joints, Pose, Readings
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import CameraSpec, ProprioceptionField, RobotSpec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, HUMAN_ACTION, INSTRUCTION, MESSAGE_TYPES

START_NS = 1_000_000_000
MAKE = rosbags_maker()


def make_spec(cameras: int = 2, size: tuple[int, int] = (16, 20)) -> RobotSpec:
    """A robot of two joints and a hand at 10 Hz, with two action dimensions limited to [-1, 1]."""
    return RobotSpec(
        name="testbot",
        rate_hz=10.0,
        cameras=tuple(CameraSpec(f"camera{i}", *size) for i in range(cameras)),
        proprioception=(
            ProprioceptionField("elbow", "joint_position", "elbow", "rad"),
            ProprioceptionField("hand_x", "ee_pose", "x", "m"),
        ),
        action=(ActionDimension("dx", "m", -1.0, 1.0), ActionDimension("grip", "1", -1.0, 1.0, "last")),
    )


SPEC = make_spec()


def make_header(
    episode_id: str = "episode",
    task: str = "push",
    driver: Driver = "expert",
    label_source: LabelSource = "sent",
    spec: RobotSpec = SPEC,
    attempt: int = 0,
) -> EpisodeHeader:
    return EpisodeHeader(
        episode_id=episode_id,
        environment="test",
        task=task,
        instruction=f"please {task} it",
        seed=0,
        robot=spec.name,
        spec_digest=spec.digest,
        driver=driver,
        control_mode="in_process",
        label_source=label_source,
        attempt=attempt,
    )


def readings_at(step: int, spec: RobotSpec = SPEC, seed: int = 0) -> Readings:
    """What the robot senses at a step: noise in the images, the step's number in joints and pose."""
    rng = np.random.default_rng([seed, step])
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras}
    joints = Joints(("wrist", "elbow"), np.array([9.0, 0.1 * step]))
    return Readings(images, joints, Pose(np.array([0.01 * step, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])))


def sent_at(step: int) -> Float32Array:
    """The action sent at a step."""
    return np.array([0.05 * step - 0.5, 0.25], np.float32)


def chunk_at(step: int, length: int = 3) -> Float32Array:
    """The chunk proposed at a step, shape (length, 2): told from what is sent by its second dimension."""
    return np.array([[0.05 * (step + i) - 0.5, -0.5] for i in range(length)], np.float32)


def human_at(step: int) -> Float32Array:
    """What a human asked for at a step: told from what is sent and from what is proposed by its second dimension."""
    return np.array([0.05 * step - 0.5, 0.75], np.float32)


def write_bag(
    root: Path,
    header: EpisodeHeader,
    steps: int,
    spec: RobotSpec = SPEC,
    skip: tuple[int, ...] = (),
    chunk_every: int = 2,
    seed: int = 0,
    outcome: Outcome | None = None,
    human: Collection[int] = (),
    chunks_at: Collection[int] | None = None,
) -> Path:
    """A bag of `steps` actions and a last observation; at steps in `skip` nothing at all is recorded.

    Args: human: steps that a human drove; chunks_at: those with a chunk, instead of every `chunk_every`-th.
    """
    writer = EpisodeWriter(root, header)

    def write(topic: str, type_name: str, stamp: int, message: object) -> None:
        writer.write(topic, type_name, stamp, bytes(typestore().serialize_cdr(message, type_name)))

    write(INSTRUCTION, MESSAGE_TYPES[INSTRUCTION], START_NS, text_to_message(MAKE, header.instruction))
    for step in range(steps + 1):
        stamp = START_NS + step * spec.period_ns
        if step in skip:
            continue
        for topic, type_name, message in readings_to_messages(MAKE, spec, readings_at(step, spec, seed), stamp):
            write(topic, type_name, stamp, message)
        if step == steps:
            break
        if step in human:
            asked = action_to_message(MAKE, spec, stamp, human_at(step))
            write(HUMAN_ACTION, MESSAGE_TYPES[HUMAN_ACTION], stamp, asked)
        if step % chunk_every == 0 if chunks_at is None else step in chunks_at:
            chunk = chunk_to_message(MAKE, spec, ActionChunk(stamp, chunk_at(step)))
            write(ACTION_CHUNK, MESSAGE_TYPES[ACTION_CHUNK], stamp, chunk)
        write(ACTION, MESSAGE_TYPES[ACTION], stamp, action_to_message(MAKE, spec, stamp, sent_at(step)))
    return writer.close(outcome or Outcome("success", steps, 1.0))
