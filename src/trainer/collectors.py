"""Who carries out a collection: the pool in process, or the ROS graph."""

from collections.abc import Callable
from pathlib import Path

from rollout_manager.pool import WorkerPool
from trainer.collection import Collector
from trainer.fbc_config import Via


def make_collector(
    via: Via,
    environment: str,
    robot: str,
    pool: WorkerPool,
    graphs: int,
    logs: Path,
    say: Callable[[str], None] = print,
    rules: str = "",
) -> Collector:
    """A collector, to be closed by the caller.

    Args:
        pool: workers of the collector in process; they stay the caller's.
        graphs: ROS graphs at once.
        logs: folder for what the nodes say.
        say: is told which nodes were started.
        rules: YAML file of success rules; empty: the simulator's own.
    """
    # Each by its own import: the pool must work where there is no ROS.
    if via == "pool":
        from trainer.collection_pool import PoolCollector

        return PoolCollector(environment, robot, pool, rules=rules)
    from trainer.collection_ros import RosCollector

    return RosCollector(environment, robot, graphs, logs, say, rules)
