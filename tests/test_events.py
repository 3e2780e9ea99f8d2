"""Safety events: told once when they begin and end, and counted by kind."""

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.diagnostics import ERROR, OK, WARN
from vla_policy_node.events import MOST_KINDS, OTHERS, EventLog, SafetyEvent, SafetyEvents, event_message, kind_of
from vla_policy_node.messages import rosbags_maker, stamp_of, typestore
from vla_policy_node.safety import SafeCommand
from vla_policy_node.topics import EVENTS, MESSAGE_TYPES

SECOND = 10**9
ZERO = np.zeros(1, np.float32)


def command(*reasons: str, held: bool = False) -> SafeCommand:
    return SafeCommand(ZERO, held, reasons)


def test_a_kind_has_no_numbers_but_keeps_names() -> None:
    assert kind_of("front: last sample 57 ms old") == "front: last sample # ms old"
    assert kind_of("action: joint_1 -3.2e-05 is beyond its limit 2.8973") == "action: joint_1 # is beyond its limit #"
    assert kind_of("/camera/front2/image_raw: silent for 101 ms") == "/camera/front2/image_raw: silent for # ms"


def test_what_goes_on_is_told_once() -> None:
    events = SafetyEvents()
    assert events.see(0, command()) == SafetyEvent(0, False, ()), "how an episode begins"
    assert events.see(1, command()) is None
    assert events.see(2, command("late 50 ms", held=True)) == SafetyEvent(2, True, ("late 50 ms",))
    assert events.see(3, command("late 83 ms", held=True)) is None
    assert events.see(4, command("late 90 ms", "e-stop: pressed", held=True)) is not None
    assert events.see(5, command()) == SafetyEvent(5, False, ())
    assert events.see(6, command("late 51 ms", held=True)) is not None
    assert events.counts == {"late # ms": 2, "e-stop: pressed": 1}


def test_every_episode_says_how_it_begins_and_counts_what_goes_on_in_it_anew() -> None:
    events = SafetyEvents()
    assert events.see(1, command("slow 2", held=False)) is not None
    events.restart()
    assert events.see(2, command("slow 3", held=False)) == SafetyEvent(2, False, ("slow 3",))
    assert events.counts == {"slow #": 2}


def test_a_log_tells_of_a_hold_though_a_limit_was_just_told_and_of_another_hold_later() -> None:
    told: list[SafetyEvent] = []
    log = EventLog(told.append)
    limited, late, silent = (
        SafetyEvent(0, False, ("slow 2",)),
        SafetyEvent(1, True, ("late",)),
        SafetyEvent(2, True, ("silent",)),
    )
    log.see(limited, 0)
    log.see(late, SECOND // 10)
    assert told == [limited, late]
    log.see(silent, SECOND // 5)
    log.remind(SECOND)
    assert told == [limited, late], "a hold was told less than a second ago"
    log.remind(SECOND + SECOND // 10)
    assert told == [limited, late, silent]
    log.remind(5 * SECOND)
    assert told == [limited, late, silent], "once"


@given(st.lists(st.tuples(st.sampled_from(["", "slow", "late"]), st.integers(1, 10**9)), min_size=1, max_size=60))
def test_a_log_has_at_most_a_line_of_each_sort_a_second_and_ends_with_what_is_so(steps: list[tuple[str, int]]) -> None:
    told: list[tuple[int, SafetyEvent]] = []
    now = 0
    log = EventLog(lambda event: told.append((now, event)))
    for reason, after in steps:
        now += after
        log.see(SafetyEvent(now, reason == "late", (reason,) if reason else ()), now)
    last = SafetyEvent(now, steps[-1][0] == "late", (steps[-1][0],) if steps[-1][0] else ())
    now += SECOND
    log.remind(now)
    assert told[-1][1] == last
    for level in (OK, WARN, ERROR):
        times = [at for at, event in told if event.status().level == level]
        assert all(b - a >= SECOND for a, b in pairwise(times))


def test_a_message_says_what_the_event_does_whoever_makes_it() -> None:
    event = SafetyEvent(5, True, ("late 50 ms",))
    made = event_message(rosbags_maker(), event)
    kind = MESSAGE_TYPES[EVENTS]
    read: Any = typestore().deserialize_cdr(typestore().serialize_cdr(made, kind), kind)
    [status] = read.status
    assert (stamp_of(read), status.level, status.name) == (5, ERROR, "policy_node: safety")
    assert (status.message, status.hardware_id) == ("late 50 ms", "policy_node")
    assert [(v.key, v.value) for v in status.values] == [("held", "true")]


def test_levels_say_held_limited_and_free() -> None:
    statuses = [
        SafetyEvent(0, held, reasons).status() for held, reasons in ((True, ("a",)), (False, ("b", "c")), (False, ()))
    ]
    assert [(s.level, s.message) for s in statuses] == [(ERROR, "a"), (WARN, "b; c"), (OK, "free")]


def test_kinds_without_end_are_counted_together() -> None:
    events = SafetyEvents()
    for number in range(3 * MOST_KINDS):
        events.see(number, command(f"policy: error {chr(0x4E00 + number)}", held=True))
    assert len(events.counts) == MOST_KINDS + 1
    assert events.counts[OTHERS] == 2 * MOST_KINDS
    assert sum(events.counts.values()) == 3 * MOST_KINDS


@given(st.lists(st.tuples(st.frozensets(st.sampled_from("abc")), st.booleans())))
def test_the_events_alone_say_how_every_command_was_treated(history: list[tuple[frozenset[str], bool]]) -> None:
    events, now = SafetyEvents(), (frozenset[str](), False)
    for stamp, (reasons, held) in enumerate(history):
        event = events.see(stamp, command(*sorted(reasons), held=held))
        if event is not None:
            now = frozenset(event.reasons), event.held
        assert now == (reasons, held)
