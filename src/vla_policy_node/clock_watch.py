"""Whether the clock that stamps are compared with runs on evenly: time servers and people set clocks. Pure; ns."""

from vla_policy_node.spec import NANOSECONDS

LARGEST_STEP_NS = 50_000_000
"""How far a clock may be from a steady one since the last look. Time daemons slew by 0.5 ms a second; they step by more
than 100 ms (chrony's and ntpd's defaults)."""


class ClockWatch:
    """Compares each look at a clock with the last one.

    A process may lose the processor between reading two clocks, by much more than a step. So the steady one is read
    before and after: how far the clock is ahead of it is known to lie between two numbers, and only what lies beyond
    those of the last look is a step.
    """

    def __init__(self, simulated: bool = False) -> None:
        """Args: simulated: the clock is a simulator's or a recording's, which may run at any speed, but not back."""
        self._simulated = simulated
        self._ahead: tuple[int, int] | None = None

    def look(self, now_ns: int, before_ns: int, after_ns: int) -> str:
        """Why the clock is not to be trusted; empty where it is.

        Args:
            now_ns: the clock that is watched.
            before_ns, after_ns: one that nobody sets, from any beginning, read just before and just after.
        """
        ahead = (now_ns, now_ns) if self._simulated else (now_ns - after_ns, now_ns - before_ns)
        last, self._ahead = self._ahead, ahead
        if last is None:
            return ""
        on, back = ahead[0] - last[1], last[0] - ahead[1]
        if on <= 0 and back <= 0:  # What both looks allow. A long look must not hide a step that comes after it.
            self._ahead = (max(last[0], ahead[0]), min(last[1], ahead[1]))
        wrong = back > 0 if self._simulated else max(on, back) > LARGEST_STEP_NS
        way = "back" if back > on else "on"
        return f"clock: set {way} by {max(on, back) / NANOSECONDS:.3f} s" if wrong else ""
