"""A simulated arm, what drives it, and the rollout manager: `ros2 launch encore sim.launch.py task:=drawer-open-v3`.

Ends with status 0 when all tries are made, and with an error as soon as a node dies.
"""

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

from vla_policy_node.locations import config_dir

ARGUMENTS = {
    "task": ("drawer-open-v3", "what is tried: a task's name, a part that no other has, or suite/index"),
    "episodes": ("10", "initial states to try"),
    "schedule": ("", "YAML file of tries, in place of task and episodes"),
    "driver": ("policy", "policy: a checkpoint drives; expert: the environment's scripted expert"),
    "checkpoint": ("", "folder of the checkpoint (driver:=policy)"),
    "env": ("metaworld", "which simulator: metaworld, libero or panda"),
    "suite": ("", "the suite that the task is of, where its name alone does not say, such as libero_90"),
    "robot": ("", "name in config/robots/, or the path of a robot's YAML file; empty: the simulator's own"),
    "rules": ("", "YAML file of success rules; empty: the simulator's own"),
    "mode": ("lockstep", "lockstep or real_time"),
    "output": ("runs/rollouts", "folder of the bags"),
    "domain": (
        EnvironmentVariable("ROS_DOMAIN_ID", default_value="0"),
        "ROS_DOMAIN_ID of all nodes; without it the environment's",
    ),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    profile = str(config_dir() / "fastdds_shm.xml")
    return LaunchDescription(
        [
            *[DeclareLaunchArgument(n, default_value=v, description=d) for n, (v, d) in ARGUMENTS.items()],
            SetEnvironmentVariable("ROS_DOMAIN_ID", LaunchConfiguration("domain")),
            SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),  # read by Jazzy
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),  # read by Kilted
            SetEnvironmentVariable("OMP_NUM_THREADS", "1"),
            OpaqueFunction(function=nodes),
        ]
    )


def nodes(context: LaunchContext) -> list[object]:
    """The three nodes, as the arguments say. Raises: RuntimeError: the arguments contradict each other."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    if given["driver"] not in ("policy", "expert"):
        raise RuntimeError(f"driver:={given['driver']} is not one of policy, expert")
    if given["driver"] == "policy" and not given["checkpoint"] and not given["schedule"]:
        raise RuntimeError("driver:=policy needs checkpoint:=<folder>; driver:=expert needs none")
    robot = {"robot": given["robot"] or given["env"]}
    place = robot | {"environment": given["env"]}
    driver = robot | {"mode": given["mode"]} if given["driver"] == "policy" else dict(place)
    tries = place | {name: given[name] for name in ("mode", "driver", "task", "suite")}
    tries |= {name: given[name] for name in ("schedule", "checkpoint", "output")} | {"episodes": int(given["episodes"])}
    if given["driver"] == "policy":
        driver["checkpoint"] = given["checkpoint"]
    started = [
        node("sim_node", "sim_node", place | {"mode": given["mode"], "rules": given["rules"]}),
        node(f"{given['driver']}_node", f"{given['driver']}_node", driver),
        node("rollout_manager_node", "rollout_manager", tries),
    ]
    return [*started, *[RegisterEventHandler(OnProcessExit(target_action=n, on_exit=ended)) for n in started]]


def node(executable: str, name: str, parameters: dict[str, object]) -> Node:
    """One node with its YAML file from config/nodes/, overridden by `parameters`."""
    file = str(config_dir() / "nodes" / f"{executable}.yaml")
    return Node(package="encore", executable=executable, name=name, output="screen", parameters=[file, parameters])


def ended(event: ProcessExited, context: LaunchContext) -> list[object]:
    """What follows a node's end: all is done, or an error, which makes `ros2 launch` return non-zero."""
    if context.is_shutdown:
        return []
    if event.process_name.startswith("rollout_manager_node") and event.returncode == 0:
        return [LogInfo(msg="all tries are made"), EmitEvent(event=Shutdown(reason="all tries are made"))]
    raise RuntimeError(f"{event.process_name} ended with status {event.returncode}; see its output above")
