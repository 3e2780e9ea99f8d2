"""Who watches a recorder that is killed: hears what it should have heard, and whether the machine let anybody run."""

import contextlib
import threading
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from rollout_manager.cdr import stamp_of_cdr
from vla_policy_node.messages import observation_topics
from vla_policy_node.ros_node import message_class, topic_qos
from vla_policy_node.spec import RobotSpec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, INSTRUCTION, MESSAGE_TYPES, OUTCOME

Heard = tuple[str, int]
"""Topic and stamp."""


class RunQueue:
    """Notes how long a process waits for a processor though it could run, as Linux counts it; a context manager."""

    def __init__(self) -> None:
        self.pid = 0
        """Of the process that is watched; 0: none."""
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=200)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def waited(self, within_s: float = 1.5) -> float:
        """Seconds that the three threads which waited longest, one behind the other, waited in the last time.

        A message passes three on its way to the disk: the one that receives it, the executor's, the recorder's.
        """
        samples = [delays for at, delays in list(self._samples) if at > time.monotonic() - within_s]
        if not samples:
            return 0.0
        waits = sorted((delay - samples[0].get(thread, 0) for thread, delay in samples[-1].items()), reverse=True)
        return sum(waits[:3]) / 1e9

    def __enter__(self) -> "RunQueue":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            with contextlib.suppress(OSError):  # it has ended, or this system does not count
                files = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
                delays = {file.parent.name: int(file.read_text().split()[1]) for file in files}
                if delays:
                    self._samples.append((time.monotonic(), delays))


class Witness:
    """Hears on a thread of its own what the robot and its driver say; use as a context manager."""

    def __init__(self, domain: int, spec: RobotSpec) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node: Any = rclpy.create_node("witness", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._heard: list[Heard] = []
        self.outcomes = 0
        types = observation_topics(spec) | {t: MESSAGE_TYPES[t] for t in (ACTION, ACTION_CHUNK)}
        del types[INSTRUCTION]
        for topic, kind in types.items():
            qos = topic_qos(topic, lockstep=True, depth=200)
            self._node.create_subscription(message_class(kind), topic, partial(self._hear, topic), qos, raw=True)
        kind = message_class(MESSAGE_TYPES[OUTCOME])
        self._node.create_subscription(kind, OUTCOME, self._on_outcome, topic_qos(OUTCOME, True))
        self._thread = threading.Thread(target=self._spin)

    def between(self, first_ns: int, last_ns: int) -> set[Heard]:
        """What was stamped in this time and heard so far."""
        return {(topic, stamp) for topic, stamp in self._heard if first_ns <= stamp <= last_ns}

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _hear(self, topic: str, cdr: bytes) -> None:
        self._heard.append((topic, stamp_of_cdr(cdr)))

    def _on_outcome(self, message: Any) -> None:
        self.outcomes += 1
