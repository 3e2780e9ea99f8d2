"""Publishes /clock at a share of the clock's speed, until it is stopped: `python _slow_clock_node.py 0.2`.

On a machine that has other things to do, a second of the graph's time then holds as much computing as a second of an
idle one does.
"""

import sys
import time

import rclpy
from rclpy.qos import QoSProfile

from vla_policy_node.ros_node import end_with_parent, message_class
from vla_policy_node.spec import NANOSECONDS
from vla_policy_node.topics import CLOCK

RATE_HZ = 500.0
"""Of the messages, in the graph's time."""


def main() -> int:
    """Tick until the context goes; returns 0."""
    speed = float(sys.argv[1])
    rclpy.init()
    node = rclpy.create_node("slow_clock")
    publisher = node.create_publisher(message_class("rosgraph_msgs/msg/Clock"), CLOCK, QoSProfile(depth=10))
    start_ns, begun = time.time_ns(), time.monotonic_ns()

    def tick() -> None:
        message = message_class("rosgraph_msgs/msg/Clock")()
        at_ns = start_ns + round((time.monotonic_ns() - begun) * speed)
        message.clock.sec, message.clock.nanosec = divmod(at_ns, NANOSECONDS)
        publisher.publish(message)

    node.create_timer(1 / (RATE_HZ * speed), tick)
    end_with_parent(node)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        return 0
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
