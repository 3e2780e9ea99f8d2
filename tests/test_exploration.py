"""Exploration noise: nothing at scale 0, the same for a whole chunk, of the promised size, fixed by the seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_robot import ROBOT, observation

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.committed import Committed
from vla_policy_node.exceptions import SpecError
from vla_policy_node.exploration import BIAS_SHARE, Explore, ShiftedAim, exploring, shifted
from vla_policy_node.observation import Observation
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import RobotSpec


class Still:
    """A policy that keeps the robot where it is, and counts its resets."""

    def __init__(self, spec: RobotSpec = ROBOT) -> None:
        self.spec = spec
        self.seeds: list[int] = []

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        return ActionChunk(observation.stamp_ns, np.zeros((4, len(self.spec.action)), np.float32))


def offsets(explore: Explore, episodes: int, chunks: int) -> np.ndarray:
    """Shape (episodes, chunks, A)."""
    found = []
    for seed in range(episodes):
        explore.reset(seed)
        found.append([explore.act(observation()).actions[0] for _ in range(chunks)])
    return np.array(found)


def test_scale_zero_is_the_policy_itself() -> None:
    np.testing.assert_array_equal(Explore(Still(), 0.0).act(observation()).actions, 0)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.01, 1))
def test_noise_is_the_same_for_a_whole_chunk_and_fixed_by_the_seed(seed: int, scale: float) -> None:
    runs = []
    for _ in range(2):
        explore = Explore(Still(), scale)
        explore.reset(seed)
        runs.append([explore.act(observation(stamp_ns=t)) for t in range(3)])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.actions, np.broadcast_to(one.actions[0], one.actions.shape))
        assert one.actions.dtype == np.float32
    assert [c.stamp_ns for c in runs[0]] == [0, 1, 2]
    assert (runs[0][0].actions[:, :2] != runs[0][1].actions[:, :2]).all()


def test_a_target_that_is_held_gets_no_noise_and_others_get_the_share_that_the_robot_says() -> None:
    up, turn, grip = ROBOT.action
    spared = replace(ROBOT, action=(up, replace(turn, noise=0.25), replace(grip, noise=1.0)))
    found = offsets(Explore(Still(spared), 0.5), 30, 3)
    np.testing.assert_array_equal(found[..., 2], 0)
    np.testing.assert_array_equal(found[..., 0], offsets(Explore(Still(), 0.5), 30, 3)[..., 0])
    np.testing.assert_allclose(found[..., 1], 0.25 * offsets(Explore(Still(), 0.5), 30, 3)[..., 1], rtol=1e-6)
    assert spared.digest == ROBOT.digest, "how a robot practises is not what it is"


def test_size_and_correlation_are_as_documented() -> None:
    found = offsets(Explore(Still(), 0.3), 2000, 2)
    # 0.3 of half the range: 0.3 * 0.5 m/s and 0.3 * 3 rad/s.
    np.testing.assert_allclose(found[..., :2].std((0, 1)), [0.15, 0.9], rtol=0.05)
    # Two chunks of an episode share only its bias, a share of the variance.
    shared = np.mean(found[:, 0, :2] * found[:, 1, :2], 0) / np.var(found[..., :2], (0, 1))
    np.testing.assert_allclose(shared, BIAS_SHARE, atol=0.06)


def test_reset_reaches_the_policy() -> None:
    policy = Still()
    explore = Explore(policy, 0.1)
    explore.reset(5)
    assert policy.seeds[-1] == 5
    assert explore.spec is ROBOT


def test_what_is_refused() -> None:
    for scale in (-0.1, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="is not a number from 0 on"):
            Explore(Still(), scale)
    unlimited = replace(ROBOT, action=(ActionDimension("up", "m", float("-inf"), 1.0),))
    with pytest.raises(SpecError, match="up has no finite range"):
        Explore(Still(unlimited), 0.1)


class Looking(Still):
    """A policy that remembers what it was shown."""

    def __init__(self, spec: RobotSpec = ROBOT) -> None:
        super().__init__(spec)
        self.shown: list[Observation] = []

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        self.shown.append(observation)
        return super().act(observation, committed)


def test_an_image_is_moved_by_whole_pixels_and_its_edges_repeated() -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    moved = shifted(image, 0.25, -0.4)  # One row down, two columns to the left.
    np.testing.assert_array_equal(moved[1:, :3], image[:-1, 2:])
    np.testing.assert_array_equal(moved[0], moved[1])
    np.testing.assert_array_equal(moved[:, 3], moved[:, 2])
    np.testing.assert_array_equal(shifted(image, 0.1, 0.09), image)


def test_the_aim_is_the_same_all_through_an_episode_and_fixed_by_the_seed() -> None:
    policy = Looking()
    explore = ShiftedAim(policy, 1.0)
    for seed in (3, 4, 3):
        explore.reset(seed)
        for stamp in (0, 1):
            explore.act(observation(stamp_ns=stamp))
    frames = [[o.images[c.name] for c in ROBOT.cameras] for o in policy.shown]
    for a, b in ((0, 1), (2, 3), (0, 4)):
        for one, other in zip(frames[a], frames[b], strict=True):
            np.testing.assert_array_equal(one, other)
    assert policy.seeds[-3:] == [3, 4, 3]
    np.testing.assert_array_equal(policy.shown[0].proprioception, observation().proprioception)


def test_size_of_a_shift_is_as_documented() -> None:
    explore = ShiftedAim(Looking(), 0.5)
    shares = []
    for seed in range(2000):
        explore.reset(seed)
        shares.append(np.concatenate(list(explore._shares.values())))
    np.testing.assert_allclose(np.std(shares, 0), 0.5 * 0.1, rtol=0.06)


def test_a_hand_is_told_to_be_elsewhere_where_the_robot_says_so() -> None:
    values = tuple(replace(f, aim=a) for f, a in zip(ROBOT.proprioception, (0.1, 0.0, 0.02), strict=True))
    policy = Looking(replace(ROBOT, proprioception=values, cameras=tuple(replace(c, aim=0.0) for c in ROBOT.cameras)))
    explore, seen = ShiftedAim(policy, 0.5), observation()
    for seed in range(2000):
        explore.reset(seed)
        explore.act(seen)
    explore.act(seen)
    offsets = np.array([o.proprioception - seen.proprioception for o in policy.shown])
    np.testing.assert_array_equal(offsets[-1], offsets[-2], "the same all through an episode")
    aims = [f.aim for f in values]
    np.testing.assert_allclose(np.std(offsets, 0), 0.5 * np.array(aims), rtol=0.06, atol=1e-7)
    np.testing.assert_array_equal(policy.shown[0].images["front"], seen.images["front"])
    assert policy.spec.digest == ROBOT.digest
    with pytest.raises(SpecError, match="aim -1 is not a number from 0 on"):
        replace(ROBOT.proprioception[0], aim=-1)
    with pytest.raises(SpecError, match="aim nan is not a number from 0 on"):
        replace(ROBOT.cameras[0], aim=float("nan"))


def test_aim_at_scale_zero_is_the_policy_itself() -> None:
    policy, seen = Looking(), observation()
    explore = ShiftedAim(policy, 0.0)
    explore.reset(1)
    explore.act(seen)
    assert policy.shown[0] is seen


def test_the_robot_says_how_it_explores() -> None:
    aiming = replace(ROBOT, explore="aim")
    assert isinstance(exploring(Still(aiming), 0.1), ShiftedAim)
    assert isinstance(exploring(Still(), 0.1), Explore)
    spared = replace(ROBOT, action=tuple(replace(d, noise=0.0) for d in ROBOT.action))
    explore = exploring(Still(spared), 0.5)
    explore.reset(1)
    np.testing.assert_array_equal(explore.act(observation()).actions, 0)
    assert aiming.digest == ROBOT.digest == spared.digest
    with pytest.raises(SpecError, match="explore 'sideways' is not one of action, aim"):
        replace(ROBOT, explore="sideways")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="is not a number from 0 on"):
        ShiftedAim(Still(), -1.0)
