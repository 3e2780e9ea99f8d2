"""Assembling observations: the instant, the samples, and why there is none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.exceptions import MessageError, SpecError
from vla_policy_node.observation import (
    Joints,
    Missing,
    Observation,
    ObservationBuffer,
    Pose,
    Readings,
    rotation_columns,
)
from vla_policy_node.spec import CameraSpec, ProprioceptionField, RobotSpec

MS = 1_000_000

SPEC = RobotSpec(
    name="test arm",
    rate_hz=30.0,
    cameras=(CameraSpec("left", 4, 6), CameraSpec("right", 2, 2)),
    proprioception=(
        ProprioceptionField("height", "ee_pose", "z", "m"),
        ProprioceptionField("elbow", "joint_position", "elbow", "rad"),
        ProprioceptionField("elbow speed", "joint_velocity", "elbow", "rad/s"),
    ),
    action=(ActionDimension("elbow", "rad", -1, 1),),
    max_skew_s=0.05,
)


def image(camera: str, value: int = 0) -> np.ndarray:
    spec = SPEC.camera(camera)
    return np.full((spec.height, spec.width, 3), value, np.uint8)


def joints(elbow: float, names: tuple[str, ...] = ("shoulder", "elbow")) -> Joints:
    values = np.array([elbow if n == "elbow" else -99.0 for n in names])
    return Joints(names, values, values * 10)


def pose(height: float) -> Pose:
    return Pose(np.array([0.0, 0.0, height]), np.array([0.0, 0.0, 0.0, 1.0]))


def full_buffer(stamp_ns: int = 0) -> ObservationBuffer:
    buffer = ObservationBuffer(SPEC)
    buffer.instruction = "lift"
    readings = Readings({"left": image("left", 1), "right": image("right", 2)}, joints(0.5), pose(0.25))
    buffer.add_readings(stamp_ns, readings)
    return buffer


def test_an_observation_holds_the_specs_values_in_order() -> None:
    seen = full_buffer(7).assemble()
    assert isinstance(seen, Observation)
    assert seen.stamp_ns == 7
    np.testing.assert_array_equal(seen.proprioception, np.array([0.25, 0.5, 5.0], np.float32))
    assert seen.images["left"][0, 0, 0] == 1
    assert seen.images["right"].shape == (2, 2, 3)
    assert seen.instruction == "lift"


def test_joints_are_found_by_name_whatever_their_order() -> None:
    buffer = full_buffer()
    buffer.add_joints(MS, joints(0.75, ("elbow", "wrist", "shoulder")))
    later = buffer.assemble_at(MS)
    assert isinstance(later, Observation)
    assert later.proprioception[1] == np.float32(0.75)


def test_the_tick_is_the_newest_instant_that_all_streams_reached() -> None:
    buffer = full_buffer(0)
    buffer.add_image("left", 30 * MS, image("left", 3))
    buffer.add_image("right", 20 * MS, image("right", 4))
    for k in range(1, 26):
        buffer.add_joints(k * MS, joints(k))
        buffer.add_pose(k * MS, pose(k))
    seen = buffer.assemble()
    assert isinstance(seen, Observation)
    assert seen.stamp_ns == 20 * MS  # the right camera is the slowest
    assert seen.images["left"][0, 0, 0] == 1  # its frame of 30 ms is not yet due
    assert seen.proprioception[1] == 20.0


@given(st.data())
def test_late_samples_never_change_an_observation_already_made(data: st.DataObject) -> None:
    """The parity of live and bag rests on this: once a tick is reached, what arrives later cannot alter it."""
    buffer = full_buffer(0)
    stamps = {"left": 0, "right": 0, "joints": 0, "pose": 0}
    made: list[Observation] = []
    for _ in range(data.draw(st.integers(1, 40))):
        stream = data.draw(st.sampled_from(sorted(stamps)))
        stamps[stream] += data.draw(st.integers(1, 5)) * MS
        if stream == "joints":
            buffer.add_joints(stamps[stream], joints(stamps[stream]))
        elif stream == "pose":
            buffer.add_pose(stamps[stream], pose(stamps[stream]))
        else:
            buffer.add_image(stream, stamps[stream], image(stream, stamps[stream] // MS % 256))
        seen = buffer.assemble()
        if isinstance(seen, Observation):
            made.append(seen)
    for before in made:
        after = buffer.assemble_at(before.stamp_ns)
        assert isinstance(after, Observation)
        np.testing.assert_array_equal(after.proprioception, before.proprioception)
        np.testing.assert_array_equal(after.images["left"], before.images["left"])


def test_missing_names_each_silent_stream() -> None:
    missing = ObservationBuffer(SPEC).assemble()
    assert isinstance(missing, Missing)
    assert missing.reasons == tuple(f"{n}: nothing received" for n in ("left", "right", "joint_states", "ee_pose"))


def test_an_empty_instruction_is_missing() -> None:
    buffer = full_buffer()
    buffer.instruction = ""
    missing = buffer.assemble()
    assert isinstance(missing, Missing)
    assert missing.reasons == ("instruction: none given",)


def test_a_stream_too_far_behind_the_others_is_missing() -> None:
    buffer = ObservationBuffer(SPEC)
    buffer.instruction = "lift"
    buffer.add_image("left", 0, image("left"))
    buffer.add_image("left", 200 * MS, image("left"))
    buffer.add_image("right", 100 * MS, image("right"))
    buffer.add_joints(100 * MS, joints(0))
    buffer.add_pose(100 * MS, pose(0))
    missing = buffer.assemble()
    assert isinstance(missing, Missing)
    assert missing.reasons == ("left: 100 ms behind the others",)


def test_an_observation_older_than_the_tolerance_is_missing() -> None:
    buffer = full_buffer(0)
    assert isinstance(buffer.assemble(now_ns=50 * MS), Observation)
    late = buffer.assemble(now_ns=51 * MS)
    assert isinstance(late, Missing)
    assert len(late.reasons) == 4
    assert "51 ms old" in late.reasons[0]


def test_a_sample_that_is_not_newer_is_passed_over() -> None:
    buffer = full_buffer(10)
    assert not buffer.add_joints(10, joints(9))
    assert not buffer.add_pose(9, pose(9))
    assert buffer.add_pose(11, pose(9))


def test_what_cannot_be_is_refused_by_name() -> None:
    buffer = ObservationBuffer(SPEC)
    with pytest.raises(MessageError, match=r"camera 'left': image of shape \(2, 2, 3\).*\(4, 6, 3\)"):
        buffer.add_image("left", 0, image("right"))
    with pytest.raises(SpecError, match="'top' is not one of left, right"):
        buffer.add_image("top", 0, image("left"))
    with pytest.raises(MessageError, match="joint 'elbow' appears 0 times among shoulder"):
        buffer.add_joints(0, joints(0, ("shoulder",)))
    with pytest.raises(MessageError, match="joint 'elbow' appears 2 times"):
        buffer.add_joints(0, joints(0, ("elbow", "elbow")))
    with pytest.raises(MessageError, match="not finite"):
        buffer.add_joints(0, joints(np.nan))
    with pytest.raises(MessageError, match="not finite"):
        buffer.add_pose(0, pose(np.inf))


def test_a_joint_without_velocity_is_refused_only_where_velocity_is_read() -> None:
    buffer = ObservationBuffer(SPEC)
    with pytest.raises(MessageError, match="1 names but 0 velocities"):
        buffer.add_joints(0, Joints(("elbow",), np.zeros(1)))


def test_lengths_that_do_not_fit_are_refused() -> None:
    buffer = ObservationBuffer(SPEC)
    with pytest.raises(MessageError, match="2 names but 1 positions"):
        buffer.add_joints(0, Joints(("elbow", "shoulder"), np.zeros(1), np.zeros(2)))


def test_clear_forgets_samples_and_keeps_the_instruction() -> None:
    buffer = full_buffer()
    buffer.clear()
    assert isinstance(buffer.assemble(), Missing)
    assert buffer.instruction == "lift"


ROTATION = replace(
    SPEC,
    cameras=(),
    proprioception=tuple(ProprioceptionField(key, "ee_pose", key, "1") for key in ("r21", "r00", "qw", "x")),
)


def test_columns_of_a_quarter_turn_about_z_are_y_and_minus_x() -> None:
    quarter = np.array([0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)])
    assert rotation_columns(quarter) == pytest.approx([0, 1, 0, -1, 0, 0])


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_rotation_columns_are_those_of_a_rotation_whatever_the_quaternion_s_sign(q: list[float]) -> None:
    first, second = rotation_columns(np.array(q)).reshape(2, 3)
    assert np.linalg.norm(first) == pytest.approx(1)
    assert np.linalg.norm(second) == pytest.approx(1)
    assert first @ second == pytest.approx(0, abs=1e-9)
    assert rotation_columns(-np.array(q)) == pytest.approx(np.concatenate([first, second]))
    axis = np.array(q[:3])  # It is turned into itself.
    assert np.stack([first, second, np.cross(first, second)], 1) @ axis == pytest.approx(axis, abs=1e-9)


def test_a_spec_may_read_columns_of_the_pose_s_rotation_in_any_order() -> None:
    buffer = ObservationBuffer(ROTATION)
    buffer.instruction = "turn"
    half_about_x = Pose(np.array([5.0, 6.0, 7.0]), np.array([2.0, 0.0, 0.0, 0.0]))
    buffer.add_pose(0, half_about_x)
    seen = buffer.assemble()
    assert isinstance(seen, Observation)
    np.testing.assert_array_equal(seen.proprioception, np.array([0, 1, 0, 5], np.float32))


def test_the_zero_quaternion_is_refused_where_the_rotation_is_read() -> None:
    nothing = Pose(np.zeros(3), np.zeros(4))
    assert ObservationBuffer(SPEC).add_pose(0, nothing)
    with pytest.raises(MessageError, match="zero quaternion"):
        ObservationBuffer(ROTATION).add_pose(0, nothing)
