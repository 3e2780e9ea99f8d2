"""Real nodes as processes, small schedules, and a checkpoint of random weights for the MetaWorld arm."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from small_robot import SMALL

from rollout_manager.bag import EpisodeReader
from rollout_manager.episode import EpisodeHeader
from rollout_manager.graph import Graph, GraphConfig, NodeConfig
from rollout_manager.schedule import Schedule, ScheduleEntry, save_schedule
from vla_policy_node.checkpoint import Lineage, save_checkpoint
from vla_policy_node.commands import action_from_message, chunk_from_message
from vla_policy_node.messages import add_to_buffer, observation_topics, stamp_of, text_from_message
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import Statistics
from vla_policy_node.observation import Float32Array, Observation, ObservationBuffer
from vla_policy_node.spec import RobotSpec, load_spec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, EVENTS, OUTCOME

METAWORLD = load_spec("metaworld")
TASK = "drawer-open-v3"
INSTRUCTION_TEXT = "open the drawer"


def save_random_policy(
    folder: Path, instructions: Iterable[str], seed: int = 0, spec: RobotSpec = METAWORLD, horizon: int = 5
) -> str:
    """Write a checkpoint of random weights that knows `instructions`, so no encoder is loaded; its digest."""
    width, actions = len(spec.proprioception), len(spec.action)
    statistics = Statistics((0.0,) * width, (0.5,) * width, (0.0,) * actions, (0.5,) * actions)
    torch.manual_seed(seed)
    network = VLANetwork(replace(SMALL, horizon=horizon), spec, statistics, encoder_digests={"language": "0" * 16})
    for i, text in enumerate(instructions):
        generator = torch.Generator().manual_seed(i)
        network.language.remember({text: torch.randn(1, network.language.dimension, generator=generator)})
    return save_checkpoint(folder, network, Lineage("", {}, 0, {}, {}))


def write_schedule(path: Path, driver: Literal["policy", "expert"], seeds: Iterable[int], **options: Any) -> Path:
    """A schedule of `TASK` over seeds; `attempts` and `time_limit` of every entry, the rest of the schedule."""
    entry = {name: options.pop(name) for name in ("attempts", "time_limit") if name in options}
    entries = tuple(ScheduleEntry(TASK, seed, **entry) for seed in seeds)
    save_schedule(path, Schedule("metaworld", driver, entries, **options))
    return path


def make_graph(folder: Path, domain: int, nodes: Mapping[str, Mapping[str, Any]]) -> Graph:
    """A graph of the nodes given as kind -> parameters, logging into `folder`."""
    configs = tuple(NodeConfig(kind, parameters) for kind, parameters in nodes.items())
    return Graph(GraphConfig(configs, domain, folder / "logs"))


def run_manager(graph: Graph, timeout_s: float = 90.0, **parameters: Any) -> tuple[int | None, str]:
    """Start a manager in a running graph and wait for its end; its exit status and what it said."""
    graph.start_node(NodeConfig("manager", parameters))
    status = graph.wait("manager", timeout_s)
    return status, graph.log("manager").read_text()


def sent_actions(bag: Path, spec: RobotSpec = METAWORLD) -> tuple[list[int], Float32Array]:
    """Stamps, and actions (T, A), of the commands in a bag."""
    found = [action_from_message(spec, m.message) for m in EpisodeReader(bag).messages([ACTION])]
    return [stamp for stamp, _ in found], np.stack([action for _, action in found])


def bag_observations(bag: Path, spec: RobotSpec = METAWORLD) -> list[Observation]:
    """Every observation that a bag gives, one for each instant that all streams reached."""
    buffer = ObservationBuffer(spec)
    found: list[Observation] = []
    for topic, _, message in EpisodeReader(bag).messages(list(observation_topics(spec))):
        add_to_buffer(buffer, spec, topic, message)
        observation = buffer.assemble()
        if isinstance(observation, Observation) and (not found or observation.stamp_ns > found[-1].stamp_ns):
            found.append(observation)
    return found


def header_of(bag: Path) -> EpisodeHeader:
    """The header of a bag."""
    return EpisodeReader(bag).header


def assert_same_episode(live: Path, local: Path, spec: RobotSpec = METAWORLD) -> None:
    """Two bags hold the same commands, proposals, events, observations and outcome, each as long after its start."""
    (live_stamps, live_actions), (local_stamps, local_actions) = sent_actions(live, spec), sent_actions(local, spec)
    assert np.array_equal(live_actions, local_actions)
    assert [s - live_stamps[0] for s in live_stamps] == [s - local_stamps[0] for s in local_stamps]
    chunks = [
        [chunk_from_message(spec, m.message) for m in EpisodeReader(bag).messages([ACTION_CHUNK])]
        for bag in (live, local)
    ]
    assert len(chunks[0]) == len(chunks[1])
    for one, other in zip(*chunks, strict=True):
        assert np.array_equal(one.actions, other.actions)
        assert one.stamp_ns - live_stamps[0] == other.stamp_ns - local_stamps[0]
    told = [
        [(stamp_of(m.message) - first, m.message.status) for m in EpisodeReader(bag).messages([EVENTS])]
        for bag, first in ((live, live_stamps[0]), (local, local_stamps[0]))
    ]
    assert told[0] == told[1]
    seen, there = bag_observations(live, spec), bag_observations(local, spec)
    assert len(seen) == len(there) == len(live_stamps) + 1  # one more: what the last action led to
    for a, b in zip(seen, there, strict=True):
        assert np.array_equal(a.proprioception, b.proprioception)
        assert all(np.array_equal(a.images[name], b.images[name]) for name in spec.camera_names)
    says = [[text_from_message(m.message) for m in EpisodeReader(bag).messages([OUTCOME])] for bag in (live, local)]
    assert says[0] == says[1]
    assert len(says[0]) == 1
