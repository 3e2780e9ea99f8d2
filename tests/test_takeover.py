"""Who drives: taking over, letting go, handing back; and what is sent meanwhile."""

import numpy as np
import pytest
from small_robot import ROBOT

from vla_policy_node.control import Step
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.observation import Joints, ObservationBuffer, Pose, Readings
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.takeover import HumanControl, Takeover

ACTION = np.array([0.25, 1.0, 0.5], np.float32)
MS = 1_000_000


def test_a_human_drives_while_they_ask_and_the_policy_goes_on_when_they_hand_back() -> None:
    who = Takeover(200 * MS)
    who.start(policy=True)
    assert who.turn(0) == "policy"
    who.ask(1000 * MS, ACTION)
    assert who.turn(1200 * MS) == "human"
    with pytest.raises(PolicyNodeError, match="still drives"):
        who.hand_back(1200 * MS)
    assert who.turn(1201 * MS) == "nobody"
    assert who.reason == "human: let go; hand back for the policy to go on"
    assert who.turn(9000 * MS) == "nobody", "letting go sets nothing in motion"
    who.hand_back(9000 * MS)
    assert who.turn(9000 * MS) == "policy"
    who.ask(9100 * MS, ACTION)
    assert who.turn(9100 * MS) == "human"


def test_an_episode_without_a_policy_waits_for_the_human() -> None:
    who = Takeover(200 * MS)
    who.start(policy=False)
    assert who.turn(0) == "nobody"
    assert "nobody drives yet" in who.reason
    with pytest.raises(PolicyNodeError, match="nobody to hand back to"):
        who.hand_back(0)
    who.ask(5 * MS, ACTION)
    assert who.turn(5 * MS) == "human"
    assert who.turn(500 * MS) == "nobody"
    who.start(policy=False)
    assert who.turn(5 * MS) == "nobody", "what was asked for before counts for nothing in the next episode"


def driven(action: np.ndarray, instruction: str = "push") -> tuple[HumanControl, Takeover, ObservationBuffer]:
    buffer, who = ObservationBuffer(ROBOT), Takeover(200 * MS)
    buffer.instruction = instruction
    images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in ROBOT.cameras}
    joints = Joints(("elbow", "grip"), np.array([0.1, 0.2]))
    buffer.add_readings(50 * MS, Readings(images, joints, Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))))
    who.start(policy=True)
    who.ask(60 * MS, action)
    return HumanControl(buffer, SafetyFilter(ROBOT), who), who, buffer


def test_what_is_asked_for_is_sent_through_the_filter_and_told_as_asked() -> None:
    control, _, _ = driven(np.array([9.0, 1.0, 0.5], np.float32))
    sent: list[Step] = []
    control.tick(70 * MS, sent.append)
    [step] = sent
    assert step.stamp_ns == 50 * MS, "the observation that it answers"
    assert step.command.action.tolist() == [0.5, 1.0, 0.5]
    assert step.command.reasons == ("action: up 9 is beyond its limit 0.5",)
    assert step.human is not None
    assert step.human.tolist() == [9.0, 1.0, 0.5]


def test_when_they_cease_a_stop_comes_or_nothing_is_seen_the_robot_holds_and_nobody_drove() -> None:
    control, _, _ = driven(ACTION)
    sent: list[Step] = []
    control.tick(70 * MS, sent.append)
    control.tick(70 * MS, sent.append, ("e-stop: pressed",))
    control.tick(300 * MS, sent.append)  # too late for the action, and for the observation
    assert [step.command.held for step in sent] == [False, True, True]
    assert [step.human is None for step in sent] == [False, True, True]
    assert sent[1].command.action.tolist() == [0.0, 0.0, 0.5]
    assert sent[1].command.reasons == ("e-stop: pressed",)
