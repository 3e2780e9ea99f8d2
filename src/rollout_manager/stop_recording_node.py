"""What stops a robot, as it is recorded beside its data: safety events, emergency stop, and the dead-man's switch."""

from functools import partial

from rclpy.node import Node

from rollout_manager.cdr import stamp_of_cdr
from rollout_manager.live_recording import LiveRecording
from vla_policy_node.ros_node import message_class, settable, topic_qos
from vla_policy_node.topics import ESTOP, EVENTS, JOY, MESSAGE_TYPES


class StopRecording:
    """Records `/policy/events`, `/estop` and `/joy` with the try that they fall into.

    That one of them is heard does not show that a try goes on: a joystick speaks whether the robot lives or not.
    """

    def __init__(self, node: Node, recording: LiveRecording) -> None:
        self._recording = recording
        for topic, record in ((EVENTS, self._stamped), (ESTOP, self._unstamped), (JOY, self._unstamped)):
            node.create_subscription(
                message_class(MESSAGE_TYPES[topic]),
                topic,
                partial(record, topic),
                topic_qos(topic, lockstep=True, depth=200),
                raw=True,
                qos_overriding_options=settable(),
            )

    def _stamped(self, topic: str, cdr: bytes) -> None:
        self._recording.record(topic, MESSAGE_TYPES[topic], stamp_of_cdr(cdr), cdr)

    def _unstamped(self, topic: str, cdr: bytes) -> None:
        # A joystick's stamp is of its own machine's clock, and in a simulator's time it would say nothing.
        self._recording.record_now(topic, MESSAGE_TYPES[topic], cdr)
