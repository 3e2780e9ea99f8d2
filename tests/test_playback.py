"""When a recording's messages are due again: by hand, without ROS."""

from pathlib import Path

import pytest
from episodes import START_NS, make_header, write_bag

from rollout_manager.bag import EpisodeReader, EpisodeWriter
from rollout_manager.episode import Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.playback import Playback
from vla_policy_node.topics import ACTION

TENTH = 100_000_000
"""A period of the small robot, in ns."""


@pytest.fixture
def reader(tmp_path: Path) -> EpisodeReader:
    return EpisodeReader(write_bag(tmp_path, make_header(), 3))


def actions_due(playback: Playback, wall_ns: int) -> list[int]:
    """Steps whose action is due at a time."""
    return [(m.log_time_ns - START_NS) // TENTH for m in playback.due(wall_ns) if m.topic == ACTION]


def test_messages_come_with_their_own_timing(reader: EpisodeReader) -> None:
    playback = Playback(reader, 1.0)
    assert playback.paused
    assert actions_due(playback, 7) == []
    playback.start(1000)
    assert actions_due(playback, 1000) == [0]
    assert actions_due(playback, 1000 + TENTH - 1) == []
    assert actions_due(playback, 1000 + TENTH) == [1]
    assert playback.time(1000 + TENTH) == START_NS + TENTH
    assert actions_due(playback, 1000 + 3 * TENTH) == [2]
    assert playback.finished, "the last observation, at step 3, was given too"


@pytest.mark.parametrize(("rate", "after"), [(2.0, TENTH // 2), (0.5, 2 * TENTH)])
def test_faster_and_slower(reader: EpisodeReader, rate: float, after: int) -> None:
    playback = Playback(reader, rate)
    playback.start(0)
    assert actions_due(playback, 0) == [0]
    assert actions_due(playback, after - 1) == []
    assert actions_due(playback, after) == [1]


def test_a_pause_costs_no_message(reader: EpisodeReader) -> None:
    playback = Playback(reader, 1.0)
    playback.start(0)
    assert actions_due(playback, TENTH // 2) == [0]
    playback.pause(TENTH // 2)
    assert actions_due(playback, 50 * TENTH) == []
    assert playback.time(50 * TENTH) == START_NS + TENTH // 2
    playback.start(100 * TENTH)
    assert actions_due(playback, 100 * TENTH + TENTH // 2) == [1]


def test_again_from_the_beginning(reader: EpisodeReader) -> None:
    playback = Playback(reader, 1.0)
    playback.start(0)
    first = [bytes(m.cdr) for m in playback.due(10 * TENTH)]
    assert playback.finished
    playback.again(20 * TENTH)
    assert not playback.finished
    assert [bytes(m.cdr) for m in playback.due(30 * TENTH)] == first
    assert first == [bytes(m.cdr) for m in reader.raw_messages()]


def test_what_cannot_be_played_is_refused(reader: EpisodeReader, tmp_path: Path) -> None:
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(BagError, match="is not above 0"):
            Playback(reader, rate)
    empty = EpisodeWriter(tmp_path / "empty", make_header()).close(Outcome("aborted", 0, reason="nothing came"))
    with pytest.raises(BagError, match="holds no message"):
        Playback(EpisodeReader(empty), 1.0)
