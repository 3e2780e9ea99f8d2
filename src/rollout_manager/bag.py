"""An episode's bag: write, read, check and recover it. The parts are in the files whose names begin with `bag_`."""

from rollout_manager.bag_reader import EpisodeReader, Message, RawMessage
from rollout_manager.bag_recovery import is_interrupted, recover, recover_all
from rollout_manager.bag_verify import verify
from rollout_manager.bag_writer import EpisodeWriter

__all__ = [
    "EpisodeReader",
    "EpisodeWriter",
    "Message",
    "RawMessage",
    "is_interrupted",
    "recover",
    "recover_all",
    "verify",
]
