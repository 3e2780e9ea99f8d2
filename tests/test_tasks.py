"""Tasks by the names that people write."""

import pytest

from rollout_manager.envs.metaworld_tasks import INSTRUCTIONS
from rollout_manager.envs.task_names import find_task
from rollout_manager.envs.tasks import find_tasks, suites_of
from rollout_manager.exceptions import SimulatorError

KITCHEN = {
    "small": ("open_the_top_drawer", "open_the_bottom_drawer"),
    "large": (
        "SCENE1_put_the_bowl_on_the_plate",
        "SCENE2_put_the_bowl_on_the_plate",
        "turn_on_the_stove",
        "turn_on_the_stove_and_wait",
    ),
}


@pytest.mark.parametrize(
    ("text", "suite", "found"),
    [
        ("turn_on_the_stove", "", "turn_on_the_stove"),
        ("small/1", "", "open_the_bottom_drawer"),
        ("small/1", "small", "open_the_bottom_drawer"),
        ("scene2 put", "", "SCENE2_put_the_bowl_on_the_plate"),
        ("Stove", "large", "turn_on_the_stove"),
        ("bottom", "", "open_the_bottom_drawer"),
        ("on the stove", "", "turn_on_the_stove"),
    ],
)
def test_a_task_is_found(text: str, suite: str, found: str) -> None:
    assert find_task(KITCHEN, text, suite) == found


@pytest.mark.parametrize(
    ("text", "suite", "message"),
    [
        ("open", "", "'open' may be any of 2: open_the_top_drawer, open_the_bottom_drawer"),
        ("small/2", "", "suite small has tasks 0 to 1, no 2"),
        ("small/0", "large", "'small/0' is one of suite small, not of large"),
        ("turn_on_the_stove", "small", "'turn_on_the_stove' is one of suite large, not of small"),
        ("turn_on_the_stoev", "", "is not one of the 6 of small, large; near ones are turn_on_the_stove"),
        ("", "", "task '' is not one of the 6"),
        ("bowl", "medium", "suite 'medium' is not one of small, large"),
    ],
)
def test_a_task_is_refused(text: str, suite: str, message: str) -> None:
    with pytest.raises(SimulatorError, match=message):
        find_task(KITCHEN, text, suite)


def test_metaworld_has_its_two_benchmarks() -> None:
    assert len(find_tasks("metaworld", (), "mt10")) == 10
    assert find_tasks("metaworld", (), "mt50") == tuple(INSTRUCTIONS)
    assert set(suites_of("metaworld")["mt10"]) <= set(INSTRUCTIONS)
    assert find_tasks("metaworld", ("mt10/0", "drawer open")) == ("reach-v3", "drawer-open-v3")


def test_tasks_must_be_given_once() -> None:
    with pytest.raises(SimulatorError, match="tasks named twice: reach-v3"):
        find_tasks("metaworld", ("mt10/0", "reach-v3"))
    with pytest.raises(SimulatorError, match="no task: name tasks of metaworld, or one of its suites: mt50, mt10"):
        find_tasks("metaworld", ())
    with pytest.raises(SimulatorError, match="environment 'mars' is not one of metaworld"):
        find_tasks("mars", ("reach-v3",))
