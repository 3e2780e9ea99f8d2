"""The order of things in a try, and what becomes of it when a node is lost, refuses, or somebody interrupts."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.schedule import Schedule, ScheduleEntry, Try
from rollout_manager.simulation import TaskInfo
from rollout_manager.try_runner import NodeLostError, RefusedError, run_try

INFO = TaskInfo("metaworld", "reach-v3", "reach", 4, "metaworld", "d" * 16, 50, 1000, {"mujoco": "3"})
UNKNOWN = TaskInfo("metaworld", "reach-v3", "", 4, "metaworld", "d" * 16, 0, 0)
SCHEDULE = Schedule("metaworld", "policy", (ScheduleEntry("reach-v3", 4, (0.0, 0.2)),))
TRY = Try("metaworld_reach-v3_s4_a1", "reach-v3", 4, 1, 0.2, 50, 8)


@dataclass
class Scripted:
    """A graph and a recorder that note what is asked of them, and fail where they are told to."""

    fails: dict[str, BaseException] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    outcome: Outcome | None = None

    def _do(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def disable(self) -> None:
        self._do("disable")

    def reset(self, attempt: Try) -> TaskInfo:
        self._do("reset")
        return INFO

    def prepare(self, attempt: Try, info: TaskInfo) -> str:
        self._do("prepare")
        return "c" * 16

    def begin(self, header: EpisodeHeader, info: TaskInfo) -> None:
        self._do("begin")

    def enable(self) -> None:
        self._do("enable")

    def run(self) -> None:
        self._do("run")

    def watch(self) -> Outcome:
        self._do("watch")
        return Outcome("success", 12, 1.0)

    def stop(self) -> None:
        self._do("stop")

    def stand_down(self) -> None:
        self._do("stand_down")

    def finish(self, outcome: Outcome) -> Path | None:
        self._do("finish")
        self.outcome = outcome
        return Path("bag")


ORDER = ["disable", "reset", "prepare", "begin", "enable", "run", "watch", "stop", "finish"]


def test_the_order_of_a_try() -> None:
    graph = Scripted()
    done = run_try(graph, graph, SCHEDULE, TRY, "lockstep", UNKNOWN)
    assert graph.calls == ORDER
    assert done.bag == Path("bag")
    header = done.episode.header
    assert (header.checkpoint_digest, header.instruction, header.time_limit_steps) == ("c" * 16, "reach", 50)
    assert (header.attempt, header.exploration, header.label_source) == (1, 0.2, "proposed")
    assert done.episode.outcome.success


@pytest.mark.parametrize("where", [name for name in ORDER[:-1] if name != "begin"])
def test_a_lost_node_aborts_the_try_with_its_reason(where: str) -> None:
    graph = Scripted({where: NodeLostError("sim_node died or hangs")})
    done = run_try(graph, graph, SCHEDULE, TRY, "lockstep", UNKNOWN)
    assert done.episode.outcome == Outcome("aborted", 0, reason="sim_node died or hangs")
    recorded = ORDER.index(where) > ORDER.index("begin")
    assert ("finish" in graph.calls) is recorded
    assert (done.bag is not None) is recorded
    if recorded:
        assert graph.outcome == done.episode.outcome
        assert graph.calls[-2:] == ["stand_down", "finish"]  # the robot first


@pytest.mark.parametrize("where", ["reset", "prepare", "enable", "run"])
def test_a_refusal_ends_the_schedule_and_closes_the_recording(where: str) -> None:
    graph = Scripted({where: RefusedError("task 'x' is not one of ...")})
    with pytest.raises(RefusedError, match="task 'x'"):
        run_try(graph, graph, SCHEDULE, TRY, "lockstep", UNKNOWN)
    if ORDER.index(where) > ORDER.index("begin"):
        assert graph.outcome == Outcome("aborted", 0, reason="task 'x' is not one of ...")


def test_an_interruption_closes_the_recording_and_goes_on_upwards() -> None:
    graph = Scripted({"watch": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run_try(graph, graph, SCHEDULE, TRY, "lockstep", UNKNOWN)
    assert graph.calls[-2:] == ["stand_down", "finish"]
    assert graph.outcome == Outcome("aborted", 0, reason="interrupted")


def test_a_disk_that_refuses_ends_the_schedule_with_the_robot_at_rest() -> None:
    graph = Scripted({"watch": BagError("bag: no space left"), "finish": BagError("bag: no space left")})
    with pytest.raises(BagError, match="no space left"):
        run_try(graph, graph, SCHEDULE, TRY, "lockstep", UNKNOWN)
    assert graph.calls[-2:] == ["stand_down", "finish"]
