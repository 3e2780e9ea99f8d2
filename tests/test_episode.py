"""Episodes: their names, headers and outcomes."""

import pytest

from rollout_manager.episode import EpisodeHeader, Outcome, episode_id
from rollout_manager.exceptions import RolloutError


def header(**changes: object) -> EpisodeHeader:
    content: dict[str, object] = {
        "episode_id": "e1", "environment": "metaworld", "task": "reach-v3", "instruction": "reach", "seed": 3,
        "robot": "metaworld", "spec_digest": "0" * 16, "driver": "policy", "control_mode": "lockstep",
    }  # fmt: skip
    return EpisodeHeader.from_dict({**content, **changes})


def test_headers_and_outcomes_round_trip() -> None:
    assert EpisodeHeader.from_dict(header(versions={"mujoco": "3.3.0"}).to_dict()) == header(
        versions={"mujoco": "3.3.0"}
    )
    outcome = Outcome("truncated", 200, 0.5, "time was up")
    assert Outcome.from_dict(outcome.to_dict()) == outcome


def test_the_same_try_has_the_same_name_and_it_is_a_file_name() -> None:
    assert episode_id("metaworld", "reach-v3", 7, 2) == "metaworld_reach-v3_s7_a2"
    assert episode_id("libero", "put the bowl / on it", 0) == "libero_put-the-bowl-on-it_s0_a0"


def test_terminated_is_not_truncated_is_not_aborted() -> None:
    ended = {e: Outcome(e, 1, 0.0) for e in ("success", "failure", "truncated", "aborted")}
    assert [e for e, o in ended.items() if o.terminated] == ["success", "failure"]
    assert [e for e, o in ended.items() if o.success] == ["success"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episode_id": "a/b"}, "episode id 'a/b'"),
        ({"driver": "cat"}, "driver 'cat' is not one of policy, expert, human, none"),
        ({"control_mode": "fast"}, "control_mode 'fast'"),
        ({"label_source": "guess"}, "label_source 'guess' is not one of proposed, sent"),
        ({"colour": 1}, "unknown colour"),
    ],
)
def test_bad_headers_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RolloutError, match=words):
        header(**changes)


def test_bad_outcomes_are_refused() -> None:
    with pytest.raises(RolloutError, match="ending 'won' is not one of success"):
        Outcome("won", 1)  # type: ignore[arg-type]
    with pytest.raises(RolloutError, match="4 progress steps of 3 is out of range"):
        Outcome("truncated", 3, 0.5, progress_steps=4)
    with pytest.raises(RolloutError, match=r"progress 1\.5"):
        Outcome("success", 1, 1.5)
    with pytest.raises(RolloutError, match="3 human steps of 2 is out of range"):
        Outcome("success", 2, 1.0, human_steps=3)
    with pytest.raises(RolloutError, match="missing"):
        Outcome.from_dict({"steps": 1})
