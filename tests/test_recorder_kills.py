"""Recorders killed at random moments: every bag is whole, less than a second is lost, labels and catalogue stay.

`make kills` kills 200 times instead of 20 and prints what that cost.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from episodes import make_header, write_bag
from graph_helpers import METAWORLD, TASK, make_graph, write_schedule
from recorder_killer import Kill, Killer, moments, table
from witness_node import RunQueue, Witness

from rollout_manager.bag import verify
from rollout_manager.catalog import Catalog
from rollout_manager.labels import current, read_labels
from rollout_manager.pool import WorkerPool
from rollout_manager.pool_request import EpisodeRequest

KILLS = int(os.environ.get("ENCORE_KILLS", "20"))
"""Of the rollout manager."""
OTHERS = round(0.15 * KILLS)
"""Kills of the pool's workers, and of a process that writes the catalogue."""
SECONDS_A_KILL = 20
"""Much more than it takes, for the time limit."""
PROMISE_S = 1.0
STEPS = 160
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240 + SECONDS_A_KILL * KILLS)]


@pytest.mark.ros
def test_a_killed_rollout_manager_loses_less_than_a_second_whenever_it_is_killed(
    ros_domain: int, tmp_path: Path
) -> None:
    schedule = write_schedule(tmp_path / "s.yaml", "expert", range(10 * KILLS), time_limit=STEPS)
    manager = {"schedule": schedule, "output": tmp_path / "bags", "mode": "real_time"}
    graph = make_graph(tmp_path, ros_domain, {"sim": {"mode": "real_time"}, "expert": {}})
    with graph, Witness(ros_domain, METAWORLD) as witness, RunQueue() as run_queue:
        killer = Killer(graph, manager, witness, run_queue, seed=KILLS)
        kills: list[Kill] = []
        try:
            for moment in moments(KILLS):
                kills.append(killer.kill(moment))
        finally:
            print(f"\n{table(kills)}")
        assert_catalogue_is_whole(tmp_path)
    for kill in kills:
        # A recorder that gets no processor takes and writes nothing meanwhile.
        assert kill.lost_s < PROMISE_S + kill.waited_s, asdict(kill)
    assert sum(kill.kept for kill in kills) > 0


def assert_catalogue_is_whole(folder: Path) -> None:
    """The one that was kept says what one made anew says: all bags, none of them damaged."""
    bags = folder / "bags"
    with Catalog.rebuild([bags], folder / "catalog.sqlite") as kept, Catalog.rebuild([bags], ":memory:") as fresh:
        assert kept.damaged() == fresh.damaged() == []
        assert kept.rows() == fresh.rows()
        assert [row.path.name for row in fresh.rows()] == sorted(p.name for p in bags.iterdir() if p.is_dir())
    journal = folder / "catalog.sqlite-journal"  # An empty one is none to SQLite; the next change removes it.
    assert not journal.exists() or not journal.read_bytes()[:1].strip(b"\0")


def test_a_killed_worker_of_the_pool_loses_less_than_a_second(tmp_path: Path) -> None:
    """What it wrote before its last flush is on disk, so what is lost is no older than the file's last change."""
    rng, bags = random.Random(KILLS), tmp_path / "bags"
    ages: list[float] = []
    for k in range(OTHERS):
        ages += kill_a_worker(bags, first_seed=10 * k, after_s=rng.uniform(0.0, 0.6))
    made = [path for path in bags.iterdir() if path.is_dir()]
    aborted = [path for path in made if ".aborted" in path.name]
    assert [problem for bag in made for problem in verify(bag)] == []
    assert all((label := current(read_labels(bag))) and label.outcome == "aborted" for bag in aborted)
    assert not [path for path in bags.rglob("*") if path.suffix in (".partial", ".rebuilt", ".tmp")]
    most = max(ages, default=0.0)
    print(f"\nworkers of the pool: {OTHERS} kills, {len(aborted)} aborted bags; lost at most {most:.3f} s")
    assert most < PROMISE_S
    assert_catalogue_is_whole(tmp_path)


def kill_a_worker(bags: Path, first_seed: int, after_s: float) -> list[float]:
    """Kill a worker so long after its first bag; the age of what it flushed last, empty where it recorded nothing."""
    requests = [
        EpisodeRequest("metaworld", TASK, seed, driver="expert", time_limit=STEPS, bag_root=str(bags), record="all")
        for seed in range(first_seed, first_seed + 10)
    ]
    ages: list[float] = []

    def shoot(pid: int) -> None:
        for file in bags.glob("*.partial/*.mcap"):
            with contextlib.suppress(FileNotFoundError):  # it got its final name in this moment
                ages.append(time.time() - file.stat().st_mtime)
        os.kill(pid, signal.SIGKILL)

    with WorkerPool(1) as pool:
        for number, result in enumerate(pool.run(requests)):
            if number == 0:
                threading.Timer(after_s, shoot, pool.pids).start()
            if result.outcome.ending == "aborted":
                assert "killed by SIGKILL" in result.outcome.reason
                break
    return ages


CATALOGUE = """
import sys
from pathlib import Path
from rollout_manager.catalog import Catalog
bags, nothing, db = map(Path, sys.argv[1:])
print("begun", flush=True)
while True:
    for root in (bags, nothing):
        Catalog.rebuild([root], db).close()
"""


def test_a_catalogue_killed_while_it_is_written_is_whole_again_at_the_next_look(tmp_path: Path) -> None:
    bags, nothing, rng = tmp_path / "bags", tmp_path / "nothing", random.Random(KILLS)
    nothing.mkdir()
    for number in range(20):
        write_bag(bags, make_header(f"e{number}"), steps=3)
    torn = 0
    for _ in range(OTHERS):
        command = [sys.executable, "-c", CATALOGUE, str(bags), str(nothing), str(tmp_path / "catalog.sqlite")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.3))
            process.kill()
        torn += (tmp_path / "catalog.sqlite-journal").exists()
        assert_catalogue_is_whole(tmp_path)
    print(f"\ncatalogue: {OTHERS} kills, {torn} within a transaction; whole after each")
