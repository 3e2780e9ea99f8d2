"""A ROS node that does nothing but show that ROS works here: see `probes.py`."""

import os

import rclpy
from rclpy.node import Node
from rclpy.utilities import get_rmw_implementation_identifier

from trainer.probes import Facts, tell


def ros_facts() -> Facts:
    """Start a node and end it."""
    rclpy.init()
    node = Node("encore_doctor")
    node.destroy_node()
    rclpy.shutdown()
    return {
        "rclpy": os.path.dirname(rclpy.__file__),
        "rmw": get_rmw_implementation_identifier(),
        "domain": os.environ.get("ROS_DOMAIN_ID") or "0",
    }


if __name__ == "__main__":
    tell(ros_facts())
