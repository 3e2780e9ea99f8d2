"""`encore replay`: recorded tries again, in the simulator, on an arm, beside a policy, or as topics."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rollout_manager.bag import EpisodeReader
from rollout_manager.catalog import find_bags
from rollout_manager.exceptions import BagError
from trainer.commands.arguments import parse
from trainer.config import require

if TYPE_CHECKING:
    from rollout_manager.arm_replay import ArmReplayReport
    from rollout_manager.env import Env
    from rollout_manager.replay import Replayed
    from trainer.open_loop import OpenLoop
    from vla_policy_node.spec import RobotSpec

AS_RECORDED, OTHERWISE = 0, 1


@dataclass(frozen=True)
class ReplaySimulator:
    """Send the recorded actions to the simulator again. Exit code 1 if a try ends otherwise than it did."""

    bags: tyro.conf.Positional[tuple[Path, ...]]
    """Bags, or folders that are searched for them."""
    robot: str = ""
    """A robot of config/robots/, or the path of such a file; empty: the one that the bag names."""
    rules: str = ""
    """YAML file of success rules that the tries were made with; empty: the simulator's own."""


@dataclass(frozen=True)
class ReplayPolicy:
    """Show a checkpoint what was recorded, and compare what it says with what was done, step by step."""

    bags: tyro.conf.Positional[tuple[Path, ...]]
    """Bags, or folders that are searched for them."""
    checkpoint: Path
    """The checkpoint's folder."""
    output: Path
    """Folder that gets `steps.csv` and a plot a bag."""
    robot: str = ""
    """A robot of config/robots/, or the path of such a file; empty: the one that the bags name."""
    device: str = "cpu"
    """Where the network runs: cpu, cuda, ..."""


@dataclass(frozen=True)
class ReplayTopics:
    """Publish a bag's messages with their own timing, and /clock, for rviz, Foxglove or a policy node.

    Recorded commands go out under /recorded/..., so that no arm that listens to /action obeys them.
    """

    bag: tyro.conf.Positional[Path]
    """The episode's bag folder."""
    rate: float = 1.0
    """How many times as fast as recorded."""
    loop: bool = False
    """Begin again at the end, until Ctrl-C."""
    domain: int = field(default_factory=lambda: int(os.environ.get("ROS_DOMAIN_ID", "0")))
    """ROS domain; as with every ROS tool the one in ROS_DOMAIN_ID, else 0."""


@dataclass(frozen=True)
class ReplayArm:
    """Send a bag's recorded actions to a live arm. IT MOVES. Ctrl-C and the emergency stop brake it.

    First it is brought slowly to where the recording began, straight from joint to joint, whatever stands between. Then
    the actions go out as they were, through the robot's limits. Exit code 1 if it was stopped before the end.
    """

    bag: tyro.conf.Positional[Path]
    """The episode's bag folder."""
    robot: str = ""
    """A robot of config/robots/, or the path of such a file; empty: the one that the bag names."""
    rate: float = 1.0
    """How many times as fast as recorded."""
    within: float = 1.0
    """How far a joint may be from where the recording began, in rad or m; further off nothing is sent."""
    approach: float = 0.25
    """Share of the robot's speeds at which it is brought there."""
    estop_within_s: float = 0.0
    """How often /estop must be heard, so that a cut cable stops the robot; 0: it need not be."""
    deadman_button: int = -1
    """Button of /joy that must be held all the time; -1: none."""
    standstill: float = 0.0
    """Highest speed of a joint, its unit a second, at which it is begun; 0: any."""
    domain: int = field(default_factory=lambda: int(os.environ.get("ROS_DOMAIN_ID", "0")))
    """ROS domain; as with every ROS tool the one in ROS_DOMAIN_ID, else 0."""


Command = (
    Annotated[ReplaySimulator, tyro.conf.subcommand("simulator")]
    | Annotated[ReplayArm, tyro.conf.subcommand("arm")]
    | Annotated[ReplayPolicy, tyro.conf.subcommand("policy")]
    | Annotated[ReplayTopics, tyro.conf.subcommand("topics")]
)


def main(arguments: Sequence[str]) -> int:
    """Run the command. Raises: BagError, SpecError, CheckpointError, SimulatorError, GraphError: what does not fit."""
    options: Command = parse(Command, arguments, "replay")  # type: ignore[arg-type]
    if isinstance(options, ReplaySimulator):
        return replay_simulator(options)
    if isinstance(options, ReplayArm):
        return replay_arm(options)
    return replay_policy(options) if isinstance(options, ReplayPolicy) else replay_topics(options)


def replay_simulator(options: ReplaySimulator) -> int:
    """Replay each bag, and print a line for it. Raises: as `main`."""
    from rollout_manager.envs.registry import make_env
    from rollout_manager.replay import read_recorded, replay_in_simulator
    from vla_policy_node.spec import load_spec

    otherwise, told = 0, ""
    with contextlib.ExitStack() as open_envs:
        envs: dict[tuple[str, str], Env] = {}
        for reader in _readers(options.bags):
            place = reader.header.environment, options.robot or reader.header.robot
            if place not in envs:
                env = make_env(place[0], load_spec(place[1]), options.rules)
                envs[place] = open_envs.enter_context(contextlib.closing(env))
            env = envs[place]
            replayed = replay_in_simulator(read_recorded(reader, env.spec), env)
            if replayed.other_versions and told != (told := "; ".join(replayed.other_versions)):
                print(f"other versions: {told}")
            print(_told(replayed, reader.path), flush=True)
            otherwise += not replayed.as_recorded
    print(f"{otherwise} ended otherwise than recorded" if otherwise else "all ended as recorded")
    return OTHERWISE if otherwise else AS_RECORDED


def _readers(places: Sequence[Path]) -> list[EpisodeReader]:
    """All bags below some folders. Raises: BagError: there is none, or one is not whole."""
    readers = [EpisodeReader(path) for place in places for path in find_bags(place)]
    if not readers:
        raise BagError(f"no bag in {', '.join(map(str, places)) or 'nothing: give bags, or folders of bags'}")
    return readers


def _told(replayed: "Replayed", path: Path) -> str:
    """How one replay went, in a line."""
    before, after = replayed.recorded.outcome, replayed.outcome
    recorded = f"{before.ending} after {before.steps} steps"
    if replayed.recorded.header.control_mode == "real_time":
        recorded += " in real time, which no replay repeats exactly"
    way = f"as recorded: {recorded}"
    if not replayed.as_recorded:
        way = f"OTHERWISE: {after.ending} after {after.steps} steps, recorded {recorded}"
    return f"{way}; {_deviation(replayed)}  {path}"


def _deviation(replayed: "Replayed") -> str:
    known = [(step, off) for step, off in enumerate(replayed.hand_m.tolist()) if off == off]
    if not known:
        return "the bag does not say where the hand was"
    if not any(off for _, off in known):
        return "hand where it was, to the last bit"
    first, most = next(step for step, off in known if off), max(off for _, off in known)
    return f"hand up to {1000 * most:.3g} mm off, from step {first} on"


def replay_arm(options: ReplayArm) -> int:
    """Send a bag to the arm of this domain, and say how it went. Raises: as `main`."""
    from rollout_manager.arm_replay import ArmReplayConfig, read_arm_recording
    from rollout_manager.graph import ros_environment
    from vla_policy_node.spec import load_spec

    config = ArmReplayConfig(options.rate, options.within, options.approach)
    reader = EpisodeReader(options.bag)
    spec = load_spec(options.robot or reader.header.robot)
    recording = read_arm_recording(reader, spec)
    os.environ.update(ros_environment(options.domain))

    from rollout_manager.arm_replay_node import replay_into_arm

    stops = {name: getattr(options, name) for name in ("estop_within_s", "deadman_button", "standstill")}
    report = replay_into_arm(
        recording, spec, config, stops, lambda phase: print(f"{recording.name}: {phase}", flush=True)
    )
    print(_arm_text(report, len(recording.actions)))
    return OTHERWISE if report.ended else AS_RECORDED


def _arm_text(report: "ArmReplayReport", actions: int) -> str:
    """How far each joint was from where it had been, what was limited, and how it ended."""
    lines = [f"{'joint':<22} {'mean off':>9} {'most off':>9}"]
    for joint, errors in report.errors.items():
        known = [abs(error) for error in errors if error == error]
        mean, most = (f"{sum(known) / len(known):.4f}", f"{max(known):.4f}") if known else ("-", "-")
        lines.append(f"{joint:<22} {mean:>9} {most:>9}")
    lines += [f"limited or held {times} times: {what}" for what, times in report.limited.most_common()]
    lines.append(f"{report.sent} commands sent for {actions} recorded actions")
    lines.append(f"STOPPED: {report.ended}" if report.ended else "played to the end")
    return "\n".join(lines)


def replay_policy(options: ReplayPolicy) -> int:
    """Compare, print a table, and write steps and plots. Raises: as `main`."""
    from trainer.episode_arrays import decode_episode, episode_topics
    from trainer.open_loop import open_loop, plot, write_steps
    from vla_policy_node.network_policy import NetworkPolicy
    from vla_policy_node.spec import load_spec

    readers = _readers(options.bags)
    spec = load_spec(options.robot or readers[0].header.robot)
    policy = NetworkPolicy.load(options.checkpoint, spec, options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    compared = []
    for reader in readers:
        messages = reader.messages(episode_topics(reader.header, spec))
        episode = decode_episode(reader.header, messages, spec, policy.network.image_size, reader.digest)
        compared.append(open_loop(policy, episode))
        (options.output / f"{reader.header.episode_id}.svg").write_text(plot(compared[-1], spec))
    write_steps(options.output / "steps.csv", compared, spec)
    print(_error_text(compared, spec))
    print(f"{len(compared)} plots and steps.csv in {options.output}")
    return AS_RECORDED


def _error_text(compared: "Sequence[OpenLoop]", spec: "RobotSpec") -> str:
    """The errors by dimension, and by how far ahead an action lies, as a table."""
    from trainer.open_loop import error_ahead, error_table

    lines = [f"{'dimension':<14} {'unit':<8} {'mean error':>10} {'95 % below':>10} {'of range':>8} {'bias':>8}"]
    for row in error_table(compared, spec):
        lines.append(
            f"{row.name:<14} {row.unit:<8} {row.mean:>10.4f} {row.high:>10.4f} {row.share:>8.1%} {row.bias:>+8.4f}"
        )
    ahead = ", ".join(f"{share:.1%}" for share in error_ahead(compared, spec))
    return "\n".join([*lines, f"mean error of range, 0, 1, 2, ... steps ahead: {ahead}"])


def replay_topics(options: ReplayTopics) -> int:
    """Start the replay node, and wait for its end. Returns its exit status. Raises: BagError: no whole bag."""
    from rollout_manager.graph import Graph, GraphConfig, NodeConfig

    require(options.rate > 0, f"replay: rate {options.rate} is not above 0")
    reader = EpisodeReader(options.bag)  # Refused here, not by the node.
    parameters = {"bag": str(reader.path.resolve()), "rate": options.rate, "loop": options.loop}
    with tempfile.TemporaryDirectory() as logs:
        with Graph(GraphConfig((NodeConfig("replay", parameters),), options.domain, Path(logs))) as graph:
            print(f"{reader.header.episode_id} on ROS domain {options.domain}; Ctrl-C stops it", flush=True)
            status = graph.wait("replay")
        if status:
            print(graph.tail("replay"), file=sys.stderr)
    return status or 0
