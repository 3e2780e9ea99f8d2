"""`encore train`: behaviour cloning of bags."""

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: ConfigError, DatasetError, TrainingError, BagError, CheckpointError."""
    # Its options are those of the algorithm, which imports torch.
    from trainer.commands.train_options import train

    return train(arguments)
