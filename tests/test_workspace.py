"""The box that a hand stays in where joints are commanded: no sequence of inputs makes it leave."""

import math
from dataclasses import replace

import numpy as np
import pytest
from arm_robots import FINGER, HOME, PANDA, PANDA_EE, UR5E, Floats, boxed, model_of, seen
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_checks import MODES, SWITCHES, Switches, check_limits
from small_robot import ROBOT

from vla_policy_node.exceptions import SpecError
from vla_policy_node.kinematics_spec import KinematicsSpec, WorkspaceSpec
from vla_policy_node.limit_switches import LimitMode
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import RobotSpec, load_spec

LOW, HIGH = (0.33, -0.12, 0.33), (0.53, 0.12, 0.53)
SMALL = boxed(PANDA, LOW, HIGH)
ARM = model_of(PANDA)
UR_HOME = np.array([0.0, -1.5708, 1.5708, -1.5708, -1.5708, 0.0])
UR_SMALL = boxed(UR5E, (0.4, 0.0, 0.25), (0.6, 0.25, 0.45))


def out_of(spec: RobotSpec, hands: Floats) -> Floats:
    """How far out of the box hands (N, 3) are, on each axis."""
    assert spec.workspace is not None
    return np.asarray(np.maximum(np.maximum(spec.workspace.low - hands, hands - spec.workspace.high), 0))


def drive(
    spec: RobotSpec, mode: LimitMode, start: Floats, targets: list[tuple[list[float] | None, int]]
) -> tuple[Floats, list[tuple[str, ...]]]:
    """Joints (N, J) that are sent and why, for targets as offsets from the start that are wanted for some ticks."""
    gate, joints, sent, why = SafetyFilter(spec, mode), start, [np.append(start, FINGER)], []
    for target, ticks in targets:
        for _ in range(ticks):
            asked = None if target is None else np.append(start + np.array(target), FINGER)
            command = gate.check(asked, (), seen(spec, joints))
            sent.append(command.action.astype(np.float64))
            why.append(command.reasons)
            joints = sent[-1][:-1]
    for _ in range(25):
        sent.append(gate.hold(("stopped",)).action.astype(np.float64))
    assert gate.at_rest
    return np.array(sent), why


def inner(spec: RobotSpec) -> list[tuple[float, float, float]]:
    """The corners 1 mm inside: nearer than that to a wall it may still be on its way in."""
    assert spec.workspace is not None
    low, high = np.array(spec.workspace.low) + 0.001, np.array(spec.workspace.high) - 0.001
    return [(float(c[0]), float(c[1]), float(c[2])) for c in (low, high)]


def check_stays(spec: RobotSpec, sent: Floats) -> None:
    out = out_of(spec, model_of(spec).positions(sent))
    assert (out <= out[0] + 1e-6).all(), "no further out than where it began"
    within = out_of(boxed(spec, *inner(spec)), model_of(spec).positions(sent)) == 0
    assert not (out * np.logical_or.accumulate(within, axis=0)).any(), "and once inside it stays there"
    for i, dimension in enumerate(spec.action[:-1]):
        check_limits(sent[:, i], dimension, 1 / spec.rate_hz)


def programs(joints: int) -> st.SearchStrategy[list[tuple[list[float] | None, int]]]:
    target = st.one_of(
        st.none(), st.just([math.nan] * joints), st.lists(st.floats(-1, 1), min_size=joints, max_size=joints)
    )
    return st.lists(st.tuples(target, st.integers(1, 15)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=25)
@given(programs(7), MODES, SWITCHES, st.lists(st.floats(-0.4, 0.4), min_size=7, max_size=7))
def test_no_sequence_of_joint_targets_makes_a_pandas_hand_leave_the_box(
    program: list[tuple[list[float] | None, int]], mode: LimitMode, switches: Switches, off: list[float]
) -> None:
    spec = replace(SMALL, limits=switches)
    check_stays(spec, drive(spec, mode, HOME + np.array(off), program)[0])


@settings(deadline=None, max_examples=20)
@given(programs(6), MODES)
def test_nor_a_ur5es(program: list[tuple[list[float] | None, int]], mode: LimitMode) -> None:
    check_stays(UR_SMALL, drive(UR_SMALL, mode, UR_HOME, program)[0])


@settings(deadline=None, max_examples=20)
@given(programs(7))
def test_nor_that_of_an_arm_without_motion_limits(program: list[tuple[list[float] | None, int]]) -> None:
    free = tuple(
        replace(d, velocity=math.inf, acceleration=math.inf, jerk=math.inf, lead=math.inf) for d in PANDA.action
    )
    spec = replace(SMALL, action=free)
    sent, _ = drive(spec, "clamp", HOME, program)
    assert not out_of(spec, ARM.positions(sent)).any()


def test_targets_beyond_a_wall_are_followed_along_it() -> None:
    # The second and fourth joint push the hand out, to the wall at x = 0.5; the first turns it to the side.
    spec = boxed(PANDA, LOW, (0.5, 0.12, 0.53))
    sent, why = drive(spec, "clamp", HOME, [([0, 0.29, 0, 0.29, 0, 0, 0], 40), ([0.15, 0.29, 0, 0.29, 0, 0, 0], 90)])
    hands = ARM.positions(sent)
    assert 0.49 < hands[40][0] <= 0.5
    assert why[39] == ("workspace: the hand's x 0.528 m is beyond 0.499 m",)
    assert hands[-1][1] - hands[40][1] > 0.05, "it slides along the wall"
    check_stays(spec, sent)


def test_with_limits_that_reject_it_holds_until_targets_are_inside_again() -> None:
    out, back = [0, 0.29, 0, 0.29, 0, 0, 0], [0, -0.1, 0, 0, 0, 0, 0]
    sent, why = drive(boxed(PANDA, LOW, (0.5, 0.12, 0.53)), "reject", HOME, [(out, 20), (back, 30)])
    np.testing.assert_allclose(sent[20], sent[0], atol=1e-6)
    assert why[19][0].startswith("workspace: the hand's x")
    assert why[49] == ()
    assert sent[-1][1] == pytest.approx(HOME[1] - 0.1, abs=1e-3)


def test_a_wall_may_be_slid_along_where_every_other_limit_rejects() -> None:
    spec = replace(boxed(PANDA, LOW, (0.5, 0.12, 0.53)), limits={"workspace": "clamp"})
    sent, why = drive(spec, "reject", HOME, [([0, 0.29, 0, 0.29, 0, 0, 0], 40)])
    assert 0.49 < ARM.positions(sent)[40][0] <= 0.5
    assert why[39][0].startswith("workspace: the hand's x")
    _, why = drive(spec, "reject", HOME, [([0, 0, 0, 0, 0, 0, 0.4], 1)])
    assert why[0][0].startswith("action: joint_7 1.185 is more than 0.3 from panda_joint7")


def test_from_outside_it_comes_back_and_goes_no_further_out() -> None:
    spec = boxed(PANDA, (0.33, -0.12, 0.5), (0.53, 0.12, 0.7))  # The hand begins 6 cm below it.
    still = [0.0] * 7
    sent, _ = drive(spec, "clamp", HOME, [([0, 0.5, 0, 0, 0, 0, 0], 30), (still, 10), ([0, -0.2, 0, 0, 0, 0, 0], 60)])
    out = out_of(spec, ARM.positions(sent))
    assert out[0][2] > 0.05
    assert (out[:, 2] <= out[0][2] + 1e-6).all(), "it was to go down"
    assert out[-1][2] == 0, "and then up"
    check_stays(spec, sent)


@pytest.mark.parametrize(
    ("low", "high", "why"),
    [
        ((0.5, 0, 0), (0.4, 1, 1), "workspace: x from 0.5 to 0.4 is not more than 0.01 m"),
        ((0, 0, 0), (1, 0.01, 1), "workspace: y from 0 to 0.01 is not more than 0.01 m"),
        ((0, 0), (1, 1, 1), r"workspace: low \(0, 0\) is not x, y, z in metres"),
        ((0, 0, 0), (1, 1, math.inf), "workspace: high .* is not x, y, z in metres"),
        ((0, 0, math.nan), (1, 1, 1), "workspace: low .* is not x, y, z in metres"),
        ((0, 0, 0), "far", "workspace: high 'far' is not x, y, z in metres"),
    ],
)
def test_a_box_that_is_none_is_refused(low: object, high: object, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        WorkspaceSpec(low, high)  # type: ignore[arg-type]


def test_a_box_needs_to_know_where_the_hand_is() -> None:
    box = WorkspaceSpec((0, 0, 0), (1, 1, 1))
    with pytest.raises(SpecError, match="robot 'small': workspace: it is not known where the hand would be"):
        replace(ROBOT, workspace=box)
    with pytest.raises(SpecError, match="the action commands no joint and has no displacement"):
        replace(ROBOT, workspace=box, kinematics=KinematicsSpec("panda", "grip"))
    content = load_spec("metaworld").to_dict() | {"workspace": {"low": [0, 0, 0], "high": [1, 1, 1]}}
    with pytest.raises(SpecError, match="robot 'metaworld': workspace: it is not known"):
        RobotSpec.from_dict(content)


def test_a_box_makes_no_other_robot() -> None:
    assert replace(PANDA, workspace=None, kinematics=None).digest == PANDA.digest == SMALL.digest
    assert replace(PANDA_EE, workspace=None).digest == PANDA_EE.digest
