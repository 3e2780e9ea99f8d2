"""What `demonstrate` and `rollout` share: carry a plan out, and say how it went."""

from contextlib import closing

from rollout_manager.pool import WorkerPool
from trainer.collection import CollectionPlan, done_tries
from trainer.collectors import make_collector
from trainer.commands.place import Place
from trainer.curriculum import check_attempts, check_execute_every
from trainer.exceptions import ConfigError
from trainer.fbc_config import Via


def run_plan(plan: CollectionPlan, place: Place, via: Via, workers: int) -> int:
    """Carry the plan out and print a line a task. Returns the exit code: 1 where nothing succeeded.

    Raises:
        ConfigError: the plan asks for nothing, or for something out of range.
    """
    from rollout_manager.envs.registry import make_env
    from trainer.statistics import Summary, by_task
    from vla_policy_node.spec import load_spec

    check_attempts(plan.attempts)
    check_execute_every(plan.execute_every)
    if not plan.states or plan.seeds.start < 0 or workers < 1:
        raise ConfigError(f"{len(plan.tasks)} tasks, {len(plan.seeds)} seeds, {workers} workers: at least one of each")
    environment, robot = place.environment, place.robot_name
    make_env(
        environment, load_spec(robot), place.rules
    ).close()  # Refuses what it cannot be before anything is started.
    logs = plan.results.parent / "logs"
    with (
        WorkerPool(workers) as pool,
        closing(make_collector(via, environment, robot, pool, workers, logs, rules=place.rules)) as collector,
    ):
        collector.collect(plan)
    rows = done_tries(plan)
    for task, of_task in by_task(rows).items():
        print(f"{task:<28} {Summary.of(of_task)}")
    print(f"{'all':<28} {Summary.of(rows)}\nbags in {plan.bags}, one row a try in {plan.results}")
    return 0 if any(row.success for row in rows) else 1
