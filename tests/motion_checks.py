"""What every sequence of sent positions must keep to, whichever limits clamp and which reject."""

from typing import get_args

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from vla_policy_node.action_spec import ActionDimension
from vla_policy_node.limit_switches import CLAMP_ONLY, Limit, LimitMode

Floats = npt.NDArray[np.float64]
Switches = dict[str, LimitMode]

MODES: st.SearchStrategy[LimitMode] = st.sampled_from(get_args(LimitMode))
SWITCHES: st.SearchStrategy[Switches] = st.fixed_dictionaries(
    {}, optional={name: st.just("clamp") if name in CLAMP_ONLY else MODES for name in get_args(Limit)}
)
"""Every mixture that a robot's file may say."""


def check_limits(sent: Floats, dimension: ActionDimension, period_s: float) -> None:
    """Differences of positions that are one period apart, the arm at rest before the first."""
    positions = np.concatenate([np.full(3, sent[0]), sent])
    velocity = np.diff(positions) / period_s
    acceleration = np.diff(velocity) / period_s
    jerk = np.diff(acceleration) / period_s
    # float32 is off by 6e-8 of the position; each difference divides that by a period once more.
    size = max(1.0, float(np.abs(positions).max()))
    assert np.abs(velocity).max() <= dimension.velocity * 1.0001 + 1e-5 * size
    assert np.abs(acceleration).max() <= dimension.acceleration * 1.0001 + 1e-3 * size
    assert np.abs(jerk).max() <= dimension.jerk * 1.001 + 0.1 * size
    assert positions.min() >= min(dimension.low, sent[0]) - 1e-6
    assert positions.max() <= max(dimension.high, sent[0]) + 1e-6
