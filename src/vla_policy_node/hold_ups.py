"""Whether a process may not have heard what was said because it was held up itself."""


class HoldUps:
    """Tells a process that looks at its inputs at a steady rate for how long it cannot judge them.

    A process that gets the CPU again after a while finds nothing in its queues: the threads that fill them were held up
    with it, and have yet to run.
    """

    def __init__(self, late_ns: float, grace_ns: int) -> None:
        """
        Args:
            late_ns: two looks that are further apart mean that the process was held up.
            grace_ns: how long after that what has come meanwhile may take to arrive.
        """
        self._late_ns, self._grace_ns = late_ns, grace_ns
        self._looked_ns: int | None = None
        self._until_ns = 0
        self._excused = False

    def left_ns(self, now_ns: int) -> int:
        """A look: for how much longer a silence may not be one, 0 where it is.

        Args: now_ns: of a clock that is never set.

        A process that is held up at look after look is excused at the first alone: it must not be deaf for ever.
        """
        held_up = self._looked_ns is not None and now_ns - self._looked_ns > self._late_ns
        self._looked_ns = now_ns
        if held_up and not self._excused:
            self._until_ns, self._excused = now_ns + self._grace_ns, True
        elif now_ns >= self._until_ns:
            self._excused = False
        return max(0, self._until_ns - now_ns)
