"""Which action heads there are. Each has a file of its own."""

from collections.abc import Callable

from vla_policy_node.network.flow_head import FlowHead
from vla_policy_node.network.regression_head import RegressionHead

Head = RegressionHead | FlowHead

HEADS: dict[str, Callable[[int, int], Head]] = {"regression": RegressionHead, "flow": FlowHead}
"""Makes the head that a configuration names, from the decoder's width and the number of action dimensions."""
