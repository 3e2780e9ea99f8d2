"""The catalogue: what it says of bags, that it is only a cache of them, and that damage does not stop it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rollout_manager.bag import EpisodeReader, EpisodeWriter, recover
from rollout_manager.catalog import Catalog, find_bags
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.labels import append_label, labels_path, make_label
from vla_policy_node.messages import rosbags_maker, text_to_message, typestore

HEADER = EpisodeHeader(
    "a", "metaworld", "drawer", "open", 1, "arm", "0" * 16, "policy", "lockstep", versions={"x": "1"}
)


def record(root: Path, name: str, outcome: Outcome | None = None) -> Path:
    writer = EpisodeWriter(root, replace(HEADER, episode_id=name))
    cdr = typestore().serialize_cdr(text_to_message(rosbags_maker(), name), "std_msgs/msg/String")
    writer.write("/words", "std_msgs/msg/String", 1, cdr)
    return writer.close(outcome or Outcome("success", 5, 1.0))


def test_rows_say_what_the_bags_say(tmp_path: Path) -> None:
    helped = Outcome("success", 5, 1.0, human_steps=2)
    paths = [
        record(tmp_path / "one", "a", helped),
        record(tmp_path / "two" / "deep", "b", Outcome("truncated", 9, 0.5)),
    ]
    append_label(paths[1], make_label("b", "success", "Ada", note="it did open"))
    with Catalog.rebuild([tmp_path], tmp_path / "catalog.db") as catalog:
        first, second = catalog.rows()
    assert first.path == paths[0]
    assert first.header == replace(HEADER, episode_id="a")
    assert first.outcome == Outcome("success", 5, 1.0, human_steps=2)
    assert (first.label, first.effective, first.success) == (None, "success", True)
    assert first.digest == EpisodeReader(paths[0]).digest
    assert first.size_bytes == sum(f.stat().st_size for f in paths[0].iterdir())
    assert second.outcome.ending == "truncated"
    assert second.label is not None
    assert (second.label.author, second.effective) == ("Ada", "success")


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    paths = [record(bags, name) for name in "abc"]
    with Catalog(tmp_path / "catalog.db") as catalog:
        assert catalog.update([bags]) == 3
        assert catalog.update([bags]) == 0
        append_label(paths[0], make_label("a", "discard", "Ada"))
        assert catalog.update([bags]) == 1
        assert [row.effective for row in catalog.rows()] == ["discard", "success", "success"]
        shutil.rmtree(paths[1])
        labels_path(paths[0]).unlink()
        assert catalog.update([bags]) == 1
        assert [(row.header.episode_id, row.effective) for row in catalog.rows()] == [
            ("a", "success"),
            ("c", "success"),
        ]
    with Catalog(tmp_path / "catalog.db") as again:
        assert again.update([bags]) == 0
        assert len(again.rows()) == 2


def test_damaged_and_interrupted_bags_are_listed_and_stop_nothing(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    good, torn, labelled = record(bags, "good"), record(bags, "torn"), record(bags, "labelled")
    file = torn / "torn.mcap"
    file.write_bytes(file.read_bytes()[:-20])
    labels_path(labelled).write_text("{}\n")
    (bags / "strange").mkdir()
    (bags / "strange" / "x.mcap").write_bytes(b"theirs")
    writer = EpisodeWriter(bags, replace(HEADER, episode_id="open"))
    with Catalog.rebuild([bags], tmp_path / "catalog.db") as catalog:
        assert [row.path for row in catalog.rows()] == [good]
        problems = {row.path.name: row.problem for row in catalog.damaged()}
        assert set(problems) == {"torn", "labelled", "strange", "open.partial"}
        assert "ends" in problems["torn"] or "byte" in problems["torn"]
        assert "labels.jsonl, line 1" in problems["labelled"]
        assert "metadata.yaml" in problems["strange"]
        assert "recover it first" in problems["open.partial"]
        writer.leave()
        recover(bags / "open.partial")
        catalog.update([bags])
        assert [row.effective for row in catalog.rows()] == ["success", "aborted"]


def test_the_catalogue_is_rebuilt_from_the_bags_alone(tmp_path: Path) -> None:
    record(tmp_path / "bags", "a")
    with Catalog.rebuild([tmp_path / "bags"], tmp_path / "one.db") as one:
        rows = one.rows()
    with sqlite3.connect(tmp_path / "one.db") as db:
        db.execute("PRAGMA user_version = 99")
    with Catalog.rebuild([tmp_path / "bags"], tmp_path / "one.db") as one:
        assert one.rows() == rows
    with Catalog.rebuild([tmp_path / "bags"], ":memory:") as fresh:
        assert fresh.rows() == rows


def test_the_table_can_be_queried(tmp_path: Path) -> None:
    record(tmp_path / "bags", "a")
    record(tmp_path / "bags", "b", Outcome("failure", 3))
    Catalog.rebuild([tmp_path / "bags"], tmp_path / "c.db").close()
    with sqlite3.connect(tmp_path / "c.db") as db:
        found = db.execute("SELECT task, outcome, count(*) FROM episodes GROUP BY task, outcome ORDER BY outcome")
        assert found.fetchall() == [("drawer", "failure", 1), ("drawer", "success", 1)]


def test_bad_places_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="nowhere: no such folder of bags"):
        list(find_bags(tmp_path / "nowhere"))
    (tmp_path / "text.db").write_text("this is no database, and long enough to be seen as none " * 20)
    with pytest.raises(BagError, match=r"text\.db: no catalogue"):
        Catalog(tmp_path / "text.db")
    bag = record(tmp_path, "a")
    assert list(find_bags(bag)) == [bag]


OPEN = """
import sys, time
from rollout_manager.catalog import Catalog
while time.time() < float(sys.argv[2]):
    pass
for number in range(40):
    Catalog(f"{sys.argv[1]}{number}.db").close()
"""


def test_several_processes_open_a_new_catalogue_at_once(tmp_path: Path) -> None:
    source = str(Path(__file__).parents[1] / "src")
    command = [sys.executable, "-c", OPEN, str(tmp_path / "catalog"), str(time.time() + 2.0)]
    running = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": source}) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
