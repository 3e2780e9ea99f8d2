"""The stages in process, without ROS, on real simulators and networks: what is kept, frozen, and refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rollout_manager.bag import EpisodeReader
from rollout_manager.catalog import Catalog
from rollout_manager.episode import Outcome
from rollout_manager.labels import append_label, make_label
from rollout_manager.pool import WorkerPool
from rollout_manager.results import read_results
from trainer.collection import CollectionPlan, done_tries
from trainer.collection_pool import PoolCollector
from trainer.config import from_mapping, to_plain
from trainer.demo import check, run_and_report
from trainer.exceptions import ConfigError, TrainerError
from trainer.fbc import Tries
from trainer.fbc_config import FBCConfig
from trainer.fbc_stages import RunStages
from trainer.journal import Journal, Output
from trainer.report import PAGE, gather
from vla_policy_node.checkpoint import load_checkpoint
from vla_policy_node.exceptions import PolicyNodeError

pytestmark = pytest.mark.timeout(400)

CONFIG = {
    "tasks": ["reach-v3"],
    "zero_shot": {"tasks": ["drawer-close-v3"], "seeds": 2, "time_limit": 30},
    "iterations": 1,
    "start": "scratch",
    "time_limit": 80,
    "demonstrations": {"per_task": 2},
    "collection": {"via": "pool", "seeds_per_task": 4, "active": 0.5, "attempts": [0.0], "mastered": 1.1},
    "partial_credit": {"sparse_below": 1.0, "start": 0.01},
    "evaluation": {"validation_seeds": 1, "evaluation_seeds": 1},
    "references": {"control": False, "unfiltered": True},
    "base": {"steps": 6, "batch_size": 8, "threads": 1},
    "retrain": {"steps": 3, "batch_size": 8, "threads": 1},
}

ARMS = ("bc", "unfiltered", "fbc_1")


def outputs_in(folder: Path) -> dict[str, Output]:
    """What each stage of a run gave."""
    return {stage["name"]: stage["output"] for stage in json.loads((folder / "journal.json").read_text())["stages"]}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Output]]:
    """A run from scratch with the unfiltered arm: its folder, and what each stage gave."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_and_report(from_mapping(FBCConfig, CONFIG, "test"), folder)
    return folder, outputs_in(folder)


def test_from_scratch_an_iteration_has_new_weights_and_the_base_statistics(
    outputs: tuple[Path, dict[str, Output]],
) -> None:
    folder, stages = outputs
    base, own = (load_checkpoint(folder / stages[f"train {name}"]["checkpoint"]) for name in ("bc", "fbc_1"))
    assert own.statistics.to_dict() == base.statistics.to_dict()
    assert (own.lineage.parent, own.lineage.gradient_steps) == ("", 3)


def test_the_unfiltered_arm_learns_from_every_try(outputs: tuple[Path, dict[str, Output]]) -> None:
    _, stages = outputs
    assert len(stages["keep 1 unfiltered"]["episodes"]) == stages["collect 1"]["tries"] == 2
    assert stages["train unfiltered_1"]["own"] == 2
    assert len(stages["keep 1"]["episodes"]) + sum(stages["keep 1"]["dropped"].values()) == 2


def test_active_collection_tries_its_share(outputs: tuple[Path, dict[str, Output]]) -> None:
    folder, stages = outputs
    rows = read_results(folder / stages["collect 1"]["results"])
    assert [row.seed for row in rows] == [10_000, 10_001]


def test_every_arm_tries_the_tasks_of_no_training_and_the_report_shows_them(
    outputs: tuple[Path, dict[str, Output]],
) -> None:
    folder, stages = outputs
    rows = read_results(folder / "zero_shot.csv")
    assert {(row.task, row.seed) for row in rows} == {("drawer-close-v3", 30_000), ("drawer-close-v3", 30_001)}
    assert all(row.steps <= 30 for row in rows)
    assert {row.checkpoint_digest for row in rows} == {stages[f"zero-shot {a}"]["digest"] for a in ARMS}
    report = gather(folder)
    assert [arm.name for arm in report.zero_shot] == list(ARMS)
    assert "Tasks that nothing was trained on" in (folder / PAGE).read_text()


def test_the_report_of_a_run_without_control(outputs: tuple[Path, dict[str, Output]]) -> None:
    report = gather(outputs[0])
    assert [arm.name for arm in report.arms] == list(ARMS)
    assert "demonstrations alone" not in report.summary


class Nothing:
    """A collector of a folder that is filled already."""

    def collect(self, plan: CollectionPlan) -> None:
        """See `Collector`."""

    def close(self) -> None:
        """See `Collector`."""


def stages_in(folder: Path, config: FBCConfig, journal: Journal, pool: WorkerPool) -> RunStages:
    return RunStages(config, folder, journal, Nothing(), pool, lambda what: None)


def test_labels_decide_what_is_kept_and_caps_hold(tmp_path: Path) -> None:
    """Four expert tries stand in for a policy's; a person discards one, the cap drops another."""
    content = {**CONFIG, "filter": {"demonstrations_per_task": 2, "drivers": ["expert"]}}
    config = from_mapping(FBCConfig, content, "test")
    bags = tmp_path / "bags" / "iteration_1"
    plan = CollectionPlan("tries", "expert", ("reach-v3",), range(4), bags, tmp_path / "tries.csv", attempts=(0.1,))
    with WorkerPool(2) as pool:
        PoolCollector("metaworld", "metaworld", pool, visible=False).collect(plan)
        worst = bags / "metaworld_reach-v3_s3_a0"
        append_label(worst, make_label(worst.name, "discard", "ann"))
        with Journal(tmp_path, to_plain(config)) as journal:
            stages = stages_in(tmp_path, config, journal, pool)
            kept = stages.keep(Tries(1, ("bags/iteration_1",)))
            assert stages.keep(Tries(1, ("bags/iteration_1",))) == kept
            output = journal.output("keep 1")
    assert output is not None
    assert output["dropped"] == {"discarded by its label": 1, "over the task's cap": 1}
    assert output["kept"] == {"reach-v3": 2}
    assert str(worst.relative_to(tmp_path)) not in kept


def test_of_tries_kept_by_partial_credit_what_came_after_it_is_not_learned(tmp_path: Path) -> None:
    """Expert tries that time ran out on stand in for a policy's; the unfiltered arm learns all of each."""
    content = {**CONFIG, "filter": {"drivers": ["expert"]}, "partial_credit": {"sparse_below": 1, "start": 0.01}}
    config = from_mapping(FBCConfig, content, "test")
    bags = tmp_path / "bags" / "iteration_1"
    plan = CollectionPlan("tries", "expert", ("reach-v3",), range(2), bags, tmp_path / "tries.csv", time_limit=12)
    with WorkerPool(2) as pool:
        PoolCollector("metaworld", "metaworld", pool, visible=False).collect(plan)
        with Journal(tmp_path, to_plain(config)) as journal:
            stages = stages_in(tmp_path, config, journal, pool)
            tries = Tries(1, ("bags/iteration_1",))
            kept = stages.keep(tries)
            assert stages.keep(tries, filtered=False) == dict.fromkeys(kept, 0)
    outcomes = {f"bags/iteration_1/{p.name}": EpisodeReader(p).outcome for p in bags.iterdir() if p.is_dir()}
    assert kept == {path: outcome.progress_steps for path, outcome in outcomes.items() if outcome}
    assert len(kept) == 2
    assert all(0 < steps <= 12 for steps in kept.values())


def test_a_bag_whose_row_was_lost_is_not_tried_again(tmp_path: Path) -> None:
    plan = CollectionPlan("tries", "expert", ("reach-v3",), range(2), tmp_path / "bags", tmp_path / "tries.csv")
    with WorkerPool(1) as pool:
        collector = PoolCollector("metaworld", "metaworld", pool, visible=False)
        collector.collect(plan)
        rows = done_tries(plan)
        plan.results.unlink()
        before = sorted((path, path.stat().st_mtime_ns) for path in plan.bags.rglob("*.mcap"))
        collector.collect(plan)
    assert sorted((path, path.stat().st_mtime_ns) for path in plan.bags.rglob("*.mcap")) == before
    assert {row.episode_id for row in done_tries(plan)} == {row.episode_id for row in rows}


def test_no_demonstration_of_a_task_ends_the_run_with_its_name(tmp_path: Path) -> None:
    config = from_mapping(FBCConfig, {**CONFIG, "tasks": ["reach-v3", "push-v3"]}, "test")
    (tmp_path / "bags" / "demonstrations").mkdir(parents=True)
    with WorkerPool(1) as pool, Journal(tmp_path, to_plain(config)) as journal:
        stages = stages_in(tmp_path, config, journal, pool)
        with pytest.raises(TrainerError, match="no successful demonstration of reach-v3, push-v3"):
            stages.train("bc", 0, None, {})
        assert journal.stages == ()


def test_what_cannot_work_is_refused_before_anything_starts() -> None:
    config = from_mapping(FBCConfig, CONFIG, "test")
    with pytest.raises(ConfigError, match=r"demonstrations\.bags 'nowhere' is not a folder"):
        check(replace(config, demonstrations=replace(config.demonstrations, bags="nowhere")))
    with pytest.raises(PolicyNodeError, match="'huge'"):
        check(replace(config, network="huge"))


def test_rounds_may_begin_from_a_policy_that_there_is(outputs: tuple[Path, dict[str, Output]], tmp_path: Path) -> None:
    """The network that is named is another one, the demonstrations are the first run's, and no base is trained."""
    folder, stages = outputs
    given = folder / stages["train bc"]["checkpoint"]
    content = {
        **CONFIG,
        "network": "two_cameras_small",
        "start": "continued",
        "base_checkpoint": str(given),
        "demonstrations": {"per_task": 2, "bags": str(folder / "bags" / "demonstrations")},
        "references": {"control": True, "unfiltered": False},
        "zero_shot": {},
    }
    run_and_report(from_mapping(FBCConfig, content, "test"), tmp_path)
    made = outputs_in(tmp_path)
    base, own = load_checkpoint(given), load_checkpoint(tmp_path / made["train fbc_1"]["checkpoint"])
    assert made["train bc"]["digest"] == own.lineage.parent == base.digest
    assert own.lineage.gradient_steps == base.lineage.gradient_steps + 3
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == ["control_1", "fbc_1"]
    assert sum(n for _, n in made["train bc"]["validation"].values()) == 1
    assert [arm.title for arm in gather(tmp_path).arms] == ["base", "best BC", "control", "FBC 1"]
    assert gather(tmp_path).summary.startswith("The policy that it began with succeeds in")


def test_a_base_that_was_trained_on_what_measures_it_is_refused(outputs: tuple[Path, dict[str, Output]]) -> None:
    folder, stages = outputs
    config = from_mapping(FBCConfig, CONFIG, "test")
    given = replace(config, base_checkpoint=str(folder / stages["train bc"]["checkpoint"]))
    check(given)
    shown = config.seeds.demonstrations
    seen = replace(given, seeds=replace(config.seeds, evaluation=shown, demonstrations=config.seeds.evaluation))
    with pytest.raises(ConfigError, match=r"trained on 1 of the initial states that seeds\.evaluation"):
        check(seen)
    with pytest.raises(PolicyNodeError, match="nowhere"):
        check(replace(config, base_checkpoint="nowhere"))


def test_the_catalogue_counts_what_the_journal_says(outputs: tuple[Path, dict[str, Output]]) -> None:
    folder, stages = outputs
    with Catalog.rebuild([folder / "bags"], ":memory:") as catalog:
        rows, damaged = catalog.rows(), catalog.damaged()
    assert damaged == []
    assert len(rows) == stages["demonstrations"]["tries"] + stages["collect 1"]["tries"]
    assert all(isinstance(row.outcome, Outcome) and row.label is not None for row in rows)
