"""The policy node, noting what only it can know: when a chunk that is not finite came, and when it then held.

    python benchmarks/_noting_policy_node.py NOTES --ros-args -p robot:=panda ...

Adds a line of JSON to the file NOTES for each time that finite chunks turn into others and the arm is held for it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from vla_policy_node import driving_node, policy_node
from vla_policy_node.committed import Committed
from vla_policy_node.control import Proposal, Step, propose
from vla_policy_node.observation import Observation
from vla_policy_node.policy import Policy
from vla_policy_node.policy_output import PolicyOutput
from vla_policy_node.ros_node import exit_process

NOTES = Path(sys.argv[1])


class Notes:
    """Times in ns since 1970."""

    def __init__(self) -> None:
        self.broken_ns = 0
        """When the first chunk that is not finite came; 0 while chunks are finite."""
        self.written = False

    def propose(self, policy: Policy, observation: Observation, committed: Committed | None = None) -> Proposal:
        """Ask the policy."""
        proposal = propose(policy, observation, committed)
        if proposal.chunk is not None and np.isfinite(proposal.chunk.actions).all():
            self.broken_ns, self.written = 0, False
        elif proposal.chunk is not None and not self.broken_ns:
            self.broken_ns = time.time_ns()
        return proposal

    def sent(self, step: Step) -> None:
        """A command was sent. A hold for another reason, which a busy machine gives now and then, does not count."""
        for_it = step.command.held and any("is not finite" in reason for reason in step.command.reasons)
        if self.broken_ns and for_it and not self.written:
            self.written = True
            note = {"chunk_ns": self.broken_ns, "held_ns": time.time_ns()}
            with NOTES.open("a") as stream:
                stream.write(json.dumps(note) + "\n")


notes = Notes()


class NotingOutput(PolicyOutput):
    """Tells the notes of every command."""

    def send(self, step: Step) -> None:
        super().send(step)
        notes.sent(step)


if __name__ == "__main__":
    vars(driving_node).update(propose=notes.propose, PolicyOutput=NotingOutput)
    exit_process(policy_node.main())
