"""Success rules of one's own: arithmetic by hand, order, files, and a real simulator judged by them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.drivers import ExpertDriver
from rollout_manager.env import Landmarks
from rollout_manager.envs.registry import make_env
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.rollout import EpisodeResult, new_header, run_episode
from rollout_manager.success import simulator_label
from rollout_manager.success_rules import Beyond, InOrder, Near, load_rules, parse_rule


def world(joints: Mapping[str, float] | None = None, **places: Sequence[float]) -> Landmarks:
    return Landmarks({name: np.array(place, float) for name, place in places.items()}, joints or {})


def test_near_by_hand() -> None:
    there = world(cup=(0.3, 0.4, 0.0), tray=(0.0, 0.0, 0.0))
    assert Near("cup", "tray", 0.5).update(there) == 1.0, "0.3, 0.4, 0.5"
    assert Near("cup", "tray", 0.499).update(there) == 0.0
    assert Near("cup", (0.3, 0.4, 2.0), 0.1).update(there) == 0.0
    assert Near("cup", (0.3, 0.4, 2.0), 0.1, horizontal=True).update(there) == 1.0


def test_beyond_by_hand() -> None:
    there = world({"drawer": -0.15})
    assert Beyond("drawer", below=-0.14).update(there) == 1.0
    assert Beyond("drawer", above=-0.14).update(there) == 0.0
    assert Beyond("drawer", above=-0.2, below=-0.1).update(there) == 1.0


def test_all_at_once_give_the_share_that_holds() -> None:
    rule = parse_rule({"all": [{"joint": {"name": n, "above": 1}} for n in "abcd"]}, "test")
    assert rule.judge().update(world({"a": 2, "b": 0, "c": 2, "d": 2})) == 0.75
    assert rule.judge().update(world(dict.fromkeys("abcd", 2.0))) == 1.0


@given(st.lists(st.sets(st.sampled_from("abc")), max_size=12))
def test_subtasks_count_in_their_order_and_stay_done(moments: list[set[str]]) -> None:
    judge = InOrder(tuple(Beyond(name, above=1) for name in "abc")).judge()
    done = 0
    for now in moments:
        while done < 3 and "abc"[done] in now:
            done += 1
        assert judge.update(world({name: 2.0 * (name in now) for name in "abc"})) == done / 3


def test_a_judge_of_a_new_episode_knows_nothing_of_the_last() -> None:
    rule = InOrder((Beyond("a", above=1), Beyond("b", above=1)))
    first = rule.judge()
    assert first.update(world({"a": 2.0, "b": 0.0})) == 0.5
    assert rule.judge().update(world({"a": 0.0, "b": 2.0})) == 0.0
    assert first.update(world({"a": 0.0, "b": 2.0})) == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected tasks with their rules"),
        ("reach-v3: {far: {}}", "reach-v3: expected one of near, joint, all, in_order"),
        ("reach-v3: {near: {object: hand}}", "reach-v3: near: .*missing"),
        ("reach-v3: {near: {object: hand, goal: goal, distance: 0}}", "distance 0 is not positive"),
        ("reach-v3: {near: [hand, goal]}", "near needs keys with values"),
        ("reach-v3: {joint: {name: drawer}}", "joint 'drawer': give above, or below"),
        ("reach-v3: {joint: {name: drawer, above: 1, below: 0}}", "above < below"),
        ("reach-v3: {all: []}", "all needs a list of rules"),
        ("reach-v3: {in_order: [{near: {objct: hand}}]}", r"in_order\[0\]: near: .*objct"),
        ("reach-v3: [", "not readable as YAML"),
    ],
)
def test_malformed_rules_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(SimulatorError, match=message):
        load_rules(path)


def test_the_digest_is_of_what_the_rules_say(tmp_path: Path) -> None:
    one, other, third = (tmp_path / name for name in ("a.yaml", "b.yaml", "c.yaml"))
    one.write_text("reach-v3: {near: {object: hand, goal: goal, distance: 0.05}}")
    other.write_text("# the same\nreach-v3:\n  near:\n    goal: goal\n    object: hand\n    distance: 0.05\n")
    third.write_text("reach-v3: {near: {object: hand, goal: goal, distance: 0.06}}")
    assert load_rules(one).digest == load_rules(other).digest != load_rules(third).digest
    with pytest.raises(SimulatorError, match="do not exist"):
        load_rules(tmp_path / "none.yaml")


def reach(tmp_path: Path, rules: Mapping[str, object]) -> EpisodeResult:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(dict(rules)))
    env = make_env("metaworld", rules=str(path))
    try:
        header = new_header(env, "reach-v3", 0, driver="expert")
        return run_episode(
            env, ExpertDriver(Demonstrator(make_expert("metaworld"), env.spec, ActionNoise(env.spec, 0.0))), header, 200
        )
    finally:
        env.close()


def test_a_simulated_try_is_judged_by_the_rule(tmp_path: Path) -> None:
    """Two ways of saying what MetaWorld says of reaching (within 5 cm), one that is met sooner, one that never is."""
    env = make_env("metaworld")
    header = new_header(env, "reach-v3", 0, driver="expert")
    own = run_episode(
        env, ExpertDriver(Demonstrator(make_expert("metaworld"), env.spec, ActionNoise(env.spec, 0.0))), header, 200
    ).outcome
    env.close()
    near = {"near": {"object": "tcp", "goal": "goal", "distance": 0.05}}
    wide = {"near": {"object": "tcp", "goal": "goal", "distance": 0.2}}
    never = {"near": {"object": "tcp", "goal": [0.0, 0.0, 5.0], "distance": 0.1}}
    same, sooner = (reach(tmp_path, {"reach-v3": rule}) for rule in (near, {"in_order": [wide]}))
    assert same.outcome.success
    assert abs(same.outcome.steps - own.steps) <= 3
    assert sooner.outcome.steps < own.steps
    half = reach(tmp_path, {"reach-v3": {"all": [wide, never]}})
    assert (half.outcome.ending, half.outcome.progress) == ("truncated", 0.5)
    label = simulator_label(half.header, half.outcome)
    assert (label.outcome, label.rule) == ("failure", f"success_rules:{half.header.versions['success_rules']}")


def test_rules_for_what_is_not_there_are_refused(tmp_path: Path) -> None:
    near = {"near": {"object": "gaol", "goal": "goal", "distance": 0.05}}
    with pytest.raises(SimulatorError, match=r"the scene has no 'gaol'; near names: .*goal"):
        reach(tmp_path, {"reach-v3": near})
    with pytest.raises(SimulatorError, match="task 'reach-v3' has no success rule; those that have: push-v3"):
        reach(tmp_path, {"push-v3": near})
    with pytest.raises(SimulatorError, match="task 'rech-v3' is not one of MetaWorld's"):
        reach(tmp_path, {"rech-v3": near})
