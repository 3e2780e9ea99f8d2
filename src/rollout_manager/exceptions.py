"""The errors this package raises. Each message names the thing, the value and the valid choices."""


class RolloutError(Exception):
    """Base of every error that `rollout_manager` raises on purpose."""


class SimulatorError(RolloutError):
    """A simulator cannot be built, reset or stepped as asked."""


class BagError(RolloutError):
    """A bag is not ours, not whole, or holds something it may not hold."""


class LabelError(RolloutError):
    """A label is malformed or names an episode that is not there."""


class ScheduleError(RolloutError):
    """A schedule of episodes asks for something that cannot be run."""


class ResultsError(RolloutError):
    """A results file is not one, or a row contradicts itself."""


class GraphError(RolloutError):
    """The nodes cannot be started, or one of them ended."""


class CommandRefusedError(RolloutError):
    """A controller of the simulated arm does not take a command."""
