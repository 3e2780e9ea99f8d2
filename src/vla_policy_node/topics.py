"""Topic names and types of Encore's graph, in one place. All of them can be remapped."""

JOINT_STATES = "/joint_states"  # sensor_msgs/msg/JointState
EE_POSE = "/ee_pose"  # geometry_msgs/msg/PoseStamped
INSTRUCTION = "/task/instruction"  # std_msgs/msg/String, latched
ACTION_CHUNK = "/policy/action_chunk"  # trajectory_msgs/msg/JointTrajectory: what the policy proposed
ACTION = "/action"  # trajectory_msgs/msg/JointTrajectory: the command that was sent
EVENTS = "/policy/events"  # diagnostic_msgs/msg/DiagnosticArray: when commands begin to be held or limited, and why
HUMAN_ACTION = "/human/action"  # trajectory_msgs/msg/JointTrajectory: what a human asked for at a step that they drove
TELEOP_ACTION = "/teleop/action"  # trajectory_msgs/msg/JointTrajectory: what a human asks for, while they do
OUTCOME = "/episode/outcome"  # std_msgs/msg/String holding JSON, latched
PRIVILEGED_STATE = "/sim/privileged_state"  # std_msgs/msg/Float64MultiArray, simulators only
CLOCK = "/clock"  # rosgraph_msgs/msg/Clock: a recording's time while it is replayed
STATION_STATE = "/station/state"  # std_msgs/msg/String holding JSON: what the operator's station waits for
RECORDING = "/rollout/recording"  # std_msgs/msg/String: the try that is being recorded, while it is
DIAGNOSTICS = "/diagnostics"  # diagnostic_msgs/msg/DiagnosticArray
ESTOP = "/estop"  # std_msgs/msg/Bool: true while the emergency stop is pressed
JOY = "/joy"  # sensor_msgs/msg/Joy: one of its buttons is the dead-man's switch


def camera_topic(name: str, transport: str) -> str:
    """Default topic of camera `name` for transport `raw` or `compressed`."""
    suffix = "image_raw" if transport == "raw" else "compressed"
    return f"/camera/{name}/{suffix}"


MESSAGE_TYPES: dict[str, str] = {
    JOINT_STATES: "sensor_msgs/msg/JointState",
    EE_POSE: "geometry_msgs/msg/PoseStamped",
    INSTRUCTION: "std_msgs/msg/String",
    ACTION_CHUNK: "trajectory_msgs/msg/JointTrajectory",
    ACTION: "trajectory_msgs/msg/JointTrajectory",
    HUMAN_ACTION: "trajectory_msgs/msg/JointTrajectory",
    TELEOP_ACTION: "trajectory_msgs/msg/JointTrajectory",
    OUTCOME: "std_msgs/msg/String",
    PRIVILEGED_STATE: "std_msgs/msg/Float64MultiArray",
    EVENTS: "diagnostic_msgs/msg/DiagnosticArray",
    STATION_STATE: "std_msgs/msg/String",
    RECORDING: "std_msgs/msg/String",
    DIAGNOSTICS: "diagnostic_msgs/msg/DiagnosticArray",
    ESTOP: "std_msgs/msg/Bool",
    JOY: "sensor_msgs/msg/Joy",
}
"""Message type of every fixed topic; a camera's is `CAMERA_TYPES[transport]`."""

CAMERA_TYPES: dict[str, str] = {
    "raw": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
}
