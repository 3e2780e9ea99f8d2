"""The stand-in arm's tasks in lockstep: same seed, same bits; the same physics as in real time; an expert."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_manager.arms.controlled_arm import ControlledArm
from rollout_manager.decisions import DecisionLog
from rollout_manager.drivers import ExpertDriver, NoDriver
from rollout_manager.env import StepResult
from rollout_manager.envs.panda import PandaEnv
from rollout_manager.envs.panda_tasks import COLOURS, TASKS, Judge, Tabletop, check_task, set_up
from rollout_manager.envs.registry import make_env
from rollout_manager.envs.tasks import find_tasks
from rollout_manager.episode import Outcome
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.experts.panda import PandaExpert
from rollout_manager.rollout import new_header, run_episode
from rollout_manager.simulation import Simulation
from vla_policy_node.command_messages import command_message
from vla_policy_node.messages import rosbags_maker
from vla_policy_node.observation import Float64Array, proprioception_of
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import NANOSECONDS, load_spec

SPEC = load_spec("panda")
MS = NANOSECONDS // 1000


@pytest.fixture(scope="module")
def env() -> Iterator[PandaEnv]:
    made = PandaEnv()
    yield made
    made.close()


def shown(env: PandaEnv, task: str, seed: int) -> DecisionLog:
    """What the expert does of a task."""
    log = DecisionLog()
    driver = ExpertDriver(Demonstrator(make_expert("panda"), SPEC, ActionNoise(SPEC, 0.0)))
    run_episode(env, driver, new_header(env, task, seed, driver="expert"), env.default_time_limit(task), [log])
    return log


def test_steps_that_a_human_drove_are_counted_each_once(env: PandaEnv) -> None:
    simulation = Simulation(env)
    simulation.human_asked()
    simulation.reset("reach_cube", 0, 6, 0)
    still = StepResult(False, 0.0)
    asked = [0, 2, 0, 1, 0, 3]  # Two in one period are of that and of the next; the last two are of no step any more.
    for times in asked:
        for _ in range(times):
            simulation.human_asked()
        outcome = simulation.judge(still)
    assert outcome == Outcome("truncated", 6, 0.0, human_steps=4)
    simulation.reset("reach_cube", 0, 1, 0)
    assert simulation.judge(still) == Outcome("truncated", 1, 0.0), "a new try counts anew"


def test_it_is_there_by_name_with_a_suite_of_its_own() -> None:
    made = make_env("panda")
    assert made.tasks == find_tasks("panda", (), "tabletop") == ("reach_cube", "push_cube", "lift_cube")
    assert made.spec.digest == SPEC.digest
    made.close()


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_seed_fixes_states_and_pictures_to_the_bit_whatever_went_before(env: PandaEnv, task: str) -> None:
    def states(one: PandaEnv, seed: int) -> tuple[Float64Array, bytes]:
        one.reset(task, seed)
        found = [one.privileged_state()]
        for k in range(12):
            action = found[0][:8].astype(np.float32)
            action[3] += 0.01 * k
            one.step(action)
            found.append(one.privileged_state())
        return np.array(found), one.read().images["wrist"].tobytes()

    fresh = PandaEnv()
    expected, picture = states(fresh, 5)
    fresh.close()
    other, _ = states(env, 6)
    again, again_picture = states(env, 5)
    assert np.array_equal(again, expected)
    assert again_picture == picture
    assert not np.array_equal(other[0], expected[0])


def test_cube_colour_and_arm_are_drawn_and_the_line_shows_where_it_matters() -> None:
    arm = ControlledArm(SPEC).arm
    colours, places = set(), []
    for seed in range(40):
        set_up(arm, check_task("lift_cube"), seed)
        colours.add(tuple(arm.model.geom("cube").rgba[:3].astype(float).round(2).tolist()))
        places.append(arm.data.joint("cube").qpos[:2].copy())
        assert arm.model.geom("line").rgba[3] == 0
    assert colours == set(COLOURS)
    low, high = np.min(places, axis=0), np.max(places, axis=0)
    assert (low >= check_task("lift_cube").low).all()
    assert (high <= check_task("lift_cube").high).all()
    assert (high - low > 0.1).all()
    set_up(arm, check_task("push_cube"), 0)
    assert arm.model.geom("line").rgba[3] == 1
    arm.reset()
    assert arm.model.geom("line").rgba[3] == 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_physics_is_the_same_however_often_the_arm_is_moved_on(seed: int, pauses_ms: list[int]) -> None:
    # In real time the arm is moved on when its node gets to it, in lockstep a period at once.
    random, make = np.random.default_rng(seed), rosbags_maker()
    one, other = ControlledArm(SPEC), ControlledArm(SPEC)
    sent = one.target(0)[:8].astype(np.float32)
    for tick in range(4):
        now_ns = tick * SPEC.period_ns
        sent[:7] += random.uniform(-0.02, 0.02, 7).astype(np.float32)
        for command in SPEC.commands:
            for arm in (one, other):
                arm.command(command.topic, command_message(make, SPEC, command, now_ns, sent), now_ns)
        one.advance(now_ns + SPEC.period_ns)
        moved_ns = now_ns
        for pause in pauses_ms:
            moved_ns = min(moved_ns + pause * MS, now_ns + SPEC.period_ns)
            other.advance(moved_ns)
        other.advance(now_ns + SPEC.period_ns)
    assert np.array_equal(one.arm.measured(), other.arm.measured())


def test_the_environment_steps_as_a_stepped_arm_does(env: PandaEnv) -> None:
    env.reset("reach_cube", 2)
    arm, make = ControlledArm(SPEC), rosbags_maker()
    set_up(arm.arm, check_task("reach_cube"), 2)
    start_ns = 77 * NANOSECONDS + 123 * MS
    arm.restart(start_ns)
    action = env.privileged_state()[:8].astype(np.float32)
    for tick in range(10):
        action[1] += np.float32(0.01)
        now_ns = start_ns + tick * SPEC.period_ns
        for command in SPEC.commands:
            arm.command(command.topic, command_message(make, SPEC, command, now_ns, action), now_ns)
        for part in range(1, 5):
            arm.advance(now_ns + part * SPEC.period_ns // 4)
        env.step(action)
        assert np.array_equal(env.read(cameras=False).joints.position, arm.arm.measured()[0])


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_expert_succeeds_in_motions_that_the_safety_filter_lets_pass(env: PandaEnv, task: str) -> None:
    log = shown(env, task, seed=1)
    safety, expert = SafetyFilter(SPEC), make_expert("panda")
    env.reset(task, 1)
    expert.reset(task, 1)
    result = StepResult(False, 0.0)
    for decision in log.decisions:
        action = expert.act(env.privileged_state())
        assert np.array_equal(action, decision.action)
        readings = env.read(cameras=False)
        command = safety.check(action, (), proprioception_of(SPEC, readings.joints, readings.ee_pose))
        assert command.reasons == ()
        assert np.abs(command.action - action).max() < 0.7 / SPEC.rate_hz, "never more than a period behind"
        result = env.step(action)
    assert result == StepResult(success=True, progress=1.0)


def test_what_is_progress_by_hand() -> None:
    def judged(task: str, table: Tabletop, fault: str = "") -> StepResult:
        return Judge(TASKS[task]).step(table, fault)

    start, line = np.array([0.5, 0.0, 0.025]), 0.62
    at = Tabletop(np.array([0.5, 0.0, 0.125]), start, start, line)
    beside = replace(at, hand=np.array([0.5, 0.04, 0.125]))
    assert judged("reach_cube", beside).progress == pytest.approx(1 - 0.04 / 0.4)
    half = replace(at, cube=np.array([0.5 + 0.145 / 2, 0.0, 0.025]))
    assert judged("push_cube", half).progress == pytest.approx(0.5)
    assert judged("push_cube", replace(at, cube=np.array([0.646, 0.0, 0.025]))).success
    lifted = replace(at, cube=np.array([0.5, 0.0, 0.025 + 0.02]))
    assert judged("lift_cube", lifted).progress == pytest.approx(0.25)
    fallen = judged("push_cube", replace(at, cube=np.array([1.1, 0.0, -0.3])))
    assert (fallen.success, fallen.failure) == (False, True)
    assert judged("reach_cube", beside, "joint 3 was commanded too fast").failure
    held = Judge(TASKS["reach_cube"])
    nine = [held.step(at, "").success for _ in range(9)]
    away = held.step(beside, "").success
    assert not any([*nine, away]), "it has to stay there for ten periods in a row"
    assert [held.step(at, "").success for _ in range(10)] == [*[False] * 9, True]


def test_without_a_driver_the_arm_holds_where_it_is(env: PandaEnv) -> None:
    header = new_header(env, "lift_cube", 0, driver="none")
    env.reset("lift_cube", 0)
    before = env.read(cameras=False).joints.position
    outcome = run_episode(env, NoDriver(SafetyFilter(SPEC)), header, 20).outcome
    assert outcome.ending == "truncated"
    np.testing.assert_allclose(env.read(cameras=False).joints.position, before, atol=1e-3)


def test_a_command_that_no_joint_can_follow_ends_the_try(env: PandaEnv) -> None:
    env.reset("reach_cube", 0)
    wild = env.privileged_state()[:8].astype(np.float32)
    wild[0] += 0.5
    assert env.step(wild).failure
    assert "panda_joint1 was commanded" in env.fault


def test_what_is_not_possible_is_named(env: PandaEnv) -> None:
    far = env.privileged_state()
    far[-3:] = 2.0, 0.0, 0.1
    expert = make_expert("panda")
    expert.reset("reach_cube", 0)
    with pytest.raises(SimulatorError, match="the hand cannot be brought to"):
        expert.act(far)
    with pytest.raises(SimulatorError, match="robot 'bare' has no 'kinematics'"):
        PandaExpert(replace(SPEC, name="bare", kinematics=None, workspace=None))
    with pytest.raises(SimulatorError, match="task 'juggle' is not one of panda's: reach_cube"):
        env.reset("juggle", 0)
    with pytest.raises(SimulatorError, match="seed -1 is negative"):
        env.reset("lift_cube", -1)
    env.reset("lift_cube", 0)
    with pytest.raises(SimulatorError, match="is not 8 finite numbers"):
        env.step(np.zeros(4, np.float32))
    with pytest.raises(SimulatorError, match="call reset"):
        PandaEnv().judge()
    with pytest.raises(SimulatorError, match=r"slips 0\.5: robot 'panda' is commanded by position"):
        Demonstrator(make_expert("panda"), SPEC, ActionNoise(SPEC, 0.0), slips=0.5)
