"""Demonstrations in which a grasp misses or the hand is pushed: what is sent and learned, and that it is solved."""

from collections.abc import Sequence

import numpy as np
import pytest

from rollout_manager.decisions import DecisionLog
from rollout_manager.drivers import ExpertDriver
from rollout_manager.envs.registry import make_env
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.demonstrator import CLOSING, PUSHED, RETREAT, UNNOTICED, Demonstrator, Shown
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.rollout import new_header, run_episode
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.spec import load_spec

SPEC = load_spec("metaworld")
APPROACH = 30


class Grasping:
    """Goes down in ever smaller steps with an open hand, closes it, then goes up; `opens_at` steps later it lets go."""

    trouble = ""

    def __init__(self, opens_at: int = 1000) -> None:
        self.opens_at = opens_at
        self.begun: list[tuple[str, int]] = []

    def reset(self, task: str, seed: int) -> None:
        self.begun.append((task, seed))
        self.steps = 0

    def act(self, privileged_state: Float64Array) -> Float32Array:
        self.steps += 1
        k = self.steps
        if k <= APPROACH:
            return np.array([0, 0, -1 / k, -1], np.float32)
        return np.array([0, 0, 0.5, -1 if k > APPROACH + self.opens_at else 1], np.float32)


def shown(expert: Grasping, slips: float, seed: int = 0, steps: int = 150, pushes: float = 0.0) -> Sequence[Shown]:
    demonstrator = Demonstrator(expert, SPEC, ActionNoise(SPEC, 0.0), slips, pushes)
    demonstrator.reset("push-v3", 7, seed)
    return [demonstrator.step(np.zeros(1)) for _ in range(steps)]


def test_a_missed_grasp_step_by_step() -> None:
    expert = Grasping()
    steps = shown(expert, 1.0)
    mistakes = [i for i, step in enumerate(steps) if step.lesson is None]
    first, last = mistakes[0], mistakes[-1]
    assert first == APPROACH, "it begins with the step that would have closed the hand"
    assert mistakes == list(range(first, last + 1))
    fist = next(i for i in mistakes if steps[i].action[3] > 0)
    back = fist - first
    assert RETREAT[0] <= back <= RETREAT[1]
    for i in range(back):
        np.testing.assert_array_equal(steps[first + i].action[:3], -steps[first - 1 - i].action[:3])
        assert steps[first + i].action[3] == -1, "the hand goes back open"
    for i in range(fist, fist + CLOSING):
        np.testing.assert_array_equal(steps[i].action, [0, 0, 0, 1])
    carried = last + 1 - (fist + CLOSING)
    assert UNNOTICED[0] <= carried <= UNNOTICED[1]
    for i in range(fist + CLOSING, last + 1):
        np.testing.assert_array_equal(steps[i].action, [0, 0, 0.5, 1])
    assert expert.begun == [("push-v3", 7)] * 2, "it begins anew from where it is"
    again = steps[last + 1 : last + 1 + APPROACH]
    np.testing.assert_array_equal([s.action for s in again], [s.action for s in steps[:APPROACH]])
    assert all(np.array_equal(s.action, s.lesson) for s in steps if s.lesson is not None)
    assert steps[last + 1 + APPROACH].lesson is not None, "once is enough"


def test_an_expert_that_notices_by_itself_is_let() -> None:
    steps = shown(Grasping(opens_at=1), 1.0)
    mistakes = [step for step in steps if step.lesson is None]
    assert len(mistakes) <= RETREAT[1] + CLOSING


def test_the_share_of_episodes_and_none_without() -> None:
    count = sum(any(s.lesson is None for s in shown(Grasping(), 0.3, seed, 60)) for seed in range(400))
    assert count / 400 == pytest.approx(0.3, abs=0.07)
    assert all(step.lesson is not None for step in shown(Grasping(), 0.0))


def test_the_seed_decides() -> None:
    def sent(seed: int) -> Float32Array:
        return np.array([step.action for step in shown(Grasping(), 1.0, seed)])

    np.testing.assert_array_equal(sent(4), sent(4))
    assert any((sent(seed) != sent(0)).any() for seed in range(1, 5))


def test_noise_is_the_same_with_and_without_slips() -> None:
    runs = []
    for slips in (0.0, 1.0):
        demonstrator = Demonstrator(Grasping(), SPEC, ActionNoise(SPEC, 0.2), slips)
        demonstrator.reset("push-v3", 0, 11)
        runs.append([demonstrator.step(np.zeros(1)).action for _ in range(APPROACH)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_push_goes_one_way_for_a_few_steps_and_is_no_lesson() -> None:
    expert = Grasping()
    steps = shown(expert, 0.0, seed=3, steps=400, pushes=0.05)
    pushed = [i for i, step in enumerate(steps) if step.lesson is None]
    # One push may follow upon another: they go different ways.
    begins = [i for i in pushed if not np.array_equal(steps[i].action, steps[i - 1].action)]
    assert len(begins) == pytest.approx(0.05 * (400 - len(pushed)), rel=0.5)
    ways = []
    for first in begins:
        way = steps[first].action
        length = next(k for k in range(1, 400) if not np.array_equal(steps[first + k].action, way))
        assert PUSHED[0] <= length <= PUSHED[1]
        assert all(steps[first + k].lesson is None for k in range(length))
        # The gripper does what it did before, or what it does from now on.
        assert way[3] in (steps[first - 1].action[3], steps[first + length].action[3])
        ways.append(way[:3])
    assert 0.3 < np.std(ways) < 0.7, "half of the range, clipped at all of it"
    # The expert is asked once for each step that begins a push, and not again until the push is over.
    assert expert.steps == 400 - len(pushed) + len(begins)


def test_a_hand_that_stands_still_is_not_pushed() -> None:
    class Waiting(Grasping):
        def act(self, privileged_state: Float64Array) -> Float32Array:
            return np.array([0, 0.01, 0, 1], np.float32)

    assert all(step.lesson is not None for step in shown(Waiting(), 0.0, pushes=1.0))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(SimulatorError, match=r"slips .* is not a share"):
        Demonstrator(Grasping(), SPEC, ActionNoise(SPEC, 0.0), share)
    with pytest.raises(SimulatorError, match=r"pushes .* is not a share"):
        Demonstrator(Grasping(), SPEC, ActionNoise(SPEC, 0.0), 0.0, share)


def test_the_task_is_solved_after_a_miss_and_the_miss_is_not_proposed() -> None:
    env = make_env("metaworld")
    header = new_header(env, "push-v3", 3, driver="expert", exploration=0.1)
    log = DecisionLog()
    noise = ActionNoise(SPEC, 0.1)
    driver = ExpertDriver(Demonstrator(make_expert("metaworld"), SPEC, noise, 1.0))
    outcome = run_episode(env, driver, header, 400, [log]).outcome
    env.close()
    assert outcome.success
    learned = [decision.chunk is not None for decision in log.decisions]
    assert RETREAT[0] + CLOSING <= learned.count(False) <= RETREAT[1] + CLOSING + UNNOTICED[1]
    assert learned[0]
    assert learned[-1]
