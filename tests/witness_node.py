"""Who watches a recorder that is killed: hears what it should have heard, and whether the machine let anybody run."""

import contextlib
import threading
import time
from functools import partial
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


class Heartbeat:
    """Looks at the clock every few milliseconds and notes when it was kept waiting; use as a context manager."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def stalled(self, within_s: float = 2.0) -> float:
        """How long it was kept waiting within the last seconds, in seconds."""
        return sum(late for at, late in list(self._late) if at > time.monotonic() - within_s)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        beat_s = 0.005
        last = time.monotonic()
        while not self._ended.wait(beat_s):
            now = time.monotonic()
            if now - last > 2 * beat_s:
                self._late.append((now, now - last - beat_s))
            last = now


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
