"""The errors this package raises. Each message names the thing, the value and the valid choices."""


class PolicyNodeError(Exception):
    """Base of every error that `vla_policy_node` raises on purpose."""


class SpecError(PolicyNodeError):
    """A robot description is malformed, or does not fit what it is used with."""


class OutOfReachError(PolicyNodeError):
    """No joints bring the hand to a pose."""


class MessageError(PolicyNodeError):
    """A message's content cannot be what its type and the robot's spec promise."""


class CheckpointError(PolicyNodeError):
    """A checkpoint is missing, damaged, or made for another robot."""


class NetworkError(PolicyNodeError):
    """The network cannot be built as configured, or its weights are not to be had."""
