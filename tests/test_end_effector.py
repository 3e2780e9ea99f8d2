"""A hand that is displaced: it goes where it is told, through joints that keep all their limits, whatever comes in."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arm_robots import FINGER, HOME, PANDA_EE, UR5E, Floats, arm_joints, boxed, model_of, seen
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_checks import MODES, SWITCHES, Switches, check_limits
from scipy.spatial.transform import Rotation
from test_kinematics import URDF

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.command_messages import command_message
from vla_policy_node.command_spec import CommandSpec
from vla_policy_node.end_effector import EndEffectorFilter, make_safety_filter
from vla_policy_node.exceptions import OutOfReachError
from vla_policy_node.inverse_kinematics import InverseKinematics
from vla_policy_node.kinematics import ArmModel
from vla_policy_node.kinematics_spec import KinematicsSpec
from vla_policy_node.limit_switches import LimitMode
from vla_policy_node.messages import rosbags_maker
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import RobotSpec

FREE = replace(PANDA_EE, workspace=None)
PERIOD = PANDA_EE.period_ns / 1e9
ARM = model_of(PANDA_EE)
START = ARM.hand(HOME)


class Panda:
    """An arm that is where it is sent, and what was sent to it."""

    def __init__(self, spec: RobotSpec = FREE, mode: LimitMode = "clamp", joints: Floats = HOME) -> None:
        self.spec, self.gate = spec, make_safety_filter(spec, mode)
        self.joints, self.sent = joints, [joints]
        self.reasons: list[tuple[str, ...]] = [()]
        self.follows = True

    def tell(self, displacement: Any, ticks: int = 1) -> "Panda":
        for _ in range(ticks):
            asked = None if displacement is None else [*displacement, FINGER]
            self.command = self.gate.check(asked, (), seen(self.spec, self.joints))
            self._take()
        return self

    def hold(self) -> None:
        self.command = self.gate.hold(("stopped",))
        self._take()

    def _take(self) -> None:
        assert np.isfinite(self.command.commanded).all()
        self.sent.append(arm_joints(self.spec, self.command))
        self.joints = self.sent[-1] if self.follows else self.joints
        self.reasons.append(self.command.reasons)

    def hand(self) -> tuple[Floats, Floats]:
        return ARM.hand(self.sent[-1])

    def hands(self) -> Floats:
        return ARM.positions(np.array(self.sent))

    def check(self) -> None:
        assert self.spec.kinematics is not None
        for i, joint in enumerate(self.spec.kinematics.joints):
            check_limits(np.array(self.sent)[:, i], joint, PERIOD)


def angle(one: Floats, other: Floats) -> float:
    return float(np.linalg.norm(Rotation.from_matrix(one @ other.T).as_rotvec()))


def test_what_is_told_adds_up_by_hand() -> None:
    # 20 ticks of (5, 2, -3) mm and of 0.02 rad about z, from where the arm is; then 15 in which it comes to rest.
    panda = Panda().tell([0.005, 0.002, -0.003, 0, 0, 0.02], 20).tell([0] * 6, 15)
    position, rotation = panda.hand()
    np.testing.assert_allclose(position - START[0], [0.1, 0.04, -0.06], atol=2e-4)
    np.testing.assert_allclose(rotation, Rotation.from_rotvec([0, 0, 0.4]).as_matrix() @ START[1], atol=1e-3)
    assert not any(panda.reasons)
    panda.hold()
    assert panda.gate.at_rest
    panda.check()


@given(st.floats(0.42, 0.66), st.floats(-0.15, 0.15), st.floats(0.02, 0.2))
@settings(deadline=None, max_examples=20)
def test_a_plan_finds_joints_for_a_hand_that_points_down(x: float, y: float, z: float) -> None:
    position, down = np.array([x, y, z]), np.diag([1.0, -1.0, -1.0])
    joints = InverseKinematics(ARM, PERIOD, 0.0).reach(HOME, position, down)
    is_at, turned = ARM.hand(joints)
    np.testing.assert_allclose(is_at, position, atol=1e-4)
    np.testing.assert_allclose(turned, down, atol=1e-4)
    assert all(d.low - 1e-9 <= value <= d.high + 1e-9 for d, value in zip(ARM.dimensions, joints, strict=True))


def test_what_no_joints_reach_is_said() -> None:
    with pytest.raises(OutOfReachError, match=r"cannot be brought to \[2\.0, 0\.0, 0\.1\] m"):
        InverseKinematics(ARM, PERIOD, 0.0).reach(HOME, np.array([2.0, 0.0, 0.1]), np.diag([1.0, -1.0, -1.0]))


def test_a_turn_is_about_the_hands_own_point() -> None:
    panda = Panda().tell([0, 0, 0, 0.02, 0, 0], 15).tell([0] * 6, 15)
    position, rotation = panda.hand()
    np.testing.assert_allclose(position, START[0], atol=2e-4)
    np.testing.assert_allclose(rotation, Rotation.from_rotvec([0.3, 0, 0]).as_matrix() @ START[1], atol=1e-3)


def test_another_arm_is_displaced_as_well() -> None:
    """The UR5e's six joints, of whose spec only the kinematics and the action are others."""
    hand = KinematicsSpec("ur5e", "grip", "base_link", PANDA_EE.action_names[:6], UR5E.action[:6])
    spec = replace(UR5E, action=(*PANDA_EE.action[:6], UR5E.action[6]), kinematics=hand, commands=())
    arm, joints = model_of(spec), np.array([0.0, -1.5708, 1.5708, -1.5708, -1.5708, 0.0])
    start, gate, sent = arm.hand(joints), make_safety_filter(spec), [joints]
    for tick in range(45):
        asked = [0.0, 0.004, -0.002, 0.0, 0.0, 0.01] if tick < 25 else [0.0] * 6
        command = gate.check([*asked, 0.1], (), seen(spec, sent[-1]))
        sent.append(command.joints.astype(np.float64))
    position, rotation = arm.hand(sent[-1])
    np.testing.assert_allclose(position - start[0], [0, 0.1, -0.05], atol=5e-4)
    np.testing.assert_allclose(rotation, Rotation.from_rotvec([0, 0, 0.25]).as_matrix() @ start[1], atol=2e-3)
    for i, joint in enumerate(hand.joints):
        check_limits(np.array(sent)[:, i], joint, PERIOD)


def test_an_arm_whose_urdf_has_no_shapes_is_displaced_too(tmp_path: Path) -> None:
    (tmp_path / "two.urdf").write_text(URDF)
    joints = (
        ActionDimension("turn", "rad", -1, 2, "last", velocity=1, acceleration=5, joint="turn"),
        ActionDimension("slide", "m", 0, 0.4, "last", velocity=1, acceleration=5, joint="slide"),
    )
    arm = ArmModel(KinematicsSpec(str(tmp_path / "two.urdf"), "tool", "stand"), joints)
    inverse, at = InverseKinematics(arm, PERIOD, 0.01), np.array([0.2, 0.1])
    position, rotation = arm.hand(at)
    outwards = rotation @ [0.005, 0, 0]
    np.testing.assert_allclose(inverse.solve(at, position + outwards, rotation), [0.2, 0.105], atol=1e-5)
    # At its end the rail goes no further, and neither does the hand.
    end = np.array([0.2, 0.4])
    np.testing.assert_allclose(inverse.solve(end, arm.hand(end)[0] + outwards, rotation), end, atol=1e-5)


def test_it_begins_where_the_joints_are_and_sends_nothing_before() -> None:
    gate = make_safety_filter(PANDA_EE)
    assert isinstance(gate, EndEffectorFilter)
    assert not gate.located
    elsewhere = HOME + 0.1
    command = gate.check([0.0] * 6 + [FINGER], (), seen(PANDA_EE, elsewhere))
    assert gate.located
    np.testing.assert_allclose(command.joints, elsewhere, atol=1e-5)


def test_what_needs_no_limit_is_told_bit_for_bit() -> None:
    asked = np.array([0.003, -0.001, 0.002, 0.01, 0, -0.004, FINGER], np.float32)
    command = make_safety_filter(PANDA_EE, "reject").check(asked, (), seen(PANDA_EE, HOME))
    assert (command.held, command.reasons) == (False, ())
    np.testing.assert_array_equal(command.action, asked)


DISPLACEMENT = st.one_of(
    st.none(),
    st.just([math.nan] * 6),
    st.tuples(st.integers(0, 5), st.sampled_from([-1, 1])).map(
        lambda x: [x[1] if i == x[0] else 0.0 for i in range(6)]
    ),
    st.lists(st.floats(-1, 1), min_size=6, max_size=6),
)
"""In shares of a dimension's limits; each is told for some ticks."""
PROGRAM = st.lists(st.tuples(DISPLACEMENT, st.integers(1, 12)), min_size=1, max_size=8)
LARGEST = np.array([d.high for d in PANDA_EE.action[:6]])


def follow(panda: Panda, program: list[tuple[Any, int]]) -> None:
    for displacement, ticks in program:
        panda.tell(None if displacement is None else np.array(displacement) * LARGEST, ticks)
    for _ in range(12):
        panda.hold()


@settings(deadline=None, max_examples=40)
@given(PROGRAM, MODES, SWITCHES, st.lists(st.floats(-0.4, 0.4), min_size=7, max_size=7))
def test_no_sequence_makes_joints_leave_their_limits_or_the_hand_its_box(
    program: list[tuple[Any, int]], mode: LimitMode, switches: Switches, off: list[float]
) -> None:
    start = HOME + np.array(off)
    spec = replace(boxed(PANDA_EE, (0.33, -0.12, 0.33), (0.53, 0.12, 0.53)), limits=switches)
    panda = Panda(spec, mode, start)
    follow(panda, program)
    panda.check()
    assert panda.gate.at_rest
    # Where it begins outside it gets no further out, on each axis, and once inside, by a millimetre, it stays there.
    assert spec.workspace is not None
    low, high, hands = np.array(spec.workspace.low), np.array(spec.workspace.high), panda.hands()
    out = np.maximum(np.maximum(low - hands, hands - high), 0)
    assert (out <= out[0] + 1e-6).all()
    within = (low + 0.001 <= hands) & (hands <= high - 0.001)
    assert not (out * np.logical_or.accumulate(within, axis=0)).any()


@settings(deadline=None, max_examples=15)
@given(PROGRAM)
def test_an_arm_that_is_blocked_is_led_on_by_no_more_than_its_lead(program: list[tuple[Any, int]]) -> None:
    panda = Panda()
    panda.follows = False
    follow(panda, program)
    panda.check()
    # And the way that it takes to brake from 0.7 rad/s at 3 rad/s^2, with half of 0.05 s for its jerk: 0.1 rad.
    assert np.abs(np.array(panda.sent) - HOME).max() <= 0.3 + 0.7**2 / (2 * 3.0) + 0.7 * 0.05 / 2


def test_what_could_not_be_gone_is_not_made_up_for_on_the_way_back() -> None:
    panda = Panda()
    panda.follows = False
    panda.tell([0.01, 0, 0, 0, 0, 0], 60)
    ahead = panda.hand()[0][0]
    assert any("is more than 0.3 from panda_joint" in reason for reason in panda.reasons[-1])
    panda.tell([-0.01, 0, 0, 0, 0, 0], 12)
    assert panda.hand()[0][0] < ahead - 0.05


def test_beyond_its_reach_it_stops_says_so_and_comes_back_at_once() -> None:
    panda = Panda().tell([0.01, 0, 0, 0, 0, 0], 90)
    panda.check()
    assert any(reason.startswith("kinematics: the hand stays") for reason in panda.reasons[-1])
    # By the published lengths its wrist gets sqrt(.316^2 + .0825^2) + sqrt(.384^2 + .0825^2) = .719 m from
    # its shoulder; it is .2104 m above the hand, which points down, and .088 m behind.
    reach = np.sqrt(0.719**2 - (START[0][2] + 0.2104 - 0.333) ** 2) + 0.088
    out = panda.hand()[0]
    assert reach - 0.02 < out[0] < reach
    np.testing.assert_allclose(out[1:], START[0][1:], atol=2e-3)
    np.testing.assert_array_equal(panda.command.action[:6], 0)
    # A stretched arm's joints turn far for the first of its way back.
    panda.tell([-0.01, 0, 0, 0, 0, 0], 10)
    assert (np.diff(panda.hands()[-4:, 0]) < 0).all()
    panda.tell([-0.01, 0, 0, 0, 0, 0], 25)
    panda.check()
    assert panda.hand()[0][0] < out[0] - 0.05


def test_a_hand_that_cannot_keep_up_goes_the_same_way_more_slowly() -> None:
    panda = Panda(FREE, "reject").tell([0.01, 0, 0, 0, 0, 0], 30)
    assert not panda.command.held
    assert "motion: the hand goes as fast as it may" in {reason for told in panda.reasons for reason in told}
    moved = panda.tell([0] * 6, 15).hands() - START[0]
    assert 0.1 < moved[-1, 0] < 0.29
    np.testing.assert_allclose(moved[-1, 1:], 0, atol=2e-3)
    panda.check()


def test_where_velocity_rejects_it_holds_before_a_displacement_that_joints_are_too_slow_for() -> None:
    panda = Panda(replace(FREE, limits={"velocity": "reject"})).tell([0.01, 0, 0, 0, 0, 0], 30)
    held = [told for told in panda.reasons if told == ("motion: the hand goes as fast as it may",)]
    assert held
    assert panda.command.held
    slowly = Panda(replace(FREE, limits={"velocity": "reject"})).tell([0.002, 0, 0, 0, 0, 0], 30)
    assert not slowly.command.held
    panda.check()


def test_its_reach_has_a_switch_of_its_own() -> None:
    out = [0.01, 0, 0, 0, 0, 0]
    assert Panda(replace(FREE, limits={"reach": "reject"})).tell(out, 90).command.held
    assert not Panda(replace(FREE, limits={"reach": "clamp"}), "reject").tell(out, 90).command.held


def test_beyond_its_reach_it_holds_where_that_is_asked_for() -> None:
    panda = Panda(FREE, "reject").tell([0.01, 0, 0, 0, 0, 0], 90)
    panda.check()
    assert panda.command.held
    assert panda.command.reasons[0].startswith("kinematics: the hand stays")
    np.testing.assert_array_equal(panda.command.action[:6], 0)


def table_distance(spec: RobotSpec, joints: Floats) -> float:
    """How far the fingers are from the table, m."""
    arm = model_of(spec)
    arm.hand(joints)
    table = arm.model.geom("table").id
    geoms = [g for g in range(arm.model.ngeom) if "finger" in arm.model.body(arm.model.geom_bodyid[g]).name]
    return min(float(arm.mujoco.mj_geomDistance(arm.model, arm.data, g, table, 1.0, None)) for g in geoms)


@pytest.mark.parametrize(("clearance", "least", "most"), [(0.02, 0.0195, 0.03), (0.0, -1.0, -0.03)])
def test_it_keeps_away_from_what_stands_in_its_model(clearance: float, least: float, most: float) -> None:
    assert FREE.kinematics is not None
    spec = replace(FREE, kinematics=replace(FREE.kinematics, clearance=clearance))
    panda = Panda(spec).tell([0, 0, -0.01, 0, 0, 0], 90).tell([0] * 6, 15)
    panda.check()
    assert least <= min(table_distance(spec, joints) for joints in panda.sent) <= most


def test_a_hold_brakes_and_the_hand_begins_anew_from_there() -> None:
    panda = Panda().tell([0.01, 0, 0, 0, 0, 0], 15)
    moving = panda.hand()[0][0]
    for _ in range(12):
        panda.hold()
    assert panda.gate.at_rest
    assert (panda.command.held, panda.command.reasons) == (True, ("stopped",))
    np.testing.assert_array_equal(panda.command.action[:6], 0)
    rest = panda.hand()[0]
    assert rest[0] > moving + 0.01, "it braked, and did not stop at once"
    panda.tell([0] * 6, 10)
    np.testing.assert_allclose(panda.hand()[0], rest, atol=1e-5)
    panda.check()


def test_at_a_wall_it_slides_along() -> None:
    spec = boxed(PANDA_EE, (0.33, -0.3, 0.3), (0.5, 0.3, 0.6))
    panda = Panda(spec).tell([0.01, 0, 0, 0, 0, 0], 40)
    assert 0.49 < panda.hand()[0][0] <= 0.5
    assert "workspace: the hand's x 0.505 m is beyond 0.495 m" in panda.reasons[-1]
    assert panda.command.action[0] == 0
    # Diagonally, 20 times 7 mm along the wall and 7 mm into it.
    before = panda.hand()[0]
    panda.tell([0.007, 0.007, 0, 0, 0, 0], 20).tell([0] * 6, 15)
    after = panda.hand()[0]
    np.testing.assert_allclose(after - before, [0, 0.14, 0], atol=2e-3)
    assert (panda.hands()[:, 0] <= 0.5).all()
    panda.check()


def test_with_limits_that_reject_it_holds_at_a_wall_until_it_is_led_away() -> None:
    panda = Panda(boxed(PANDA_EE, (0.33, -0.3, 0.3), (0.5, 0.3, 0.6)), "reject").tell([0.01, 0, 0, 0, 0, 0], 40)
    assert panda.command.held
    assert panda.command.reasons[0].startswith("workspace: the hand's x")
    held = panda.hand()[0][0]
    panda.tell([-0.005, 0, 0, 0, 0, 0], 10)
    assert not panda.command.held
    assert panda.hand()[0][0] < held - 0.02


def test_the_same_actions_through_a_twist_make_the_same_motion_of_the_hand() -> None:
    """A twist that is integrated, as MoveIt Servo does, and joint targets: within 1 mm and 0.01 rad at rest."""
    names = PANDA_EE.action_names[:6]
    twist = CommandSpec("twist", "/servo_node/delta_twist_cmds", names, scale=PANDA_EE.rate_hz)
    servo = replace(FREE, name="servo", kinematics=None, commands=(twist,))
    random, make = np.random.default_rng(5), rosbags_maker()
    for _ in range(5):
        through_joints, gate, (position, rotation) = Panda(), SafetyFilter(servo), START
        apart: list[float] = []
        for _ in range(6):
            # Within what the joints can follow: held for a third of a second.
            displacement = random.uniform(-0.15, 0.15, 6) * LARGEST
            for _ in range(10):
                through_joints.tell(displacement)
                safe = gate.check([*displacement, FINGER], (), seen(servo, []))
                told = command_message(make, servo, twist, 0, safe.commanded).twist
                linear = np.array([told.linear.x, told.linear.y, told.linear.z])
                angular = np.array([told.angular.x, told.angular.y, told.angular.z])
                position = position + linear * PERIOD
                rotation = Rotation.from_rotvec(angular * PERIOD).as_matrix() @ rotation
                apart.append(float(np.linalg.norm(through_joints.hand()[0] - position)))
        through_joints.tell([0] * 6, 15)
        assert max(apart) < 0.02, "on the way joints take time to speed up"
        np.testing.assert_allclose(through_joints.hand()[0], position, atol=1e-3)
        assert angle(through_joints.hand()[1], rotation) < 0.01
