"""LIBERO's scripted expert on real scenes: solving tasks of each kind, taking over, and saying where it cannot."""

from collections.abc import Iterator

import numpy as np
import pytest
from libero_stock import needs_assets

from rollout_manager.decisions import DecisionLog
from rollout_manager.drivers import ExpertDriver
from rollout_manager.envs.libero.env import LiberoEnv
from rollout_manager.envs.libero.suites import find_task
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import expert_noise
from rollout_manager.experts.libero.expert import LiberoExpert
from rollout_manager.rollout import new_header, run_episode
from vla_policy_node.observation import Float32Array
from vla_policy_node.spec import load_spec

pytestmark = needs_assets

SPEC = load_spec("libero")
BOWL_TO_PLATE = "KITCHEN_SCENE1_put_the_black_bowl_on_the_plate"
BOWL = "akita_black_bowl_1"
GRIPPER = 6


@pytest.fixture(scope="module")
def env() -> Iterator[LiberoEnv]:
    env = LiberoEnv()
    yield env
    env.close()


@pytest.fixture(scope="module")
def expert() -> Iterator[LiberoExpert]:
    expert = LiberoExpert()
    yield expert
    expert.close()


def tried(
    env: LiberoEnv, expert: LiberoExpert, task: str, seed: int, noise: float = 0.0, log: DecisionLog | None = None
) -> Outcome:
    """A try within the benchmark's usual limit of steps."""
    driver = ExpertDriver(Demonstrator(expert, SPEC, expert_noise("libero", SPEC, noise, 0.8)))
    header = new_header(env, task, seed, driver="expert", exploration=noise)
    return run_episode(env, driver, header, header.time_limit_steps, [log] if log else []).outcome


def goes_on(env: LiberoEnv, expert: LiberoExpert, steps: int) -> bool:
    """Whether the expert succeeds from the state that the simulator is in."""
    return any(env.step(expert.act(env.privileged_state())).success for _ in range(steps))


def bowl_at(env: LiberoEnv) -> float:
    """Height of the bowl, in m."""
    return float(env.landmarks().positions[f"{BOWL}_main"][2])


@pytest.mark.parametrize(
    ("task", "seed"),
    [
        pytest.param(BOWL_TO_PLATE, 0, id="carry"),
        pytest.param(BOWL_TO_PLATE, 1000, id="carry, placed afresh"),
        pytest.param("KITCHEN_SCENE1_open_the_top_drawer_of_the_cabinet", 1, id="open a drawer"),
        pytest.param("KITCHEN_SCENE5_close_the_top_drawer_of_the_cabinet", 0, id="close a drawer"),
        pytest.param("KITCHEN_SCENE3_turn_on_the_stove", 2, id="turn a knob"),
        pytest.param("KITCHEN_SCENE8_turn_off_the_stove", 3, id="turn a knob far"),
        pytest.param("KITCHEN_SCENE7_open_the_microwave", 0, id="open a door"),
        pytest.param(
            "KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it", 0, id="in, then close"
        ),
        pytest.param(
            "LIVING_ROOM_SCENE4_stack_the_left_bowl_on_the_right_bowl_and_place_them_in_the_tray", 0, id="two goals"
        ),
    ],
)
def test_a_task_of_each_kind_is_solved(env: LiberoEnv, expert: LiberoExpert, task: str, seed: int) -> None:
    outcome = tried(env, expert, task, seed)
    assert outcome.ending == "success", outcome.reason


def test_the_same_try_is_the_same_to_the_bit(env: LiberoEnv, expert: LiberoExpert) -> None:
    logs = DecisionLog(), DecisionLog()
    for log, other in zip(logs, (expert, LiberoExpert()), strict=True):
        assert tried(env, other, BOWL_TO_PLATE, 3, log=log).ending == "success"
    first, second = (np.array([decision.action for decision in log.decisions]) for log in logs)
    assert np.array_equal(first, second)


def test_what_is_sent_is_noisy_and_what_is_proposed_is_not(env: LiberoEnv, expert: LiberoExpert) -> None:
    log = DecisionLog()
    outcome = tried(env, expert, BOWL_TO_PLATE, 4, noise=0.25, log=log)
    assert outcome.ending == "success", outcome.reason
    sent = np.array([decision.action for decision in log.decisions])
    clean = np.array([decision.chunk.actions[0] for decision in log.decisions if decision.chunk])
    assert len(clean) == len(sent)
    assert np.array_equal(sent[:, GRIPPER], clean[:, GRIPPER])
    moving = np.abs(clean[:, :GRIPPER]).max(axis=1) > 0.5
    assert np.abs(sent - clean)[moving, :3].mean() > 0.05
    assert np.abs(sent).max() <= 1


def test_it_takes_over_where_random_actions_have_led(env: LiberoEnv, expert: LiberoExpert) -> None:
    rng = np.random.default_rng(5)
    env.reset(BOWL_TO_PLATE, 5)
    for _ in range(5):
        action = rng.uniform(-1, 1, 7).astype(np.float32)
        for _ in range(8):
            env.step(action)
    expert.reset(BOWL_TO_PLATE, 5)
    assert goes_on(env, expert, 300), expert.trouble


@pytest.mark.parametrize(
    ("task", "seed"),
    [
        pytest.param("libero_spatial/4", 2, id="the drawer's side is beside the rim"),
        pytest.param("libero_spatial/1", 4, id="the nearer way round leads to the wrist's end"),
    ],
)
def test_a_bowl_is_taken_at_once(env: LiberoEnv, expert: LiberoExpert, task: str, seed: int) -> None:
    """These took 600 and 329 steps: fingers closed on drawer and bowl, the hand wandered about where it got stuck."""
    outcome = tried(env, expert, find_task(task).name, seed)
    assert outcome.success, outcome.reason
    assert expert.trouble == ""


@pytest.mark.parametrize("taken_over", [False, True], ids=["in its own try", "taken over"])
def test_a_thing_that_was_dropped_is_taken_again(env: LiberoEnv, expert: LiberoExpert, taken_over: bool) -> None:
    env.reset(BOWL_TO_PLATE, 6)
    expert.reset(BOWL_TO_PLATE, 6)
    lies = bowl_at(env)
    for _ in range(120):
        env.step(expert.act(env.privileged_state()))
        if bowl_at(env) > lies + 0.05:
            break
    assert bowl_at(env) > lies + 0.05
    drop = np.zeros(7, np.float32)
    drop[GRIPPER] = -1
    for _ in range(12):
        assert not env.step(drop).success
    if taken_over:
        expert.reset(BOWL_TO_PLATE, 6)
    assert goes_on(env, expert, 300), expert.trouble


class _OutOfReach(LiberoEnv):
    """A scene whose bowl stands where no hand can take it."""

    def reset(self, task: str, seed: int) -> None:
        super().reset(task, seed)
        scene = self._ready().scene
        state = self.privileged_state()
        first = scene.model.joint(f"{BOWL}_joint0").qposadr[0]
        state[first : first + 2] = 3.0, 3.0
        scene.set_state(state[: scene.model.nq], state[scene.model.nq :])


def test_where_there_is_no_grasp_the_try_is_given_up_with_its_reason(expert: LiberoExpert) -> None:
    env = _OutOfReach()
    log = DecisionLog()
    outcome = tried(env, expert, BOWL_TO_PLATE, 0, log=log)
    env.close()
    assert (outcome.ending, outcome.progress) == ("truncated", 0.0)
    assert BOWL in outcome.reason
    still: list[Float32Array] = [decision.action for decision in log.decisions[-20:]]
    assert not np.any(still), "it holds still and does not search for ever"


def test_a_goal_that_it_does_not_know_is_a_reason_too(env: LiberoEnv, expert: LiberoExpert) -> None:
    env.reset(BOWL_TO_PLATE, 0)
    expert.reset(BOWL_TO_PLATE, 0)
    world = expert._world
    known, world.goals = world.goals, (("up", BOWL),)
    try:
        actions = [expert.act(env.privileged_state()) for _ in range(5)]
    finally:
        world.goals = known
    assert len(actions) == 5
    assert "knows no 'up'" in expert.trouble


def test_it_wants_a_task_and_a_state_of_its_scene(env: LiberoEnv) -> None:
    expert = LiberoExpert()
    with pytest.raises(SimulatorError, match="call reset"):
        expert.act(np.zeros(3))
    with pytest.raises(SimulatorError, match="fly_to_the_moon"):
        expert.reset("KITCHEN_SCENE1_fly_to_the_moon", 0)
    with pytest.raises(SimulatorError, match="out of range"):
        expert.reset(BOWL_TO_PLATE, 50)
    expert.reset(BOWL_TO_PLATE, 0)
    with pytest.raises(SimulatorError, match=r"shape \(3,\)"):
        expert.act(np.zeros(3))
    assert expert.trouble == ""
    expert.close()


def test_an_expert_keeps_few_scenes(env: LiberoEnv) -> None:
    expert = LiberoExpert()
    for task in (BOWL_TO_PLATE, "KITCHEN_SCENE3_turn_on_the_stove", "KITCHEN_SCENE7_open_the_microwave"):
        expert.reset(task, 0)
    header: EpisodeHeader = new_header(env, "KITCHEN_SCENE3_turn_on_the_stove", 0, driver="expert")
    driver = ExpertDriver(Demonstrator(expert, SPEC, expert_noise("libero", SPEC, 0.0, 0.0)))
    assert run_episode(env, driver, header, 5).outcome.steps == 5
    assert len(expert._scenes) == 2
    expert.close()
