"""A recorded try as topics and /clock: `ros2 launch encore replay.launch.py bag:=runs/demo/bags/<...>/<episode>`.

With `checkpoint:=<folder>` a policy node sees what was recorded, in real time. What it says goes out on
/replayed/action and /replayed/policy/action_chunk, and recorded commands on /recorded/..., so nothing of it moves an
arm. Ends with status 0 when all is played, and with an error if a node dies.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

from rollout_manager.bag_reader import EpisodeReader
from vla_policy_node.locations import config_dir
from vla_policy_node.topics import ACTION, ACTION_CHUNK

ARGUMENTS = {
    "bag": ("", "folder of the episode's bag"),
    "rate": ("1.0", "how many times as fast as recorded"),
    "loop": ("false", "begin again at the end"),
    "checkpoint": ("", "folder of a checkpoint that is shown the recording; empty: none"),
    "robot": ("", "name in config/robots/, or the path of a robot's YAML file; empty: the one that the bag names"),
    "domain": (
        EnvironmentVariable("ROS_DOMAIN_ID", default_value="0"),
        "ROS_DOMAIN_ID of all nodes; without it the environment's",
    ),
    "discovery": (
        EnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", default_value="LOCALHOST"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE: LOCALHOST, or SUBNET for viewers elsewhere; without it the environment's",
    ),
}
REPLAYED = "/replayed"


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    profile = str(config_dir() / "fastdds_shm.xml")
    return LaunchDescription(
        [
            *[DeclareLaunchArgument(n, default_value=v, description=d) for n, (v, d) in ARGUMENTS.items()],
            SetEnvironmentVariable("ROS_DOMAIN_ID", LaunchConfiguration("domain")),
            SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", LaunchConfiguration("discovery")),
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),  # read by Jazzy
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),  # read by Kilted
            OpaqueFunction(function=nodes),
        ]
    )


def nodes(context: LaunchContext) -> list[object]:
    """The nodes, as the arguments say. Raises: RuntimeError: no bag is given; BagError: it is not whole."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    if not given["bag"]:
        raise RuntimeError("give bag:=<folder of an episode's bag>")
    if given["loop"] not in ("true", "false"):
        raise RuntimeError(f"loop:={given['loop']} is not one of true, false")
    header = EpisodeReader(Path(given["bag"])).header
    replay = {"bag": given["bag"], "rate": float(given["rate"]), "loop": given["loop"] == "true"}
    started = []
    if given["checkpoint"]:
        policy = {"robot": given["robot"] or header.robot, "checkpoint": given["checkpoint"], "mode": "real_time"}
        elsewhere = [(topic, REPLAYED + topic) for topic in (ACTION, ACTION_CHUNK)]
        started.append(node("policy_node", policy | {"use_sim_time": True}, elsewhere))
        replay["enable"] = "policy_node"
    started.append(node("replay_node", replay, []))
    return [*started, *[RegisterEventHandler(OnProcessExit(target_action=n, on_exit=ended)) for n in started]]


def node(name: str, parameters: dict[str, object], remappings: list[tuple[str, str]]) -> Node:
    """One node with its YAML file from config/nodes/, overridden by `parameters`."""
    file = str(config_dir() / "nodes" / f"{name}.yaml")
    return Node(
        package="encore",
        executable=name,
        name=name,
        output="screen",
        parameters=[file, parameters],
        remappings=remappings,
    )


def ended(event: ProcessExited, context: LaunchContext) -> list[object]:
    """What follows a node's end: all is played, or an error, which makes `ros2 launch` return non-zero."""
    if context.is_shutdown:
        return []
    if event.process_name.startswith("replay_node") and event.returncode == 0:
        return [LogInfo(msg="all of it is played"), EmitEvent(event=Shutdown(reason="all of it is played"))]
    raise RuntimeError(f"{event.process_name} ended with status {event.returncode}; see its output above")
