"""Which action heads there are. Each has a file of its own."""

from collections.abc import Callable

from torch import nn

from vla_policy_node.network.regression_head import RegressionHead

HEADS: dict[str, Callable[[int, int], nn.Module]] = {"regression": RegressionHead}
"""Makes the head that a configuration names, from the decoder's width and the number of action dimensions.

A head maps the decoder's features (B, H, D) to normalised actions (B, H, A)."""
