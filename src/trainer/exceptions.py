"""The errors this package raises. Each message names the thing, the value and the valid choices."""


class TrainerError(Exception):
    """Base of every error that `trainer` raises on purpose."""


class ConfigError(TrainerError):
    """A configuration has an unknown key, a value out of range, or contradicts itself."""


class DatasetError(TrainerError):
    """The bags asked for do not give a dataset that can be trained on."""


class TrainingError(TrainerError):
    """Training cannot start, or cannot go on from what is on disk."""
