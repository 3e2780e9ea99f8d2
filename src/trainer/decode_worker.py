"""A process that decodes bags into the cache: bag paths come as lines on stdin, each is answered by an empty line."""

import contextlib
import json
import sys
from pathlib import Path

from rollout_manager.exceptions import BagError
from trainer.dataset import load_episode
from trainer.episode_cache import EpisodeCache
from trainer.exceptions import DatasetError
from vla_policy_node.exceptions import MessageError
from vla_policy_node.spec import RobotSpec


def main() -> None:
    """Decode what is asked for. The first line says how: spec, image size, cache folder."""
    how = json.loads(sys.stdin.readline())
    spec, cache = RobotSpec.from_dict(how["spec"]), EpisodeCache(Path(how["cache"]))
    height, width = how["image_size"]
    for line in sys.stdin:
        # Whoever reads the cache comes to a bad bag again, and says what is wrong with it.
        with contextlib.suppress(BagError, MessageError, DatasetError):
            load_episode(Path(line.rstrip("\n")), spec, (height, width), cache)
        print(flush=True)


if __name__ == "__main__":
    main()
