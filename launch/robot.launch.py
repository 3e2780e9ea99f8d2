"""The policy on a real arm: `ros2 launch encore robot.launch.py robot:=my_arm.yaml checkpoint:=runs/best`.

The robot's own driver publishes its cameras, /joint_states and /ee_pose, and obeys /action. Nothing moves before
`ros2 service call /policy_node/enable std_srvs/srv/SetBool "{data: true}"`. Ends with an error if the node dies.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, RegisterEventHandler, SetEnvironmentVariable
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from vla_policy_node.locations import config_dir

ARGUMENTS = {
    "robot": "name in config/robots/, or the path of the robot's YAML file",
    "checkpoint": "folder of the checkpoint",
}
DEFAULTS = {
    "mode": ("real_time", "real_time: a command every period, holding if need be; lockstep only for simulators"),
    "device": ("cpu", "where the network runs: cpu, cuda, ..."),
    "domain": ("0", "ROS_DOMAIN_ID"),
    "discovery": ("SUBNET", "ROS_AUTOMATIC_DISCOVERY_RANGE: SUBNET where the robot is another computer, LOCALHOST"),
}


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    profile = str(config_dir() / "fastdds_shm.xml")
    names = ("robot", "checkpoint", "mode", "device")
    parameters = {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in names}
    policy = Node(
        package="encore",
        executable="policy_node",
        name="policy_node",
        output="screen",
        parameters=[str(config_dir() / "nodes" / "policy_node.yaml"), parameters],
    )
    return LaunchDescription(
        [
            *[DeclareLaunchArgument(name, description=text) for name, text in ARGUMENTS.items()],
            *[DeclareLaunchArgument(n, default_value=v, description=d) for n, (v, d) in DEFAULTS.items()],
            SetEnvironmentVariable("ROS_DOMAIN_ID", LaunchConfiguration("domain")),
            SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", LaunchConfiguration("discovery")),
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),  # read by Jazzy
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),  # read by Kilted
            policy,
            RegisterEventHandler(OnProcessExit(target_action=policy, on_exit=ended)),
        ]
    )


def ended(event: ProcessExited, context: LaunchContext) -> list[object]:
    """The node's end is an error unless somebody asked for it; makes `ros2 launch` return non-zero."""
    if context.is_shutdown:
        return []
    raise RuntimeError(f"{event.process_name} ended with status {event.returncode}; see its output above")
