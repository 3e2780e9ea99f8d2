"""When a robot is commanded in real time, by timers of a node: at its rate, and at once where a stream falls silent."""

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from vla_policy_node.clock_watch import ClockWatch
from vla_policy_node.control import Ticker
from vla_policy_node.spec import NANOSECONDS

LOOKS = 4
"""How often in a period the clock is looked at."""
AFTER_NS = 100_000
"""How long after a tick is due or a silence gets too long it is looked at: timers run by another clock than stamps."""


class TickTimers:
    """Calls for a tick when one is due, and says when the node's clock was set."""

    def __init__(
        self,
        node: Node,
        period_ns: int,
        tick: Callable[[], None],
        wanted: Callable[[], bool],
        silent_at_ns: Callable[[], float],
        clock_set: Callable[[str], None],
    ) -> None:
        """
        Args:
            node: with the parameter `use_sim_time`.
            tick: commands the robot.
            wanted: whether it is to be commanded at all.
            silent_at_ns: when the first stream will have been silent for too long if nothing more comes of it, on the
                node's clock; inf where none can.
            clock_set: is told how the node's clock was set.
        """
        self._node, self._period_ns = node, period_ns
        self._tick, self._wanted, self._silent_at_ns, self._clock_set = tick, wanted, silent_at_ns, clock_set
        self._looks: Any = None
        self._deadline: Any = None
        self._silent = False
        self.restart()

    def restart(self) -> None:
        """A new episode begins: a tick is due at once."""
        self._ticker = Ticker(self._period_ns)
        self._watch = ClockWatch(self._node.get_parameter("use_sim_time").value)

    def start(self) -> None:
        """Begin to look."""
        # Not by the clock that stamps are compared with: set back, it would let nothing tick until it catches up.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        look_s = self._period_ns / NANOSECONDS / LOOKS
        self._looks = self._node.create_timer(look_s, self._on_look, clock=steady)
        # Set by a look where a tick is due, or a stream's silence gets too long, before the next one.
        self._deadline = self._node.create_timer(look_s, self._on_deadline, clock=steady, autostart=False)

    def stop(self) -> None:
        """Look no more."""
        if self._looks is not None:
            self._node.destroy_timer(self._looks)
            self._node.destroy_timer(self._deadline)
            self._looks = self._deadline = None

    def on_observation(self) -> bool:
        """Whether an observation that is complete now makes a tick."""
        return self._ticker.on_observation(self._now())

    def _on_look(self) -> None:
        before_ns, now_ns, after_ns = time.monotonic_ns(), self._now(), time.monotonic_ns()
        if why := self._watch.look(now_ns, before_ns, after_ns):
            self._ticker.reset()
            self._clock_set(why)
        self._look()

    def _on_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._look()

    def _look(self) -> None:
        """Tick where one is due or a stream has just fallen silent, and set the time of the next look."""
        silent_at_ns, was = self._silent_at_ns(), self._silent
        self._silent = self._now() > silent_at_ns
        if (self._silent and not was) or (self._wanted() and self._ticker.on_clock(self._now())):
            self._tick()
        if self._wanted():
            due_ns = self._ticker.due_ns
            self._look_again(due_ns if self._silent else min(due_ns, silent_at_ns))

    def _look_again(self, at_ns: float) -> None:
        """Have a look just then, if that is before the next one."""
        left_ns = at_ns - self._now()
        if self._deadline is not None and 0 <= left_ns < self._period_ns / LOOKS:
            self._deadline.timer_period_ns = left_ns + AFTER_NS
            self._deadline.reset()

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
