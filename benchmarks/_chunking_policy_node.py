"""The policy node of bench_chunking_node.py: with a scripted policy for a network, and what it sends written down."""

import json
import os
import time
from pathlib import Path

from _chunking_task import SteeringPolicy, Synchronous

from vla_policy_node import chunking, driving_node, policy_loading, policy_node, policy_parameters
from vla_policy_node.control import Step
from vla_policy_node.policy_output import PolicyOutput
from vla_policy_node.ros_node import exit_process

RECORD = "ENCORE_BENCH_RECORD"
"""Environment variable that names the file which is written what is sent."""


class RecordedOutput(PolicyOutput):
    """Also writes when each command was sent, whether it held, and what it was."""

    def send(self, step: Step) -> None:
        super().send(step)
        with Path(os.environ[RECORD]).open("a") as file:
            file.write(json.dumps([time.time(), bool(step.command.held), step.command.action.tolist()]) + "\n")


def main() -> int:
    """Run the node until it is stopped; returns the exit status."""
    chunking.EXECUTORS["synchronous"] = lambda period_ns, every, decay: Synchronous(period_ns, every)
    policy_parameters.CHOICES["execute"] = tuple(chunking.EXECUTORS)
    vars(policy_loading).update(NetworkPolicy=SteeringPolicy, unfamiliar=lambda *_: ())
    vars(driving_node).update(PolicyOutput=RecordedOutput)
    return policy_node.main()


if __name__ == "__main__":
    exit_process(main())
