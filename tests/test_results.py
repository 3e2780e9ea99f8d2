"""Results: round trip, append by several processes, torn lines, foreign files."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import ResultsError
from rollout_manager.results import (
    COLUMNS,
    EpisodeResultRow,
    append_result,
    append_results,
    latest_by_episode,
    read_results,
)

HEADER = EpisodeHeader(
    episode_id="metaworld_push-v3_s7_a1",
    environment="metaworld",
    task="push-v3",
    instruction="push the puck",
    seed=7,
    robot="metaworld",
    spec_digest="ab",
    driver="policy",
    control_mode="lockstep",
    checkpoint_digest="cd",
    attempt=1,
    exploration=0.15,
    versions={"mujoco": "3.3.0", "metaworld": "3.1.1"},
)
ROW = EpisodeResultRow.of(HEADER, Outcome("success", 42, 1.0))


def _write_many(path: str, worker: int) -> None:
    for index in range(20):
        append_result(Path(path), replace(ROW, seed=index, attempt=worker))


def test_a_row_takes_everything_from_header_and_outcome() -> None:
    row = EpisodeResultRow.of(HEADER, Outcome("aborted", 3, 0.25, "simulator died:\nsignal 9"))
    assert (row.environment, row.task, row.seed, row.attempt) == ("metaworld", "push-v3", 7, 1)
    assert (row.success, row.steps, row.ending, row.progress) == (False, 3, "aborted", 0.25)
    assert row.reason == "simulator died: signal 9"
    assert row.versions == {"mujoco": "3.3.0", "metaworld": "3.1.1"}


@given(
    reason=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs"))),
    exploration=st.floats(0, 1),
    versions=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.text(max_size=5), max_size=3),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, reason: str, exploration: float, versions: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("results") / "results.csv"
    row = replace(ROW, reason=reason, exploration=exploration, versions=versions)
    append_results(path, [row, ROW])
    assert read_results(path) == [row, ROW]


def older(path: Path) -> None:
    """Take the column away that files lacked before: the last one."""
    lines = path.read_text().splitlines()
    assert lines[0].endswith(",human_steps")
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))


def test_a_row_says_how_many_steps_a_human_drove(tmp_path: Path) -> None:
    row = EpisodeResultRow.of(HEADER, Outcome("success", 42, 1.0, human_steps=5))
    append_result(tmp_path / "results.csv", row)
    assert [r.human_steps for r in read_results(tmp_path / "results.csv")] == [5]


def test_a_file_from_before_a_column_was_there_is_read_and_renewed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    append_results(path, [ROW, replace(ROW, seed=8)])
    older(path)
    assert read_results(path) == [ROW, replace(ROW, seed=8)]
    append_result(path, replace(ROW, seed=9, human_steps=3))
    assert read_results(path) == [ROW, replace(ROW, seed=8), replace(ROW, seed=9, human_steps=3)]
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_processes_that_renew_one_older_file_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    append_result(path, ROW)
    older(path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(str(path), k)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = read_results(path)
    assert len(rows) == 61
    assert {(row.seed, row.attempt) for row in rows[1:]} == {(k, worker) for k in range(20) for worker in range(3)}


def test_a_torn_last_line_is_passed_over_and_then_cut(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.csv"
    append_results(path, [ROW, replace(ROW, seed=8)])
    path.write_bytes(path.read_bytes()[:-10])
    assert [row.seed for row in read_results(path)] == [7]
    append_result(path, replace(ROW, seed=9))
    assert [row.seed for row in read_results(path)] == [7, 9]


def test_a_file_torn_within_its_first_line_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("environment,ta")
    assert read_results(path) == []
    append_result(path, ROW)
    assert read_results(path) == [ROW]


def test_processes_append_to_one_file_without_losing_a_row(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(str(path), k)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = read_results(path)
    assert sorted((row.attempt, row.seed) for row in rows) == [(k, i) for k in range(3) for i in range(20)]


def test_foreign_or_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with pytest.raises(ResultsError, match="does not exist"):
        read_results(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match="columns a, b; a results file has environment"):
        append_result(path, ROW)
    with pytest.raises(ResultsError, match="columns a, b"):
        read_results(path)
    assert path.read_text() == "a,b\n1,2\n"
    path.write_text(",".join(COLUMNS) + "\n1,2\n")
    with pytest.raises(ResultsError, match=r":2: 2 values for 17 columns"):
        read_results(path)
    path.unlink()
    append_result(path, ROW)
    path.write_text(path.read_text().replace(",42,", ",many,"))
    with pytest.raises(ResultsError, match=":2: not a result"):
        read_results(path)


def test_a_row_may_not_contradict_itself() -> None:
    with pytest.raises(ResultsError, match="contradicts"):
        replace(ROW, ending="truncated")
    with pytest.raises(ResultsError, match="'won' is not one of success, failure"):
        replace(ROW, ending="won")


def test_a_repeated_try_counts_once() -> None:
    again = replace(ROW, success=False, ending="truncated")
    assert latest_by_episode([ROW, again]) == {ROW.episode_id: again}
