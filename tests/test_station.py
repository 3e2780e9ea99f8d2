"""The operator's station: its phases, what moves the arm in which, and what becomes of a try that nobody ends."""

from collections.abc import Callable

import pytest

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.labels import LabelOutcome
from rollout_manager.station import LOST_NS, PRESENT_NS, READY_NS, Station, StationError, TryRequest, by_operator
from rollout_manager.success import label_of
from vla_policy_node.spec import NANOSECONDS

S = NANOSECONDS
TRY = TryRequest("robot_cube_s0_a0", "cube", 0, 0, 10 * S)


def started(homes: bool = True) -> Station:
    """A station whose operator has just started a try, at 1 s."""
    station = Station(homes)
    assert station.ask(TRY, 0) == station.prompt
    if homes:
        station.home(0)
        assert station.take_effects() == ["home"]
        station.homed("", S // 2)
    station.start(S)
    assert station.ask(TRY, S) == ""
    return station


def running(homes: bool = True) -> Station:
    station = started(homes)
    station.run(S)
    assert station.phase == "running"
    return station


def test_a_try_from_home_to_success() -> None:
    station = running()
    for human in (False, False, True):
        station.count(human)
    station.say("success", 5 * S)
    assert station.take_effects() == ["disable", "outcome"], "the arm first"
    assert station.outcome == Outcome("success", 2, 1.0, "a human drove 1 of 2 steps", 1)
    # The operator is there: the arm is brought home by itself.
    assert station.ask(TRY, 6 * S) == "the arm is on its way home; stop: hold it"
    assert station.take_effects() == ["home"]


@pytest.mark.parametrize("end", ["stop", "time", "long ago"])
def test_the_arm_does_not_go_home_with_nobody_there(end: str) -> None:
    station, later = running(), 6 * S
    if end == "stop":
        station.say("stop", 5 * S)
    elif end == "time":
        station.heard(11 * S - 1)
        station.tick(11 * S - 1)
        assert station.phase == "running"
        station.tick(11 * S)
        assert station.outcome == Outcome("truncated", 0, 0.0, "time was up")
    else:
        station.say("success", 5 * S)
        later = 5 * S + PRESENT_NS + 1
    assert station.take_effects()[-1] == "outcome"
    station.ask(TRY, max(later, 12 * S) if end == "time" else later)
    assert station.phase == "away"
    assert station.take_effects() == []
    with pytest.raises(StationError, match=r"not now: .*home: bring the arm home"):
        station.start(later)


@pytest.mark.parametrize("phase", ["homing", "scene", "ready", "running"])
def test_stop_holds_the_arm_in_every_phase(phase: str) -> None:
    station = Station(homes=True)
    station.ask(TRY, 0)
    station.home(0)
    steps: dict[str, Callable[[], None]] = {
        "homing": lambda: None,
        "scene": lambda: station.homed("", 0),
        "ready": lambda: station.start(0),
        "running": lambda: station.run(0),
    }
    for reached, step in steps.items():
        step()
        assert station.phase == reached
        if reached == phase:
            break
    station.take_effects()
    station.say("stop", 1)
    assert station.take_effects()[0] == "disable"
    assert station.phase in ("away", "ended")
    station.homed("", 2)
    assert station.phase in ("away", "ended"), "an answer that comes late starts nothing"


def test_what_was_called_off_between_start_and_run_ends_at_once() -> None:
    station = started()
    station.say("stop", 2 * S)
    station.take_effects()
    station.run(2 * S)
    assert station.take_effects() == ["disable", "outcome"]
    assert station.outcome is not None
    assert by_operator(station.outcome)


def test_a_start_holds_for_the_manager_that_it_was_given_to_and_not_for_ever() -> None:
    station = started()
    assert station.ask(TRY, S + 100_000_000) == "", "it asks again until all listen"
    station.rest(5 * S)  # What every manager says before it asks for a try.
    assert station.ask(TRY, 5 * S) == "the try was cut short; home: bring the arm home"
    station = started()
    station.tick(S + READY_NS)
    assert station.phase == "ready"
    station.tick(S + READY_NS + 1)
    assert station.ask(TRY, S + READY_NS + 2) != ""


def test_a_manager_that_is_gone_leaves_an_arm_at_rest() -> None:
    station = running()
    station.heard(2 * S)
    station.tick(2 * S + LOST_NS)
    assert station.take_effects() == []
    station.tick(2 * S + LOST_NS + 1)
    assert station.take_effects() == ["disable"]
    assert station.phase == "idle"
    assert "start it again" in station.prompt
    station = Station(homes=True)
    station.ask(TRY, 0)
    station.home(0)
    station.take_effects()
    station.tick(LOST_NS + 1)
    assert station.take_effects() == ["disable"], "on its way home too"


def test_without_a_home_the_operator_sets_up_the_arm_too() -> None:
    station = Station(homes=False)
    assert station.ask(TRY, 0) == "start: set the scene up, then start"
    with pytest.raises(StationError, match="not now"):
        station.home(0)
    station.start(0)
    assert station.phase == "ready"
    station = running(homes=False)
    station.say("discard", 2 * S, "lamp fell over")
    assert station.outcome == Outcome("aborted", 0, reason="discarded by operator: lamp fell over")
    assert by_operator(station.outcome)
    station.ask(TRY, 3 * S)
    assert station.phase == "scene"


def test_an_arm_that_did_not_come_home_waits() -> None:
    station = Station(homes=True)
    station.ask(TRY, 0)
    station.home(0)
    station.homed("not home: e-stop: pressed", S)
    assert (station.phase, station.prompt) == ("away", "not home: e-stop: pressed; home: bring the arm home")
    station.home(2 * S)
    assert station.phase == "homing"


@pytest.mark.parametrize(
    ("outcome", "label", "author", "rule"),
    [
        (Outcome("success", 9, 1.0), "success", "Ada", "human"),
        (Outcome("failure", 9), "failure", "Ada", "human"),
        (Outcome("aborted", 9, reason="discarded by operator: dark"), "discard", "Ada", "human"),
        (Outcome("aborted", 9, reason="stopped by operator"), "discard", "Ada", "human"),
        (Outcome("aborted", 9, reason="policy_node died"), "aborted", "robot", "operator"),
        (Outcome("truncated", 9, reason="time was up"), "failure", "robot", "time_limit"),
    ],
)
def test_the_operators_word_is_the_label_and_what_they_did_not_say_is_not(
    outcome: Outcome, label: LabelOutcome, author: str, rule: str
) -> None:
    header = EpisodeHeader("e", "robot", "cube", "cube", 0, "panda", "d", "policy", "real_time")
    made = label_of(header, outcome, "Ada")
    assert (made.outcome, made.author, made.rule) == (label, author, rule)
    assert made.note == (outcome.reason or f"{outcome.ending} after 9 steps")
