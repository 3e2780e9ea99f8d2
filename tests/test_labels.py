"""Labels: an append-only history beside the bag, safe against torn lines, in which a human overrules a rule."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.exceptions import LabelError
from rollout_manager.labels import (
    Label,
    LabelOutcome,
    append_label,
    current,
    effective_outcome,
    labels_path,
    make_label,
    read_labels,
)

OUTCOMES: tuple[LabelOutcome, ...] = ("success", "failure", "aborted", "discard")
BY_RULE = Label("ep", "success", "encore", "simulator", 1)
BY_HAND = Label("ep", "failure", "Ada", "human", 2, "the drawer was half open")


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    (tmp_path / "ep").mkdir()
    return tmp_path / "ep"


labels = st.builds(
    Label,
    episode_id=st.text(min_size=1, max_size=8),
    outcome=st.sampled_from(OUTCOMES),
    author=st.text(min_size=1, max_size=8),
    rule=st.sampled_from(["human", "simulator", "recovery"]),
    time_ns=st.integers(0, 2**63),
    note=st.text(max_size=20),
)


@given(st.lists(labels, max_size=8))
def test_the_history_comes_back(tmp_path_factory: pytest.TempPathFactory, history: list[Label]) -> None:
    bag = tmp_path_factory.mktemp("bag")
    for label in history:
        append_label(bag, label)
    assert read_labels(bag) == tuple(history)


def test_labels_are_beside_the_bag_not_in_it(bag: Path) -> None:
    append_label(bag, BY_RULE)
    assert labels_path(bag) == bag.parent / "ep.labels.jsonl"
    assert list(bag.iterdir()) == []


def test_a_human_overrules_a_rule_and_a_later_label_an_earlier_one() -> None:
    later = replace(BY_RULE, outcome="aborted", time_ns=3)
    second_thoughts = replace(BY_HAND, outcome="discard", time_ns=4)
    assert current([]) is None
    assert current([BY_RULE, later]) == later
    assert current([BY_RULE, BY_HAND, later]) == BY_HAND
    assert current([BY_RULE, BY_HAND, later, second_thoughts]) == second_thoughts


def test_without_a_label_the_ending_counts_and_time_up_is_a_failure() -> None:
    assert effective_outcome("success", []) == "success"
    assert effective_outcome("truncated", []) == "failure"
    assert effective_outcome("aborted", []) == "aborted"
    assert effective_outcome("success", [BY_RULE, BY_HAND]) == "failure"


def test_a_torn_line_is_passed_over_and_swallows_nothing(bag: Path) -> None:
    append_label(bag, BY_RULE)
    whole = labels_path(bag).read_bytes()
    for cut in range(1, len(whole)):
        labels_path(bag).write_bytes(whole + whole[:cut])
        assert read_labels(bag) in ((BY_RULE,), (BY_RULE, BY_RULE))
        append_label(bag, BY_HAND)
        assert read_labels(bag)[-1] == BY_HAND
        assert read_labels(bag)[0] == BY_RULE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outcome": "sucess"}, "label 'sucess' is not one of success, failure, aborted, discard"),
        ({"author": ""}, "author is empty"),
        ({"time_ns": "now"}, "time_ns of the wrong type"),
        ({"colour": "red"}, "expected the keys episode_id, outcome, author, rule, time_ns, note"),
    ],
)
def test_a_whole_line_that_is_no_label_is_an_error(bag: Path, change: dict[str, object], said: str) -> None:
    labels_path(bag).write_text(json.dumps({**BY_RULE.to_dict(), **change}) + "\n")
    with pytest.raises(LabelError, match=said) as error:
        read_labels(bag)
    assert "ep.labels.jsonl, line 1" in str(error.value)


def test_labelling_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="ghost: no such bag to label"):
        append_label(tmp_path / "ghost", BY_RULE)
    assert read_labels(tmp_path / "ghost") == ()


def _append_many(bag: Path, author: str) -> None:
    for _ in range(50):
        append_label(bag, make_label("ep", "success", author))


def test_two_processes_may_label_at_once(bag: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(bag, name)) for name in ("Ada", "Bob")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    authors = [label.author for label in read_labels(bag)]
    assert (authors.count("Ada"), authors.count("Bob")) == (50, 50)
