"""When each message of a recording is due again. Pure: knows no clock and no ROS; times are integer ns."""

from collections.abc import Iterator

from rollout_manager.bag_reader import EpisodeReader, RawMessage
from rollout_manager.exceptions import BagError


class Playback:
    """Gives a bag's messages back with their own timing, faster or slower, from the first to the last."""

    def __init__(self, reader: EpisodeReader, rate: float) -> None:
        """Args: rate: how many times as fast as recorded.

        Raises:
            BagError: the rate is not above 0, or the bag holds no message.
        """
        if not rate > 0:
            raise BagError(f"replay: rate {rate} is not above 0")
        self._reader, self._rate = reader, rate
        self._next: RawMessage | None
        self._anchor: tuple[int, int] | None
        """A time of the wall clock and the recording's time then; None while paused."""
        self._rewind()

    def start(self, wall_ns: int) -> None:
        """Play from here on; `wall_ns` is the time now."""
        self._anchor = (wall_ns, self._at)

    def pause(self, wall_ns: int) -> None:
        """Stop where the recording is now."""
        self._at, self._anchor = self.time(wall_ns), None

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._anchor is None

    @property
    def finished(self) -> bool:
        """Whether every message was given."""
        return self._next is None

    def time(self, wall_ns: int) -> int:
        """The recording's time at a time of the wall clock."""
        if self._anchor is None:
            return self._at
        since, at = self._anchor
        return at + int((wall_ns - since) * self._rate)

    def due(self, wall_ns: int) -> Iterator[RawMessage]:
        """The messages whose time has come and that were not given before."""
        now = self.time(wall_ns)
        while self._next is not None and self._next.log_time_ns <= now and not self.paused:
            message, self._next = self._next, next(self._messages, None)
            yield message

    def again(self, wall_ns: int) -> None:
        """Begin anew, playing."""
        self._rewind()
        self.start(wall_ns)

    def _rewind(self) -> None:
        self._messages = self._reader.raw_messages()
        first = next(self._messages, None)
        if first is None:
            raise BagError(f"{self._reader.path}: holds no message")
        self._next, self._at, self._anchor = first, first.log_time_ns, None
