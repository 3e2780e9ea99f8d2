"""Collection in process: a pool of simulators, no ROS. The bags are the same as those of the graph."""

from dataclasses import dataclass

from rollout_manager.pool import WorkerPool
from rollout_manager.pool_request import EpisodeRequest
from rollout_manager.results import EpisodeResultRow, append_result
from rollout_manager.schedule import in_turn
from trainer.collection import CollectionPlan, done_tries
from trainer.progress import ProgressBar

ABORTED_ROUNDS = 3
"""How often tries that were aborted are made again before they are left as they are."""


@dataclass(frozen=True)
class PoolCollector:
    """`trainer.collection.Collector` on worker processes, which stay for the next plan."""

    environment: str
    robot: str
    pool: WorkerPool
    visible: bool = True
    """Whether progress is shown."""
    rules: str = ""
    """YAML file of success rules; empty: the simulator's own."""

    def collect(self, plan: CollectionPlan) -> None:
        """Attempt by attempt: the second tries begin when the first tries of all states are over.

        Raises:
            RolloutError: a worker cannot start.
        """
        for _ in range(len(plan.attempts) + ABORTED_ROUNDS):
            tries = plan.unsolved(done_tries(plan))
            if not tries:
                return
            with ProgressBar(plan.name, len(tries), visible=self.visible) as bar:
                for result in self.pool.run([self._request(plan, *one) for one in tries]):
                    append_result(plan.results, EpisodeResultRow.of(result.header, result.outcome))
                    bar.advance(f"{result.header.task} {result.outcome.ending}")

    def close(self) -> None:
        """Nothing to do: the pool belongs to the caller."""

    def _request(self, plan: CollectionPlan, task: str, seed: int, attempt: int) -> EpisodeRequest:
        number = attempt - plan.first_attempt
        return EpisodeRequest(
            environment=self.environment,
            task=task,
            seed=seed,
            attempt=attempt,
            driver=plan.driver,
            checkpoint=str(plan.checkpoint) if plan.checkpoint else None,
            noise_correlation=plan.noise_correlation,
            slips=plan.slips,
            pushes=plan.pushes,
            takeover=plan.takeover,
            exploration=plan.attempts[number],
            time_limit=plan.time_limit or None,
            bag_root=str(plan.bags),
            record="all",
            execute_every=in_turn(plan.execute_every, number),
            robot=self.robot,
            rules=self.rules,
        )
