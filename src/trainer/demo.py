"""A whole run in one folder: the stages of filtered behaviour cloning, films of before and after, the report."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from transformers.utils import logging

from rollout_manager.envs.registry import make_env
from rollout_manager.episode import episode_id
from rollout_manager.pool import WorkerPool
from trainer.collectors import make_collector
from trainer.config import save_config, to_plain
from trainer.exceptions import ConfigError
from trainer.fbc import filtered_behaviour_cloning, references_beside
from trainer.fbc_config import FBCConfig
from trainer.fbc_stages import RunStages, given_base, network_of
from trainer.features import cached_precision
from trainer.films import make_films
from trainer.journal import Journal
from trainer.report import RESULTS, gather, write_report
from trainer.report_data import Report
from vla_policy_node.spec import load_spec

Say = Callable[[str], None]


def run_and_report(config: FBCConfig, folder: Path) -> Path:
    """Do the run, or what is left of it, and write its report. Returns the report's path.

    Raises:
        ConfigError: the configuration asks for what there is not, or the folder holds another run.
        TrainerError, RolloutError, PolicyNodeError: a stage cannot be done; finished ones stay finished.
    """
    folder = folder.resolve()
    with _stages(config, folder) as stages:
        filtered_behaviour_cloning(config, stages)
        stages.say("filming before and after, writing the report")
        page = write_report(folder, make_films(config, folder))
    print_table(gather(folder), folder, page)
    return page


def train_references(config: FBCConfig, folder: Path) -> None:
    """Beside another process's `run_and_report`, train the arms that its policy is compared with, and end.

    Raises:
        As `run_and_report`.
    """
    with _stages(config, folder.resolve(), helping=True) as stages:
        references_beside(config, stages)


@contextmanager
def _stages(config: FBCConfig, folder: Path, helping: bool = False) -> Iterator[RunStages]:
    """The run's stages, with what works at them."""
    check(config)
    logging.disable_progress_bar()  # Of transformers: one of ours is on the screen already.
    console = Console(stderr=True, highlight=False)
    say = stopwatch(console)
    with Journal(folder, to_plain(config), helping, say) as journal:
        save_config(config, folder / "config.yaml")
        if journal.stages:
            say(
                f"going on in {folder}: {len(journal.stages)} stages are done, the last was '{journal.stages[-1].name}'"
            )
        via, graphs = config.collection.via, config.collection.graphs
        with (
            WorkerPool(config.workers) as pool,
            closing(
                make_collector(via, config.environment, config.robot, pool, graphs, folder / "logs", say, config.rules)
            ) as collector,
        ):
            yield RunStages(config, folder, journal, collector, pool, say)


def check(config: FBCConfig) -> None:
    """Refuse, before anything is started, what would fail later. Raises: ConfigError, and as `run_and_report`."""
    spec = load_spec(config.robot)
    vision = network_of(config).vision
    for training in (config.base, config.retrain):
        cached_precision(training, vision)
    make_env(config.environment, spec, config.rules).close()
    bags = config.demonstrations.bags
    if bags and not Path(bags).is_dir():
        raise ConfigError(f"demonstrations.bags '{bags}' is not a folder")
    if config.base_checkpoint:
        _check_unseen(config)


def _check_unseen(config: FBCConfig) -> None:
    """Raises: ConfigError: the base was trained on states that are to choose between policies, or to measure them."""
    plan = config.seed_plan
    trained_on = set(map(_state, given_base(config).lineage.episodes))
    for purpose, seeds in (("evaluation", plan.evaluation), ("validation", plan.validation)):
        ids = {_state(episode_id(config.environment, task, seed)) for task in config.tasks for seed in seeds}
        if seen := sorted(ids & trained_on):
            raise ConfigError(
                f"base_checkpoint '{config.base_checkpoint}' was trained on {len(seen)} of the initial states that "
                f"seeds.{purpose} is to try, such as {seen[0]}; choose another first seed"
            )


def _state(episode: str) -> str:
    """What an episode's id says of its task and initial state, whichever attempt it was."""
    return episode.rsplit("_a", 1)[0]


def stopwatch(console: Console) -> Say:
    """Says what begins, with the time since the start."""
    begun = time.monotonic()

    def say(what: str) -> None:
        seconds = int(time.monotonic() - begun)
        console.print(f"[bold cyan]{seconds // 60:>3}:{seconds % 60:02d}[/]  [bold]{what}[/]", soft_wrap=True)

    return say


def print_table(report: Report, folder: Path, page: Path) -> None:
    """The report's table in the terminal, with where everything is."""
    for line in text_table(report):
        print(line)
    print(f"\n{report.summary}\n")
    print(f"bags         {folder / 'bags'}\ncheckpoints  {folder / 'training'}")
    print(f"results      {folder / RESULTS}\nreport       {page}")


def text_table(report: Report) -> Sequence[str]:
    """Tasks x arms: successes of tries, Wilson interval, median steps to success."""
    width = max(len(task) for task in (*report.tasks, "all tasks"))
    lines = ["", " " * width + "".join(f"  {arm.title:<24}" for arm in report.arms).rstrip()]
    for task in (*report.tasks, "all tasks"):
        cells = []
        for arm in report.arms:
            summary = arm.summary if task == "all tasks" else arm.of_task(task)
            rate = summary.rate
            span = f"[{100 * rate.low:.0f}, {100 * rate.high:.0f}] %"
            steps = f"{summary.steps.median:.0f}" if summary.steps.successes else "-"
            cells.append(f"  {f'{rate.successes}/{rate.trials} {span} {steps}':<24}")
        lines.append((f"{task:<{width}}" + "".join(cells)).rstrip())
    return [*lines, "(successes/tries, 95 % Wilson interval, median steps to success)"]
