"""Runs a schedule of tries on a live graph: reset, instruct, enable, watch, record, label, next."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from rollout_manager.bag import EpisodeReader, recover_all
from rollout_manager.envs.task_names import find_task
from rollout_manager.envs.tasks import suites_of
from rollout_manager.episode import ControlMode
from rollout_manager.exceptions import RolloutError, ScheduleError
from rollout_manager.labels import append_label, read_labels
from rollout_manager.link_node import Link
from rollout_manager.live_recording import LiveRecording
from rollout_manager.patience import Patience
from rollout_manager.results import EpisodeResultRow, append_result, latest_by_episode, read_results
from rollout_manager.schedule import ROBOT, Schedule, ScheduleEntry, Try, load_schedule, next_try, remaining
from rollout_manager.simulation import TaskInfo
from rollout_manager.station import by_operator
from rollout_manager.success import simulator_label
from rollout_manager.try_runner import NodeLostError, TryResult, run_try
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.ros_node import (
    ParameterError,
    check_choices,
    declare,
    drop_dead_ports,
    end_with_parent,
    exit_process,
    settle_garbage,
)
from vla_policy_node.spec import load_spec

PARAMETERS: dict[str, tuple[Any, str]] = {
    "schedule": ("", "YAML file of the tries to make; empty: `episodes` seeds of `task`"),
    "environment": ("metaworld", "without a schedule: which simulator; robot: a physical arm with an operator"),
    "driver": ("policy", "without a schedule: policy, expert, or human, who teleoperates"),
    "task": ("", "without a schedule: the task to try: its name, a part that no other task has, or suite/index"),
    "instruction": ("", "without a schedule: what a physical arm is told; empty: the task's name"),
    "suite": ("", "without a schedule: the suite that the task is of, where its name alone does not say"),
    "episodes": (10, "without a schedule: how many initial states, seeds first_seed, first_seed + 1, ..."),
    "first_seed": (0, "without a schedule: the first initial state"),
    "checkpoint": ("", "folder of the checkpoint; overrides the schedule's"),
    "robot": ("", "name in config/robots/, or the path of a robot's YAML file; empty: the environment's own"),
    "mode": ("lockstep", "what the simulator runs in: lockstep or real_time; noted in the bags"),
    "simulator": ("sim_node", "node that sets tries up and judges them: sim_node, or arm_node in real time"),
    "output": ("runs/rollouts", "folder of the bags"),
    "results": ("", "CSV file, a row a try; empty: results.csv in the folder of the bags"),
    "record": ("all", "all: every try becomes a bag; none: only a row in the results"),
    "service_timeout_s": (30.0, "wait for a service's answer"),
    "stall_timeout_s": (10.0, "wait for the next message of a running try before it is aborted"),
    "start_timeout_s": (60.0, "wait for nodes to appear, at the start and after one was lost"),
    "try_timeout_s": (600.0, "wall-clock limit of one try"),
    "max_aborted": (5, "tries aborted in a row before the manager gives up"),
}
CHOICES = {
    "simulator": ("sim_node", "arm_node"),
    "mode": ("lockstep", "real_time"),
    "record": ("all", "none"),
    "driver": ("policy", "expert", "human"),
}


class RolloutManager:
    """Makes every try of a schedule that is not made yet."""

    def __init__(self, node: Node, executor: SingleThreadedExecutor) -> None:
        """Raises: RolloutError or PolicyNodeError: a parameter or the schedule is not valid."""
        self._node = node
        declare(node, PARAMETERS)
        check_choices(node, CHOICES)
        self._schedule = self._read_schedule()
        self._mode: ControlMode = self._get("mode")
        if self._schedule.environment == ROBOT and (not self._get("robot") or self._mode != "real_time"):
            raise ScheduleError("environment 'robot' needs the parameters robot (its file) and mode 'real_time'")
        self._spec = load_spec(self._get("robot") or self._schedule.environment)
        self._output = Path(self._get("output"))
        self._results = Path(self._get("results") or self._output / "results.csv")
        self._recording = LiveRecording(self._output, self._get("record"))
        self._start_s = float(self._get("start_timeout_s"))
        patience = Patience(
            self._get("service_timeout_s"), self._get("stall_timeout_s"), self._start_s, self._get("try_timeout_s")
        )
        scene = self._get("simulator")
        if scene == "arm_node" and (self._mode != "real_time" or self._schedule.driver != "policy"):
            raise ScheduleError(
                "arm_node runs in real time and is driven by a policy: set mode real_time, driver policy"
            )
        lockstep = self._mode == "lockstep"
        self._link = Link(node, executor, self._spec, self._schedule, self._recording, patience, scene, lockstep)
        self._aborted_in_a_row = 0

    def run(self) -> None:
        """Make all tries that are left.

        Raises:
            RolloutError: a node refuses what is asked for, is gone for good, or the disk refuses.
        """
        self._recover()
        succeeded = self._made()
        total, left = len(self._schedule.entries), remaining(self._schedule, succeeded)
        _tell(f"{left} of {total} initial states to try, bags in {self._output}")
        if left:
            self._link.wait_until_ready(self._start_s)
        for number, (entry, tries) in enumerate(self._schedule.tries(), 1):
            while (attempt := next_try(tries, succeeded)) is not None:
                started = time.monotonic()
                done = run_try(self._link, self._recording, self._schedule, attempt, self._mode, self._unknown(entry))
                self._note(done, attempt, f"{number}/{total}", time.monotonic() - started, succeeded)
        wins = sum(any(succeeded.get(t.episode_id, False) for t in tries) for _, tries in self._schedule.tries())
        helped = f", {count} with a human's help" if (count := self._helped()) else ""
        _tell(f"done: {wins} of {total} initial states solved{helped}, results in {self._results}")

    def _note(self, done: TryResult, attempt: Try, where: str, seconds: float, succeeded: dict[str, bool]) -> None:
        outcome = done.episode.outcome
        append_result(self._results, EpisodeResultRow.of(done.episode.header, outcome))
        rate = f", {outcome.steps / seconds:.0f} steps/s" if outcome.steps else ""
        why = f": {outcome.reason}" if outcome.reason else ""
        human = f", {outcome.human_steps} by a human" if outcome.human_steps else ""
        _tell(f"[{where}] {attempt.task} seed {attempt.seed} try {attempt.attempt}: {outcome.ending}{why} "
              f"({outcome.steps} steps{human}, {seconds:.1f} s{rate})")  # fmt: skip
        if outcome.ending != "aborted":
            self._aborted_in_a_row = 0
            succeeded[attempt.episode_id] = outcome.success
            return
        self._aborted_in_a_row += not by_operator(outcome)
        if self._aborted_in_a_row >= self._get("max_aborted"):
            raise NodeLostError(f"{self._aborted_in_a_row} tries in a row were aborted, the last one: {outcome.reason}")
        self._link.wait_until_ready(self._start_s)

    def _get(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _read_schedule(self) -> Schedule:
        path, checkpoint = self._get("schedule"), self._get("checkpoint")
        if path:
            schedule = load_schedule(Path(path))
        elif self._get("task"):
            task = self._get("task")
            if self._get("environment") != ROBOT:
                task = find_task(suites_of(self._get("environment")), task, self._get("suite"))
            seeds = range(self._get("first_seed"), self._get("first_seed") + self._get("episodes"))
            entries = tuple(ScheduleEntry(task, seed, instruction=self._get("instruction")) for seed in seeds)
            schedule = Schedule(self._get("environment"), self._get("driver"), entries)
        else:
            raise ScheduleError("nothing to try: give the parameter schedule (a YAML file), or task")
        return Schedule(**{**vars(schedule), "checkpoint": checkpoint}) if checkpoint else schedule

    def _recover(self) -> None:
        bags, problems = recover_all(self._output)
        for bag in bags:
            _tell(f"recovered an interrupted recording: {bag}")
        for problem in problems:
            _tell(f"warning: {problem}")

    def _made(self) -> dict[str, bool]:
        """The tries made to their end, from the results and from bags whose row a killed manager did not write."""
        rows = read_results(self._results) if self._results.is_file() else []
        made = {row.episode_id: row.success for row in rows if row.ending != "aborted"}
        for _, tries in self._schedule.tries():
            for attempt in tries:
                bag = self._output / attempt.episode_id
                if attempt.episode_id not in made and bag.is_dir():
                    made[attempt.episode_id] = self._adopt(bag)
        return made

    def _helped(self) -> int:
        """How many tries of the schedule succeeded with a human's help."""
        rows = latest_by_episode(read_results(self._results) if self._results.is_file() else ())
        own = [rows.get(attempt.episode_id) for _, tries in self._schedule.tries() for attempt in tries]
        return sum(row is not None and row.success and not row.unaided for row in own)

    def _adopt(self, bag: Path) -> bool:
        reader = EpisodeReader(bag)
        if not read_labels(bag):
            append_label(bag, simulator_label(reader.header, reader.outcome))
        append_result(self._results, EpisodeResultRow.of(reader.header, reader.outcome))
        return reader.outcome.success

    def _unknown(self, entry: ScheduleEntry) -> TaskInfo:
        spec, environment = self._spec, self._schedule.environment
        return TaskInfo(environment, entry.task, "", entry.seed, spec.name, spec.digest, entry.time_limit, 0)


def _tell(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run the schedule; returns 0 when it is done, 1 after an error, 130 when interrupted."""
    # Without rclpy's own signal handlers: they take the context away before the robot can be told to stand still.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    executor = SingleThreadedExecutor()
    node = rclpy.create_node("rollout_manager")
    try:
        executor.add_node(node)
        end_with_parent(node)
        drop_dead_ports(node)
        manager = RolloutManager(node, executor)
        settle_garbage()
        manager.run()
    except (KeyboardInterrupt, ExternalShutdownException):
        _tell("interrupted; the same command goes on from here")
        return 130
    except (RolloutError, PolicyNodeError, ParameterError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    exit_process(main())
