"""Kills a real rollout manager again and again while it records a live stream, and measures what each kill cost.

The robot and its driver are processes of their own and live on. A witness in this process hears the same topics as the
manager; what it heard up to the kill and what the recovered bag lacks is what was lost.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from witness_node import Heard, RunQueue, Witness

from rollout_manager.bag import EpisodeReader, recover_all, verify
from rollout_manager.bag_format import METADATA_FILE, OUTCOME_RECORD, PARTIAL
from rollout_manager.bag_recovery import REBUILT
from rollout_manager.graph import Graph, NodeConfig
from rollout_manager.labels import HUMAN_RULE, append_label, make_label, read_labels
from rollout_manager.results import read_results
from vla_policy_node.topics import INSTRUCTION, OUTCOME

MOMENTS = ("in an episode", "opening", "at its end", "renaming", "writing the books", "recovering")
"""What the manager is at when it is killed: recording; making a bag; the robot has just told the outcome; metadata.yaml
is being written and the folder gets its name; label and results are written; what an earlier kill left is recovered."""
LONGEST_S = {
    "in an episode": 2.5, "opening": 0.02, "at its end": 0.08, "renaming": 0.004, "writing the books": 0.01,
    "recovering": 0.004,
}  # fmt: skip
"""How long after the moment begins it may be killed, in seconds; drawn evenly."""
GIVE_UP_S = 90.0


@dataclass(frozen=True)
class Kill:
    """One kill, and what it cost."""

    moment: str
    found: str
    """How far the recording had come, as the disk showed it."""
    lost_s: float
    """From the stamp of the oldest message that is missing to the kill; 0 where none is."""
    lost: int
    """Messages that the witness heard and the bag lacks."""
    kept: int
    """Messages in the bag; 0 where there is none."""
    waited_s: float
    """How long before the kill the manager waited for a processor, see `RunQueue`."""


class Killer:
    """Kills the manager of a running graph at a moment of its work, recovers, and checks what is left."""

    def __init__(self, graph: Graph, manager: dict[str, Any], witness: Witness, run_queue: RunQueue, seed: int) -> None:
        """Args: manager: its parameters, among them `output`; seed: fixes the moments."""
        self._graph, self._witness, self._run_queue = graph, witness, run_queue
        self._manager = NodeConfig("manager", manager)
        self._root = Path(manager["output"])
        self._random = random.Random(seed)
        self._labels: dict[Path, int] = {}
        self._checked: set[Path] = set()

    def kill(self, moment: str) -> Kill:
        """Start the manager, kill it, recover what it leaves; what that cost.

        Raises:
            AssertionError: something is not as it is promised.
        """
        self._graph.start_node(self._manager)
        self._run_queue.pid = self._graph.pid("manager")
        self._wait_for("in an episode" if moment == "recovering" else moment)
        waited_s = self._run_queue.waited()
        killed_ns = self._shoot()
        found, folder, made_ns = self._look()
        if moment == "recovering":
            self._graph.start_node(self._manager)
            self._wait_for(moment)
            self._shoot()
            found = f"{found}, then {self._look()[0]}"
        time.sleep(0.1)  # What was sent before the kill reaches the witness.
        self._recover()
        lost, kept = self._compare(folder, made_ns, killed_ns)
        lost_s = (killed_ns - min(stamp for _, stamp in lost)) / 1e9 if lost else 0.0
        self.check()
        return Kill(moment, found, lost_s, len(lost), kept, waited_s)

    def check(self) -> None:
        """Every bag is whole to the last byte, nothing temporary is left, no label is gone, results are readable."""
        left = [
            p for p in self._root.rglob("*") if p.suffix in (PARTIAL, REBUILT, ".tmp") or p.name.endswith("-journal")
        ]
        assert not left, f"left behind: {left}"
        for bag in self.bags():
            labels = read_labels(bag)
            assert len(labels) >= self._labels.get(bag, 0), f"{bag}: a label is gone: {labels}"
            if bag not in self._checked:
                assert verify(bag) == []
                self._checked.add(bag)
                self._check_complete(bag)
                append_label(bag, make_label(labels[0].episode_id if labels else bag.name, "discard", "Ada"))
            assert any(label.rule == HUMAN_RULE for label in read_labels(bag))
            self._labels[bag] = len(read_labels(bag))
        rows = read_results(self._root / "results.csv") if (self._root / "results.csv").exists() else []
        made = Counter(row.episode_id for row in rows if row.ending != "aborted")
        assert all(number == 1 for number in made.values()), made
        assert all((self._root / name).is_dir() for name in made)

    def bags(self) -> list[Path]:
        return sorted(path for path in self._root.iterdir() if path.is_dir()) if self._root.is_dir() else []

    def _check_complete(self, bag: Path) -> None:
        """A bag that was closed by its recorder lacks nothing between its first message and its last."""
        if ".aborted" in bag.name:
            return
        there = messages(bag)
        stamps = [stamp for _, stamp in there] or [0]
        missing = self._witness.between(min(stamps), max(stamps)) - there
        assert not missing, f"{bag} lacks {sorted(missing)[:5]}"

    def _shoot(self) -> int:
        """The time of the kill, in ns since 1970."""
        killed_ns = time.time_ns()
        os.kill(self._graph.pid("manager"), signal.SIGKILL)
        assert self._graph.wait("manager", 10) == -signal.SIGKILL
        return killed_ns

    def _wait_for(self, moment: str) -> None:
        outcomes, known = self._witness.outcomes, set(self.bags())
        begun: dict[str, Callable[[], Any]] = {
            "in an episode": self._partials,
            "opening": self._partials,
            "at its end": lambda: self._witness.outcomes > outcomes and self._partials(),
            "renaming": lambda: self._in_partials(METADATA_FILE),
            "writing the books": lambda: [p for p in set(self.bags()) - known if p.suffix != PARTIAL],
            "recovering": lambda: self._in_partials(REBUILT) or not self._partials(),
        }
        deadline = time.monotonic() + GIVE_UP_S
        while not begun[moment]():
            assert time.monotonic() < deadline, f"'{moment}' did not come: {self._graph.tail('manager')}"
            assert self._graph.status()["manager"] is None, self._graph.tail("manager")
            time.sleep(0.0001)
        time.sleep(self._random.uniform(0.0, LONGEST_S[moment]))

    def _partials(self) -> list[Path]:
        return list(self._root.glob(f"*{PARTIAL}"))

    def _in_partials(self, part: str) -> list[str]:
        """Names of files in recordings under way that have `part` in them."""
        found: list[str] = []
        for folder in self._partials():
            with contextlib.suppress(FileNotFoundError):  # it got its final name in this moment
                found += [name for name in os.listdir(folder) if part in name]
        return found

    def _look(self) -> tuple[str, Path | None, int]:
        """How far the recording has come; its folder, and when that was made in ns (of use while it is empty)."""
        for partial_ in self._partials():
            names = sorted(path.name for path in partial_.iterdir())
            made_ns = partial_.stat().st_mtime_ns
            return _stage(partial_, names), partial_, made_ns
        new = [bag for bag in self.bags() if bag not in self._checked]
        if not new:
            return "no recording", None, 0
        (bag,) = new[-1:]
        if not read_labels(bag):
            return "named, not labelled", None, 0
        rows = read_results(self._root / "results.csv") if (self._root / "results.csv").exists() else []
        written = any(row.episode_id == bag.name for row in rows)
        return ("between two tries" if written else "labelled, not in the results"), None, 0

    def _recover(self) -> None:
        _, problems = recover_all(self._root)
        assert problems == []

    def _compare(self, partial_: Path | None, made_ns: int, killed_ns: int) -> tuple[set[Heard], int]:
        """What the bag lacks of what was heard before the kill, and how many messages it has."""
        if partial_ is None:
            return set(), 0
        name = partial_.name.removesuffix(PARTIAL)
        new = [bag for bag in self.bags() if bag not in self._checked and bag.name.startswith(name)]
        there = messages(new[0]) if new else set()
        first_ns = min((stamp for _, stamp in there), default=made_ns)
        return self._witness.between(first_ns, killed_ns) - there, len(there)


def messages(bag: Path) -> set[Heard]:
    """Topic and stamp of all that is in a bag; an episode's instruction and outcome have none and are left out."""
    found = EpisodeReader(bag).raw_messages()
    return {(m.topic, m.log_time_ns) for m in found if m.topic not in (INSTRUCTION, OUTCOME)}


def _stage(folder: Path, names: list[str]) -> str:
    if METADATA_FILE in names:
        return "metadata written"
    if f"{METADATA_FILE}.tmp" in names:
        return "metadata half written"
    if any(name.endswith(REBUILT) for name in names):
        return "half recovered"
    files = [folder / name for name in names if name.endswith(".mcap")]
    if not files or not files[0].stat().st_size:
        return "folder made"
    return "outcome written" if OUTCOME_RECORD.encode() in files[0].read_bytes()[-100_000:] else "recording"


def table(kills: list[Kill]) -> str:
    """A line a moment, and how far the recordings had come."""
    lines = [f"{'killed':<20}{'kills':>6}{'median lost':>14}{'most lost':>12}{'most waited':>14}  found"]
    for moment in [*dict.fromkeys(kill.moment for kill in kills), "all"]:
        chosen = [kill for kill in kills if moment in (kill.moment, "all")]
        lost, waited = ([getattr(kill, name) for kill in chosen] for name in ("lost_s", "waited_s"))
        found = Counter(kill.found for kill in chosen)
        told = ", ".join(f"{stage} {number}" for stage, number in found.most_common()) if moment != "all" else ""
        seconds = (
            f"{median(lost or [0.0]):>12.3f} s{max(lost, default=0.0):>10.3f} s{max(waited, default=0.0):>12.3f} s"
        )
        lines.append(f"{moment:<20}{len(chosen):>6}{seconds}  {told}")
    return "\n".join(lines)


def moments(kills: int) -> Iterator[str]:
    """So many moments, each kind in its turn."""
    for k in range(kills):
        yield MOMENTS[k % len(MOMENTS)]
