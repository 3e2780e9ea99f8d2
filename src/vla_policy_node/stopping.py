"""What stops a robot whatever its policy says: an emergency stop and a dead-man's switch. Pure; times are integer ns.

What has stopped the robot is latched: that a button is released, or heard again, sets nothing in motion. Somebody has
to clear the stop, and then to enable the policy anew.
"""

from dataclasses import dataclass

from vla_policy_node.exceptions import PolicyNodeError


@dataclass(frozen=True)
class StopConfig:
    """Which of the inputs a robot has."""

    estop_within_ns: int = 0
    """How often the emergency stop must be heard, so that a cut cable stops the robot; 0: it need not be."""
    deadman: bool = False
    """Whether somebody must hold a switch while the policy drives."""
    deadman_within_ns: int = 500_000_000
    """How often that switch must be heard."""


class StopLatch:
    """Remembers what the inputs said last, and what has stopped the robot."""

    def __init__(self, config: StopConfig) -> None:
        self._config = config
        self._estop: tuple[int, bool] | None = None
        self._deadman: tuple[int, bool] | None = None
        self._latched: tuple[str, ...] = ()
        self._driving = False

    def estop(self, now_ns: int, pressed: bool) -> None:
        """The emergency stop was heard."""
        self._estop = now_ns, pressed
        self.reasons(now_ns)

    def deadman(self, now_ns: int, held: bool) -> None:
        """The dead-man's switch was heard."""
        self._deadman = now_ns, held
        self.reasons(now_ns)

    def reasons(self, now_ns: int) -> tuple[str, ...]:
        """Why the robot must hold now; empty where nothing stops it. What is found is latched."""
        now = self._estop_says(now_ns) + (self._deadman_says(now_ns) if self._driving else ())
        self._latched = self._latched or now
        return now or tuple(f"{reason}; cleared by ~/clear_stop" for reason in self._latched)

    def drive(self, now_ns: int) -> None:
        """The policy is about to drive. Raises: PolicyNodeError: something stops it."""
        if why := self.reasons(now_ns) or self._deadman_says(now_ns):
            raise PolicyNodeError(f"the robot is stopped: {'; '.join(why)}")
        self._driving = True

    def rest(self) -> None:
        """The policy drives no more, and nobody need hold the switch."""
        self._driving = False

    def clear(self, now_ns: int) -> None:
        """Forget what has stopped the robot. Raises: PolicyNodeError: it still does."""
        self._driving = False
        if why := self._estop_says(now_ns):
            raise PolicyNodeError(f"not cleared: {'; '.join(why)}")
        self._latched = ()

    def clock_set(self, now_ns: int, why: str) -> None:
        """The clock was set: no age that was measured by it means anything, and a policy that drives is stopped."""
        self._estop = None if self._estop is None else (now_ns, self._estop[1])
        self._deadman = None if self._deadman is None else (now_ns, self._deadman[1])
        if self._driving:
            self._latched = self._latched or (why,)

    def _estop_says(self, now_ns: int) -> tuple[str, ...]:
        if self._estop is not None and self._estop[1]:
            return ("e-stop: pressed",)
        within = self._config.estop_within_ns
        return _silent("e-stop", self._estop, now_ns, within) if within else ()

    def _deadman_says(self, now_ns: int) -> tuple[str, ...]:
        if not self._config.deadman:
            return ()
        if self._deadman is not None and not self._deadman[1]:
            return ("dead-man: released",)
        return _silent("dead-man", self._deadman, now_ns, self._config.deadman_within_ns)


def _silent(name: str, heard: tuple[int, bool] | None, now_ns: int, within_ns: int) -> tuple[str, ...]:
    if heard is None:
        return (f"{name}: never heard",)
    age = now_ns - heard[0]
    return (f"{name}: not heard for {age / 1e6:.0f} ms",) if age > within_ns else ()


class Standstill:
    """Whether the arm stands still: a policy must not take over one that moves."""

    def __init__(self, limit: float, within_ns: int = 500_000_000) -> None:
        """Args: limit: highest speed of a joint that counts as none, its unit a second; 0: nothing is asked."""
        self._limit, self._within_ns = limit, within_ns
        self._seen: tuple[int, dict[str, float]] | None = None
        self._speeds: dict[str, float] | None = None

    def forget(self) -> None:
        """It is not known any more."""
        self._seen = self._speeds = None

    def see(self, stamp_ns: int, position: dict[str, float], velocity: dict[str, float]) -> None:
        """Joint states were heard: positions, and velocities where the robot tells them, by joint."""
        if not velocity and self._seen is not None and stamp_ns > self._seen[0]:
            seconds, before = (stamp_ns - self._seen[0]) / 1e9, self._seen[1]
            velocity = {n: (x - before[n]) / seconds for n, x in position.items() if n in before}
        self._seen = stamp_ns, position
        self._speeds = velocity or self._speeds

    def check(self, now_ns: int) -> None:
        """Raises: PolicyNodeError: a joint moves, or it is not known."""
        if not self._limit:
            return
        if self._seen is None or self._speeds is None or now_ns - self._seen[0] > self._within_ns:
            raise PolicyNodeError("it is not known whether the arm stands still: no joint states were heard lately")
        for name, speed in self._speeds.items():
            if not abs(speed) <= self._limit:
                raise PolicyNodeError(
                    f"joint '{name}' moves at {speed:.3g} a second; enable from standstill ({self._limit:g})"
                )
