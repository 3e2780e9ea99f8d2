"""Many bags decoded at once, by processes that fill the cache: one core decodes some 3,000 pairs of images a second."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rollout_manager.worker_process import worker_environment
from trainer.episode_cache import EpisodeCache
from vla_policy_node.spec import RobotSpec

WORTH_A_PROCESS = 32
"""Bags; to start a process takes as long as to decode some of them."""


def decode_bags(
    paths: Sequence[Path],
    spec: RobotSpec,
    image_size: tuple[int, int],
    cache: EpisodeCache,
    workers: int,
    advance: Callable[[], None],
) -> None:
    """Fill the cache with bags, as well as it goes: one that cannot be decoded, or whose process dies, is left out.

    Args: workers: processes at most; advance: is called once a bag, from several threads.
    """
    count = min(workers, len(paths) // WORTH_A_PROCESS)
    if count < 2:
        return
    how = json.dumps({"spec": spec.to_dict(), "image_size": list(image_size), "cache": str(cache.root)})
    with ThreadPoolExecutor(count) as threads:
        for share in [paths[i::count] for i in range(count)]:
            threads.submit(_decode, how, share, advance)


def _decode(how: str, paths: Sequence[Path], advance: Callable[[], None]) -> None:
    """One process's share; a line goes out when the one before it is answered, so that no pipe fills up."""
    with subprocess.Popen(
        [sys.executable, "-m", "trainer.decode_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=worker_environment(),
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(how + "\n")
            for path in paths:
                process.stdin.write(f"{path}\n")
                process.stdin.flush()
                if not process.stdout.readline():
                    return
                advance()
        except BrokenPipeError:
            return  # It died; what it leaves undone is decoded by whoever reads the cache.
