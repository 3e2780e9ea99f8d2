"""Which bags a run of filtered behaviour cloning learns from: its demonstrations, and what each round kept."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rollout_manager.catalog import Catalog, EpisodeRow
from trainer.curriculum import progress_needed
from trainer.exceptions import TrainerError
from trainer.fbc import Tries
from trainer.fbc_config import FBCConfig
from trainer.filter import Kept, select
from trainer.journal import Output
from trainer.report_data import count
from vla_policy_node.spec import load_spec

DEMONSTRATIONS = Path("bags") / "demonstrations"
"""Where a run's own are, in its folder."""


def demonstrated_bags(config: FBCConfig, folder: Path) -> list[Path]:
    """The demonstrations that are learned from. Raises: TrainerError: of some task there is no successful one."""
    given = config.demonstrations.bags
    rows = _rows([Path(given) if given else folder / DEMONSTRATIONS])
    chosen = select(rows, replace(config.filter, tasks=config.tasks), load_spec(config.robot).digest)
    shown = {row.header.task for row in chosen.rows}
    if missing := [task for task in config.tasks if task not in shown]:
        raise TrainerError(f"no successful demonstration of {', '.join(missing)}; dropped: {chosen.reasons()}")
    return [row.path for row in chosen.rows]


def kept_bags(config: FBCConfig, folder: Path, tries: Tries, filtered: bool) -> Output:
    """What is learned from of a round's tries, as the journal has it.

    Returns:
        `episodes`, their paths from the run's folder; `first_steps`, of those that are not learned to their end; counts
        of what was `kept` by task and `dropped` by reason; `progress_needed` by task.
    """
    rows, robot = _rows([folder / bags for bags in tries.bags]), load_spec(config.robot).digest
    kept: list[Kept] = []
    dropped: list[str] = []
    needed: dict[str, float] = {}
    for task in config.tasks:
        of_task = [row for row in rows if row.header.task == task]
        needed[task] = _progress_needed(config, tries.iteration, of_task) if filtered else 0.0
        chosen = select(of_task, replace(config.filter, min_progress=needed[task]), robot)
        kept += chosen.kept
        dropped += [one.reason for one in chosen.dropped]
    paths = {str(one.row.path.relative_to(folder.resolve())): one for one in kept}
    return {
        "episodes": list(paths),
        "first_steps": {path: one.steps for path, one in paths.items() if filtered and one.steps},
        "kept": {task: sum(one.row.header.task == task for one in kept) for task in config.tasks},
        "dropped": count(dropped),
        "progress_needed": needed,
    }


def _progress_needed(config: FBCConfig, iteration: int, rows: Sequence[EpisodeRow]) -> float:
    """How far a try of a task must have come to be kept, by how the task's tries went."""
    tried = [row for row in rows if row.effective != "aborted"]
    return progress_needed(config.partial_credit, iteration, sum(row.success for row in tried), len(tried))


def _rows(roots: Sequence[Path]) -> list[EpisodeRow]:
    with Catalog.rebuild(roots, ":memory:") as catalog:
        return catalog.rows()
