"""The pieces of LIBERO's scripted expert that need no simulator: frames, surfaces, grasps, the order of goals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.experts.libero.drawer import EDGE, push_points
from rollout_manager.experts.libero.frames import (
    UP,
    Frame,
    angle_between,
    between,
    rotation_about,
    rotation_vector,
)
from rollout_manager.experts.libero.grasping import (
    WIDEST,
    easier_turn,
    grasps,
    hand_rotation,
    nearer_turn,
    tilted,
    top_down,
)
from rollout_manager.experts.libero.handles import handle_of
from rollout_manager.experts.libero.knob import ridge
from rollout_manager.experts.libero.motion import CLOSE, action_towards, hold
from rollout_manager.experts.libero.plan import in_order
from rollout_manager.experts.libero.surfaces import Shape, surface_points
from rollout_manager.experts.libero.wandering import edge_free, spaced, wander
from vla_policy_node.observation import Float64Array

angles = st.floats(-3.0, 3.0)
vectors = st.tuples(*[st.floats(-1.0, 1.0)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)


def box(*half: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Float64Array:
    points: Float64Array = surface_points(Shape("box", np.array(half))) + np.array(at)
    return points


def nothing() -> Float64Array:
    return np.empty((0, 3))


def down(points: Float64Array, around: Float64Array | None = None, yaw: float = 0.0) -> list[Frame]:
    """Hands of all grasps from above at one yaw, the best first."""
    around = nothing() if around is None else around
    return [g.hand for g in grasps(points, around, top_down(yaw), np.random.default_rng(0))]


def test_a_quarter_turn_about_up_takes_x_to_y() -> None:
    turned = rotation_about(UP, np.pi / 2)
    assert turned @ [1.0, 0.0, 0.0] == pytest.approx([0.0, 1.0, 0.0])
    frame = Frame(np.array([1.0, 2.0, 3.0]), turned)
    assert frame.points(np.array([[1.0, 0.0, 0.0]]))[0] == pytest.approx([1.0, 3.0, 3.0])
    assert (frame @ frame).position == pytest.approx([-1.0, 3.0, 6.0])


@given(vectors, angles)
def test_rotation_vector_undoes_rotation_about(axis: tuple[float, ...], angle: float) -> None:
    direction = np.array(axis) / np.linalg.norm(axis)
    assert rotation_vector(rotation_about(direction, angle)) == pytest.approx(direction * angle, abs=1e-6)


@given(vectors)
def test_half_a_turn_has_an_axis_too(axis: tuple[float, ...]) -> None:
    direction = np.array(axis) / np.linalg.norm(axis)
    turn = rotation_about(direction, np.pi)
    vector = rotation_vector(turn)
    assert np.linalg.norm(vector) == pytest.approx(np.pi)
    assert rotation_about(vector / np.pi, np.pi) == pytest.approx(turn, abs=1e-6)


@given(vectors, angles, vectors)
def test_a_frame_and_its_inverse_make_nothing(axis: tuple[float, ...], angle: float, at: tuple[float, ...]) -> None:
    frame = Frame(np.array(at), rotation_about(np.array(axis) / np.linalg.norm(axis), angle))
    nothing_done = frame @ frame.inverse()
    assert nothing_done.position == pytest.approx(np.zeros(3), abs=1e-9)
    assert nothing_done.rotation == pytest.approx(np.eye(3), abs=1e-9)


def test_half_way_between_two_frames() -> None:
    first = Frame(np.zeros(3), np.eye(3))
    second = Frame(np.array([2.0, 0.0, 4.0]), rotation_about(UP, 1.0))
    middle = between(first, second, 0.5)
    assert middle.position == pytest.approx([1.0, 0.0, 2.0])
    assert angle_between(first.rotation, middle.rotation) == pytest.approx(0.5)
    assert angle_between(middle.rotation, second.rotation) == pytest.approx(0.5)
    assert between(first, second, 1.0).rotation == pytest.approx(second.rotation)


def test_points_cover_the_surface_of_a_box() -> None:
    points = box(0.01, 0.02, 0.03)
    assert np.abs(points).max(axis=0) == pytest.approx([0.01, 0.02, 0.03])
    on_a_side = np.isclose(np.abs(points), [0.01, 0.02, 0.03]).any(axis=1)
    assert on_a_side.all()
    for probe in ([0.01, 0.0, 0.0], [0.0, -0.02, 0.011], [0.004, 0.005, -0.03]):
        assert np.linalg.norm(points - probe, axis=1).min() < 0.006


def test_points_of_round_shapes_lie_at_their_radius() -> None:
    cylinder = surface_points(Shape("cylinder", np.array([0.02, 0.05, 0.0])))
    radius = np.hypot(cylinder[:, 0], cylinder[:, 1])
    wall = np.abs(cylinder[:, 2]) < 0.05 - 1e-9
    assert radius[wall] == pytest.approx(np.full(wall.sum(), 0.02))
    assert np.abs(cylinder[:, 2]).max() == pytest.approx(0.05)
    ball = surface_points(Shape("sphere", np.array([0.03, 0.0, 0.0])))
    assert np.linalg.norm(ball, axis=1) == pytest.approx(np.full(len(ball), 0.03))


def test_points_of_a_mesh_lie_on_its_faces_and_are_the_same_every_time() -> None:
    vertices = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
    mesh = Shape("mesh", np.zeros(3), vertices, np.array([[0, 1, 2]], np.int32))
    points = surface_points(mesh)
    assert len(points) > 100
    assert np.all(points[:, 2] == 0)
    assert np.all(points[:, :2] >= -1e-12)
    assert np.all(points[:, 0] + points[:, 1] <= 0.1 + 1e-12)
    assert np.array_equal(points, surface_points(mesh))


def test_a_hand_is_a_right_handed_frame_that_points_and_closes_as_asked() -> None:
    rotation = hand_rotation(-UP, np.array([0.0, 1.0, 0.3]))
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert rotation[:, 2] == pytest.approx(-UP)
    assert rotation[:, 0] == pytest.approx([0.0, 1.0, 0.0])
    for leaning in tilted(np.pi / 4, 0.0):
        assert np.linalg.det(leaning) == pytest.approx(1.0)
        assert leaning[:, 2] == pytest.approx([np.sqrt(0.5), 0.0, -np.sqrt(0.5)])


def test_of_two_ways_round_the_hand_takes_the_nearer_one() -> None:
    present = top_down(0.0)
    assert nearer_turn(top_down(np.pi), present) == pytest.approx(present, abs=1e-9)
    assert nearer_turn(top_down(0.2), present) == pytest.approx(top_down(0.2))


def test_a_wrist_near_its_end_turns_the_other_way_round() -> None:
    """A quarter turn to the right and one to the left close the same way; the wrist grows as the hand turns right."""
    present, right, left = top_down(0.0), top_down(-np.pi / 2), top_down(np.pi / 2)
    for rotation in (right, left):
        assert easier_turn(rotation, present, 0.8) == pytest.approx(left, abs=1e-9)
        assert easier_turn(rotation, present, -0.8) == pytest.approx(right, abs=1e-9)
    assert easier_turn(top_down(0.2), present, 0.8) == pytest.approx(top_down(0.2))
    assert easier_turn(top_down(-0.2), present, 2.5) == pytest.approx(top_down(np.pi - 0.2)), "further out is no way"
    assert easier_turn(top_down(0.2), present, 2.5) == pytest.approx(top_down(0.2)), "back from the end it is"


def test_a_box_is_taken_in_the_middle_across_its_narrow_side() -> None:
    block = box(0.05, 0.02, 0.04, at=(0.3, 0.1, 0.94))
    (best, *_) = grasps(block, nothing(), top_down(0.0), np.random.default_rng(0))
    assert best.width == pytest.approx(0.04)
    assert best.hand.position == pytest.approx([0.3, 0.1, 0.98 - 0.02], abs=0.004)


def test_what_is_wider_than_the_hand_opens_is_refused() -> None:
    wide = WIDEST / 2 + 0.003
    assert not down(box(0.1, wide, 0.04))
    assert down(box(0.1, WIDEST / 2 - 0.003, 0.04))
    assert not down(box(0.03, 0.1, 0.04))  # Narrow the other way round:
    assert down(box(0.03, 0.1, 0.04), yaw=np.pi / 2)


def test_fingers_keep_off_what_a_flat_thing_lies_on() -> None:
    flat = box(0.04, 0.02, 0.01)
    assert min(hand.position[2] for hand in down(flat)) >= -0.01 + 0.0105 - 1e-9


def test_a_rim_is_taken_where_it_is_narrow() -> None:
    ring = surface_points(Shape("cylinder", np.array([0.07, 0.03, 0.0])))
    ring = ring[np.hypot(ring[:, 0], ring[:, 1]) > 0.0699]
    inner = ring * [0.95, 0.95, 1.0]
    bowl = np.vstack([ring, inner])
    hands = down(bowl)
    assert hands
    away = [np.hypot(*hand.position[:2]) for hand in hands]
    assert min(away) > 0.05


def test_grasps_with_more_room_around_come_first() -> None:
    bar = box(0.10, 0.012, 0.03)
    wall = box(0.02, 0.02, 0.08, at=(0.06, 0.06, 0.02))
    assert down(bar)[0].position[0] == pytest.approx(0.0, abs=0.02)
    assert down(bar, wall)[0].position[0] < 0.01


def test_an_action_is_a_share_of_what_the_controller_makes_of_one() -> None:
    hand = Frame(np.zeros(3), np.eye(3))
    action = action_towards(hand, Frame(np.array([0.0, 0.01, -0.005]), rotation_about(UP, 0.1)), CLOSE)
    # 0.01 m / 0.05 m * 1.6 and 0.1 rad / 0.5 rad * 1.2.
    assert action == pytest.approx([0.0, 0.32, -0.16, 0.0, 0.0, 0.24, 1.0])
    far = action_towards(hand, Frame(np.array([1.0, -0.5, 0.0]), np.eye(3)), CLOSE, speed=0.5)
    assert far == pytest.approx([0.5, -0.25, 0.0, 0.0, 0.0, 0.0, 1.0])


def test_holding_moves_nothing_but_the_fingers() -> None:
    assert np.array_equal(np.array(list(hold(CLOSE, 3))), [[0, 0, 0, 0, 0, 0, 1]] * 3)


def test_a_handle_is_what_stands_out_furthest() -> None:
    front = box(0.1, 0.005, 0.04)
    bar = box(0.04, 0.008, 0.008, at=(0.0, -0.03, 0.01))
    middle, extents = handle_of(np.vstack([front, bar]), np.array([0.0, -1.0, 0.0]))
    assert middle == pytest.approx([0.0, -0.032, 0.01], abs=0.003)
    assert extents[0] == pytest.approx(0.08)


def test_a_drawer_is_pushed_at_its_handle_or_beside_it_but_on_its_front() -> None:
    front = box(0.08, 0.005, 0.04)
    bar = box(0.04, 0.008, 0.008, at=(0.0, -0.03, 0.0))
    points = push_points(np.vstack([front, bar]), np.array([0.0, -1.0, 0.0]))
    assert points[0] == pytest.approx([0.0, -0.032, 0.0], abs=0.003)
    assert max(abs(at[0]) for at in points) == pytest.approx(0.06, abs=0.003)
    assert {round(float(at[2]), 3) for at in points} == {0.0, round(0.04 - EDGE, 3)}


def behind_a_wall(angles: Float64Array) -> bool:
    """A wall across the first joint's range with a gap at the upper end of the second's."""
    return bool(abs(angles[0]) > 0.3 or angles[1] > 1.2)


LOW, HIGH = np.full(7, -2.0), np.full(7, 2.0)


def test_where_the_straight_way_is_free_it_is_taken() -> None:
    start, goal = np.full(7, 0.5), np.full(7, 1.5)
    path = wander(start, goal, LOW, HIGH, behind_a_wall)
    assert path is not None
    assert len(path) == 1
    assert np.array_equal(path[0], goal)


def test_a_way_around_is_found_and_every_part_of_it_is_free() -> None:
    start, goal = np.array([-1.0, 0, 0, 0, 0, 0, 0]), np.array([1.0, 0, 0, 0.5, 0, 0, 0])
    assert not edge_free(start, goal, behind_a_wall)
    path = wander(start, goal, LOW, HIGH, behind_a_wall)
    assert path is not None
    assert np.array_equal(path[-1], goal)
    for share in np.linspace(0, 1, 50):
        for first, second in zip([start, *path[:-1]], path, strict=True):
            at = first + share * (second - first)
            assert abs(at[0]) > 0.2 or at[1] > 1.1
    again = wander(start, goal, LOW, HIGH, behind_a_wall)
    assert again is not None
    assert all(np.array_equal(one, other) for one, other in zip(path, again, strict=True))


def test_there_is_no_way_to_where_the_arm_cannot_be_or_through_a_wall_without_a_gap() -> None:
    start, goal = np.full(7, -1.0), np.full(7, 1.0)
    assert wander(start, np.zeros(7), LOW, HIGH, behind_a_wall) is None
    assert wander(start, goal, LOW, HIGH, lambda angles: bool(abs(angles[0]) > 0.3)) is None


def test_a_way_is_filled_up_with_what_lies_on_it() -> None:
    filled = spaced([np.full(2, 1.0), np.array([1.0, 3.0])], np.zeros(2), 0.6)
    expected = [[1 / 3, 1 / 3], [2 / 3, 2 / 3], [1.0, 1.0], [1.0, 1.5], [1.0, 2.0], [1.0, 2.5], [1.0, 3.0]]
    assert np.allclose(filled, expected)


def test_a_knob_is_taken_along_its_ridge() -> None:
    base = box(0.03, 0.03, 0.005)
    blade = box(0.02, 0.004, 0.02) @ rotation_about(UP, 0.5).T + [0.0, 0.0, 0.02]
    top, along = ridge(np.vstack([base, blade]))
    assert top == pytest.approx([0.0, 0.0, 0.04], abs=1e-6)
    assert abs(along @ [np.cos(0.5), np.sin(0.5), 0.0]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("goals", "expected"),
    [
        # What carries another thing is put in its place before that.
        (["on a b", "in b tray_region"], ["in b tray_region", "on a b"]),
        (["close top", "in a top"], ["in a top", "close top"]),
        (["on a roof", "close top"], ["close top", "on a roof"]),
        (["open top", "close bottom"], ["close bottom", "open top"]),
        (["on pot stove_region", "turnon stove"], ["turnon stove", "on pot stove_region"]),
        (["in a oven_inside", "close oven"], ["in a oven_inside", "close oven"]),
        (["in a box", "in b box"], ["in a box", "in b box"]),
        (["on a b", "on b a"], ["on a b", "on b a"]),
    ],
)
def test_goals_come_in_an_order_in_which_they_do_not_undo_each_other(goals: list[str], expected: list[str]) -> None:
    owners = {
        "tray_region": "tray",
        "top": "cabinet",
        "roof": "cabinet",
        "oven_inside": "oven",
        "stove_region": "stove",
    }
    ordered = in_order([tuple(goal.split()) for goal in goals], owners)
    assert [" ".join(goal) for goal in ordered] == expected
