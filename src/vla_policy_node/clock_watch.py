"""Whether the clock that stamps are compared with runs on evenly: time servers and people set clocks. Pure; ns."""

from vla_policy_node.spec import NANOSECONDS

LARGEST_STEP_NS = 50_000_000
"""How far a clock may be from a steady one since the last look. Time daemons slew by 0.5 ms a second; they step by more
than 100 ms (chrony's and ntpd's defaults)."""


class ClockWatch:
    """Compares each look at a clock with the last one."""

    def __init__(self, simulated: bool = False) -> None:
        """Args: simulated: the clock is a simulator's or a recording's, which may run at any speed, but not back."""
        self._simulated = simulated
        self._last: tuple[int, int] | None = None

    def look(self, now_ns: int, steady_ns: int) -> str:
        """Why the clock is not to be trusted; empty where it is.

        Args: now_ns: the clock that is watched; steady_ns: one that nobody sets, from any beginning.
        """
        last, self._last = self._last, (now_ns, steady_ns)
        if last is None:
            return ""
        step = now_ns - last[0] - (0 if self._simulated else steady_ns - last[1])
        wrong = step < 0 if self._simulated else abs(step) > LARGEST_STEP_NS
        return f"clock: set {'back' if step < 0 else 'on'} by {abs(step) / NANOSECONDS:.3f} s" if wrong else ""
