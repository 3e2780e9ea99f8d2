"""Frozen cameras: the very same picture while the robot moves, by hand and for any sequence."""

from dataclasses import replace

import numpy as np
import pytest
from graph_helpers import METAWORLD
from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.exceptions import SpecError
from vla_policy_node.frozen import MOVED, FrozenCameras
from vla_policy_node.observation import Float32Array, ImageArray, Observation
from vla_policy_node.spec import ProprioceptionField, RobotSpec

WATCHED = replace(
    METAWORLD,
    max_frozen_s=0.2,
    proprioception=(
        ProprioceptionField("elbow", "joint_position", "elbow", "rad"),
        ProprioceptionField("elbow_speed", "joint_velocity", "elbow", "rad/s"),
    ),
)
MS = 1_000_000
CAMERA = WATCHED.camera_names[0]


def picture(value: int) -> ImageArray:
    return np.full((4, 4, 3), value, np.uint8)


def seen(ms: int, value: int, elbow: float, speed: float = 0.0) -> Observation:
    where: Float32Array = np.array([elbow, speed], np.float32)
    return Observation(ms * MS, {CAMERA: picture(value)}, where, "go")


def test_it_is_frozen_after_its_time_while_the_robot_moves() -> None:
    cameras = FrozenCameras(WATCHED)
    assert cameras.check(seen(0, 1, 0.0)) == ()
    assert cameras.check(seen(199, 1, 0.5)) == ()
    assert cameras.check(seen(200, 1, 0.5)) == (
        f"{CAMERA}: the very same picture for 200 ms while the robot moved by 0.50 (rad or m)",
    )
    assert cameras.check(seen(300, 1, 0.5)) != (), "standing still again does not thaw it"
    assert cameras.check(seen(333, 2, 0.5)) == ()


def test_a_scene_at_rest_is_not_frozen() -> None:
    cameras = FrozenCameras(WATCHED)
    assert all(cameras.check(seen(ms, 1, 0.9 * MOVED * (ms % 2), speed=9.0)) == () for ms in range(0, 5000, 33))


def test_without_knowing_how_it_moves_time_alone_says_it() -> None:
    cameras = FrozenCameras(replace(WATCHED, proprioception=()))
    nowhere = np.empty(0, np.float32)
    assert cameras.check(Observation(0, {CAMERA: picture(1)}, nowhere, "go")) == ()
    said = cameras.check(Observation(250 * MS, {CAMERA: picture(1)}, nowhere, "go"))
    assert said == (f"{CAMERA}: the very same picture for 250 ms",)


def test_unless_a_robots_file_asks_for_it_nothing_is_checked() -> None:
    cameras = FrozenCameras(replace(WATCHED, max_frozen_s=np.inf))
    assert all(cameras.check(seen(1000 * k, 1, float(k))) == () for k in range(9))
    with pytest.raises(SpecError, match=r"max_frozen_s 0\.0 is not positive"):
        replace(WATCHED, max_frozen_s=0.0)
    assert RobotSpec.from_dict(WATCHED.to_dict()) == WATCHED
    assert replace(WATCHED, max_frozen_s=1.0).digest == WATCHED.digest


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-1, 1, width=32)), min_size=1, max_size=40))
def test_it_says_so_exactly_when_a_picture_outlasts_its_time_and_a_move(history: list[tuple[int, float]]) -> None:
    cameras = FrozenCameras(WATCHED)
    first = 0
    for k, (value, elbow) in enumerate(history):
        if value != history[first][0]:
            first = k
        moved = abs(np.float32(elbow) - np.float32(history[first][1])) >= MOVED
        assert bool(cameras.check(seen(50 * k, value, elbow))) == (k - first >= 4 and moved)
