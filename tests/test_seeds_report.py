"""Several training seeds on one page: spread and pairs by hand, and what may not be put together."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rollout_manager.results import EpisodeResultRow, append_results
from trainer import cli
from trainer.config import from_mapping, to_plain
from trainer.exceptions import TrainerError
from trainer.fbc_config import FBCConfig
from trainer.journal import Journal
from trainer.report_data import Arm, Report
from trainer.seeds_report import SeedArm, Spread, check_same_experiment, compare_over_runs, joined, write_seeds_report

ROW = EpisodeResultRow(
    environment="metaworld",
    task="reach-v3",
    seed=0,
    attempt=0,
    driver="policy",
    success=True,
    steps=60,
    ending="success",
    reason="",
    exploration=0.0,
    control_mode="in_process",
    checkpoint_digest="",
    spec_digest="beef",
    versions={"mujoco": "3.3.0"},
)


def rows(outcomes: str, digest: str = "") -> list[EpisodeResultRow]:
    """One row a character: `1` success, `0` none; seeds count up."""
    ends = {"1": ROW, "0": replace(ROW, success=False, ending="truncated")}
    return [replace(ends[o], seed=i, checkpoint_digest=digest, episode_id=f"s{i}") for i, o in enumerate(outcomes)]


def arm(name: str, *runs: str) -> SeedArm:
    return SeedArm(name, tuple(Arm(name, name, tuple(rows(run))) for run in runs))


def finished_run(folder: Path, seed: int, arms: dict[str, str], **changes: object) -> Path:
    """The folder of a run of training seed `seed` whose arms did as the characters say."""
    content = {"tasks": ["reach-v3"], "base": {"seed": seed}, "retrain": {"seed": seed}, **changes}
    with Journal(folder, to_plain(from_mapping(FBCConfig, content, "test"))) as journal:
        for name, outcomes in arms.items():
            digest = f"{name}-{seed}"
            append_results(folder / "evaluation.csv", rows(outcomes, digest))
            journal.run(f"evaluate {name}", lambda d=digest: {"digest": d, "checkpoint": "c"})  # type: ignore[misc]
    return folder


def test_spread_by_hand() -> None:
    # Mean .6, standard deviation .1, so half the interval is 4.303 * .1 / sqrt(3) = .2484.
    spread = Spread.of([0.5, 0.6, 0.7])
    assert (spread.mean, spread.low, spread.high) == pytest.approx((0.6, 0.35157, 0.84843), abs=1e-4)
    assert str(Spread.of([0.5, 0.5])) == "50.0 % [50.0, 50.0]"
    assert math.isnan(Spread.of([0.3]).low)


def test_states_are_paired_within_their_run() -> None:
    test = compare_over_runs(arm("bc", "1100", "0000"), arm("fbc_1", "1010", "0011"))
    assert (test.pairs, test.only_new, test.only_old) == (8, 3, 1)


def test_only_arms_of_all_runs_are_put_together() -> None:
    one = Report("", "", tuple(Arm(n, n, tuple(rows("1"))) for n in ("bc", "fbc_1", "fbc_2")))
    two = Report("", "", tuple(Arm(n, n, tuple(rows("0"))) for n in ("fbc_1", "bc")))
    assert [(a.name, a.shares) for a in joined([one, two])] == [("bc", (1.0, 0.0)), ("fbc_1", (1.0, 0.0))]
    with pytest.raises(TrainerError, match="no arm in common"):
        joined([one, Report("", "", ())])


def test_the_page_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = [{"bc": "1100", "control": "1000", "fbc_1": "1110"}, {"bc": "1000", "control": "1000", "fbc_1": "1111"}]
    folders = [finished_run(tmp_path / str(seed), seed, of_seed) for seed, of_seed in enumerate(arms)]
    page = tmp_path / "pages" / "seeds.html"
    assert cli.main(["report", *map(str, folders), "--page", str(page)]) == 0
    said = capsys.readouterr().out
    assert "FBC 1        87.5 %" in said
    assert "seeds: 50.0, 25.0" in said
    text = page.read_text()
    assert "1 tasks, 2 training seeds" in text
    # 7 of 8 against 3 of 8: four gained, none lost.
    assert "FBC 1 against BC" in text
    assert "<td class='n'>4 / 0</td>" in text
    assert [path.name for path in page.parent.iterdir()] == ["seeds.html"]


def test_what_may_not_be_put_together(tmp_path: Path) -> None:
    one = finished_run(tmp_path / "one", 0, {"bc": "1"})
    same = tmp_path / "same"
    shutil.copytree(one, same)
    other = finished_run(tmp_path / "other", 1, {"bc": "1"}, time_limit=99)
    with pytest.raises(TrainerError, match=r"have the same training seeds, 0 and 0"):
        check_same_experiment([one, same])
    with pytest.raises(TrainerError, match=r"different experiments: time_limit: 200 there, 99 now"):
        write_seeds_report([one, other], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    assert cli.main(["report"]) == cli.FAILED
    assert json.loads((one / "journal.json").read_text())["config"]["time_limit"] == 200


def test_only_seeds_paths_and_processes_may_differ(tmp_path: Path) -> None:
    changes = {"workers": 7, "demonstrations": {"bags": "elsewhere"}}
    runs = [finished_run(tmp_path / "0", 0, {"bc": "1"}), finished_run(tmp_path / "1", 1, {"bc": "1"}, **changes)]
    check_same_experiment(runs)
