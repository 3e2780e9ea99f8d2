"""The policy on a real arm: `ros2 launch encore robot.launch.py robot:=my_arm.yaml checkpoint:=runs/best`.

The robot's own driver publishes its cameras, /joint_states and /ee_pose, and obeys /action. Nothing moves before
`ros2 service call /policy_node/enable std_srvs/srv/SetBool "{data: true}"`. With `station:=true` there is an operator's
station as well, with `teleop:=<mapping>` the arm can be driven by hand, and with `stand_in:=panda` it is a simulated
one. Ends with an error if a node dies.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node

from vla_policy_node.locations import config_dir

ARGUMENTS = {
    "robot": "name in config/robots/, or the path of the robot's YAML file",
}
DEFAULTS = {
    "checkpoint": ("", "folder of the checkpoint; empty: one is set later, or a human drives"),
    "station": ("false", "true: an operator's station, for rollouts with the rollout manager"),
    "teleop": (
        "",
        "name in config/teleop/, or the path of a YAML file: drive by hand with a gamepad on /joy; empty: no",
    ),
    "stand_in": (
        "",
        "a model of config/arms/, or the path of one: a simulated arm in place of the real one; empty: no",
    ),
    "mode": ("real_time", "real_time: a command every period, holding if need be; lockstep only for simulators"),
    "device": ("cpu", "where the network runs: cpu, cuda, ..."),
    "domain": (EnvironmentVariable("ROS_DOMAIN_ID", default_value="0"), "ROS_DOMAIN_ID; without it the environment's"),
    "discovery": (
        EnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", default_value="SUBNET"),
        "ROS_AUTOMATIC_DISCOVERY_RANGE: SUBNET where the robot is another computer; without it the environment's",
    ),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    profile = str(config_dir() / "fastdds_shm.xml")
    return LaunchDescription(
        [
            *[DeclareLaunchArgument(name, description=text) for name, text in ARGUMENTS.items()],
            *[DeclareLaunchArgument(n, default_value=v, description=d) for n, (v, d) in DEFAULTS.items()],
            SetEnvironmentVariable("ROS_DOMAIN_ID", LaunchConfiguration("domain")),
            SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", LaunchConfiguration("discovery")),
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),  # read by Jazzy
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),  # read by Kilted
            OpaqueFunction(function=nodes),
        ]
    )


def nodes(context: LaunchContext) -> list[object]:
    """The policy, and station and teleoperation where asked for. Raises: RuntimeError: an argument is not valid."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, *DEFAULTS)}
    if given["station"] not in ("true", "false"):
        raise RuntimeError(f"station:={given['station']} is not one of true, false")
    started = [node("policy_node", given, "robot", "checkpoint", "mode", "device")]
    if given["station"] == "true":
        started.append(node("station_node", given, "robot"))
    if given["teleop"]:
        started.append(node("teleop_node", {**given, "mapping": given["teleop"]}, "robot", "mapping"))
    if given["stand_in"]:
        started.append(node("arm_node", {**given, "model": given["stand_in"]}, "robot", "model"))
    return [*started, *[RegisterEventHandler(OnProcessExit(target_action=n, on_exit=ended)) for n in started]]


def node(name: str, given: dict[str, str], *parameters: str) -> Node:
    """One node with its YAML file from config/nodes/, overridden by those of the arguments that are named."""
    files = [str(config_dir() / "nodes" / f"{name}.yaml"), {parameter: given[parameter] for parameter in parameters}]
    return Node(package="encore", executable=name, name=name, output="screen", parameters=files)


def ended(event: ProcessExited, context: LaunchContext) -> list[object]:
    """A node's end is an error unless somebody asked for it; makes `ros2 launch` return non-zero."""
    if context.is_shutdown:
        return []
    raise RuntimeError(f"{event.process_name} ended with status {event.returncode}; see its output above")
