"""Records all of a robot's topics in pieces, bag after bag, and keeps the last few: the recorder of `soak_node.py`.

    python benchmarks/_pieces_node.py FOLDER SECONDS KEPT

A piece is an episode of its own, recorded by what the rollout manager records with. Each adds a line of JSON to
FOLDER/pieces.jsonl: messages received, recorded, dropped, and lost on the way.
"""

import json
import shutil
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node

from rollout_manager.bag import EpisodeReader
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.labels import labels_path
from rollout_manager.live_recording import LiveRecording
from rollout_manager.simulation import TaskInfo
from vla_policy_node.messages import observation_topics
from vla_policy_node.ros_node import exit_process, message_class, run_node, topic_qos
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, INSTRUCTION, MESSAGE_TYPES

ROBOT, TASK = "panda", "soak"
PIECES = "pieces.jsonl"


class PiecesNode:
    """Takes everything, and changes to another bag every few seconds."""

    def __init__(self, folder: Path, seconds: float, kept: int) -> None:
        """Args: folder: of the bags; seconds: length of a piece; kept: how many bags stay."""
        self.node = Node("pieces")
        self._folder, self._kept = folder, kept
        self._spec = load_spec(ROBOT)
        self._recording = LiveRecording(folder, "all")
        self._number = 0
        self._received: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._joined: set[str] = set()
        self._bags: list[Path] = []
        topics = observation_topics(self._spec) | {t: MESSAGE_TYPES[t] for t in (ACTION, ACTION_CHUNK)}
        del topics[INSTRUCTION]
        for topic, kind in topics.items():
            events = SubscriptionEventCallbacks(message_lost=partial(self._on_lost, topic))
            # Deep enough for what comes while a bag is closed and the next is made.
            qos = topic_qos(topic, lockstep=True, depth=500)
            take = partial(self._take, topic, kind)
            self.node.create_subscription(message_class(kind), topic, take, qos, raw=True, event_callbacks=events)
        self._begin()
        self.node.create_timer(seconds, self._change)

    def close(self) -> None:
        """Close the last bag."""
        self._end()

    def _take(self, topic: str, kind: str, cdr: bytes) -> None:
        self._received[topic] += 1
        self._joined.add(topic)
        self._recording.record(topic, kind, time.time_ns(), cdr)

    def _on_lost(self, topic: str, event: Any) -> None:
        """DDS misses numbers in the sequence of what a publisher sent; what that had sent before the first message
        came here is not lost but missed by joining late."""
        if topic in self._joined:
            self._lost[topic] += event.total_count_change

    def _begin(self) -> None:
        digest = self._spec.digest
        header = EpisodeHeader(f"piece-{self._number}", "arm", TASK, TASK, 0, ROBOT, digest, "policy", "real_time")
        info = TaskInfo("arm", TASK, TASK, 0, ROBOT, digest, 0, first_stamp_ns=0)
        self._recording.begin(header, info)
        self._number += 1

    def _change(self) -> None:
        self._end()
        self._begin()

    def _end(self) -> None:
        began = time.monotonic()
        bag = self._recording.finish(Outcome("truncated", self._received[ACTION]))
        assert bag is not None
        reader = EpisodeReader(bag)
        recorded = Counter(topic for topic, *_ in reader.raw_messages())
        line = {
            "bag": bag.name,
            "received": dict(self._received),
            "recorded": dict(recorded),
            "dropped": reader.dropped,
            "lost": dict(self._lost),
            "bytes": reader.size_bytes,
            "took_s": time.monotonic() - began,
        }
        with (self._folder / PIECES).open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self._received.clear()
        self._lost.clear()
        self._bags.append(bag)
        for old in self._bags[: -self._kept]:
            shutil.rmtree(old)
            labels_path(old).unlink()
        self._bags = self._bags[-self._kept :]


if __name__ == "__main__":
    folder, seconds, kept = sys.argv[1:]
    exit_process(run_node(lambda: PiecesNode(Path(folder), float(seconds), int(kept)), ()))
