"""Statistics: hand arithmetic, floors, round trip, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_robot import ROBOT, STATISTICS

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.exceptions import SpecError
from vla_policy_node.normalization import STD_FLOOR, Statistics, compute_statistics

PROPRIOCEPTION = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 7.0]], np.float32)
ACTIONS = np.array([[0.1, 0.0, 0.0], [0.3, 2.0, 0.0]], np.float32)


def test_by_limits_the_limits_become_one() -> None:
    found = compute_statistics(ROBOT, PROPRIOCEPTION, ACTIONS)
    assert found.proprioception_mean == (1.0, 1.0, 6.0)
    # The second value never varies: the floor keeps it from being divided by nothing.
    assert found.proprioception_std == (1.0, STD_FLOOR, 1.0)
    assert found.action_center == (0.0, 1.0, 0.5)
    assert found.action_scale == (0.5, 3.0, 0.5)


def test_by_standard_deviation() -> None:
    found = compute_statistics(ROBOT, PROPRIOCEPTION, ACTIONS, "std")
    np.testing.assert_allclose(found.action_center, [0.2, 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found.action_scale, [0.1, 1.0, STD_FLOOR], rtol=1e-6)


def test_a_dimension_without_limits_is_scaled_by_its_data() -> None:
    robot = replace(ROBOT, action=(ActionDimension("up", "m", float("-inf"), 1.0), *ROBOT.action[1:]))
    found = compute_statistics(robot, PROPRIOCEPTION, ACTIONS)
    assert found.action_center[0] == pytest.approx(0.2)
    assert found.action_scale[1:] == (3.0, 0.5)


def test_round_trip_through_json_is_exact() -> None:
    found = compute_statistics(ROBOT, np.random.default_rng(0).standard_normal((50, 3)), ACTIONS, "std")
    assert Statistics.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_what_is_refused() -> None:
    with pytest.raises(SpecError, match="'minmax' is not one of limits, std"):
        compute_statistics(ROBOT, PROPRIOCEPTION, ACTIONS, "minmax")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=r"actions of shape \(2, 2\), robot 'small' needs \(N, 3\)"):
        compute_statistics(ROBOT, PROPRIOCEPTION, ACTIONS[:, :2])
    with pytest.raises(SpecError, match=r"proprioception of shape \(0, 3\)"):
        compute_statistics(ROBOT, PROPRIOCEPTION[:0], ACTIONS)
    with pytest.raises(SpecError, match=r"action_scale .* is not positive"):
        replace(STATISTICS, action_scale=(1.0, 0.0, 1.0))
    with pytest.raises(SpecError, match="is not finite"):
        replace(STATISTICS, action_center=(1.0, float("nan"), 1.0))
    with pytest.raises(SpecError, match="3 action_center, but 2 action_scale"):
        replace(STATISTICS, action_scale=(1.0, 1.0))
    with pytest.raises(SpecError, match=r"for .3, 3. .* robot 'small' has .3, 1."):
        STATISTICS.check(replace(ROBOT, action=ROBOT.action[:1]))
    content = STATISTICS.to_dict()
    with pytest.raises(SpecError, match="keys action_center"):
        Statistics.from_dict({"action_center": []})
    with pytest.raises(SpecError, match="statistics"):
        Statistics.from_dict({**content, "action_scale": "abc"})
    with pytest.raises(SpecError, match="statistics"):
        Statistics.from_dict({**content, "action_scale": 3})
