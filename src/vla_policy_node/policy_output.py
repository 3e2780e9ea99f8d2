"""What a policy node says: commands, chunks, and how it is doing. Publishes through functions; needs no ROS."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vla_policy_node.command_messages import command_message
from vla_policy_node.command_spec import CommandSpec
from vla_policy_node.commands import action_to_message, chunk_to_message
from vla_policy_node.control import Proposal, Step
from vla_policy_node.diagnostics import ERROR, OK, WARN, DurationMonitor, Status, worst
from vla_policy_node.events import SafetyEvent, SafetyEvents
from vla_policy_node.exceptions import MessageError
from vla_policy_node.messages import MessageMaker
from vla_policy_node.spec import RobotSpec


class PolicyOutput:
    """Sends steps and proposals, and counts them."""

    def __init__(
        self,
        make: MessageMaker,
        spec: RobotSpec,
        send_action: Callable[[Any], None],
        send_chunk: Callable[[Any], None],
        lockstep: bool,
        send_commands: Sequence[tuple[CommandSpec, Callable[[Any], None]]] = (),
        now: Callable[[], int] = lambda: 0,
        tell_event: Callable[[SafetyEvent], None] = lambda event: None,
        send_human: Callable[[Any], None] | None = None,
    ) -> None:
        """
        Args:
            lockstep: a step's own proposal is published with it; in real time it was when it arrived.
            send_commands: what publishes to each of the robot's own controllers.
            now: the time in ns.
            tell_event: is told when commands begin to be held or limited, and when they are free again.
            send_human: publishes what a human asked for.
        """
        self._send_commands, self._now = send_commands, now
        self._make, self._spec, self._lockstep = make, spec, lockstep
        self._send_action, self._send_chunk, self._send_human = send_action, send_chunk, send_human
        self._seconds = DurationMonitor()
        self._ticks = self._held = 0
        self._reasons: tuple[str, ...] = ()
        self._events, self._tell_event = SafetyEvents(), tell_event
        self._unsent = ""
        self._unfamiliar: tuple[str, ...] | None = None

    def compare(self, unlike: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        """Ask once an episode what of an observation is unlike the training data; what is so where it is asked."""
        if self._unfamiliar is not None:
            return ()
        self._unfamiliar = unlike()
        return self._unfamiliar

    def restart(self) -> None:
        """A new episode begins."""
        self._unfamiliar = None
        self._events.restart()

    def send(self, step: Step) -> None:
        """Publish the command of one tick, after what it comes from: a chunk, or what a human asked for."""
        if step.proposal is not None and self._lockstep:
            self.tell(step.proposal)
        action = step.command.action
        for command, publish in self._send_commands:
            publish(command_message(self._make, self._spec, command, self._now(), step.command.commanded))
        if step.human is not None and self._send_human is not None:
            self._send_human(action_to_message(self._make, self._spec, step.stamp_ns, step.human))
        self._send_action(action_to_message(self._make, self._spec, step.stamp_ns, action))
        self._ticks += 1
        self._held += step.command.held
        self._reasons = step.command.reasons
        if (event := self._events.see(step.stamp_ns, step.command)) is not None:
            self._tell_event(event)

    def tell(self, proposal: Proposal) -> None:
        """Publish a chunk. One that is no message (NaN) is not: the safety filter holds, diagnostics say why."""
        self._seconds.add(proposal.seconds)
        self._unsent = ""
        if proposal.chunk is None:
            return
        try:
            self._send_chunk(chunk_to_message(self._make, self._spec, proposal.chunk))
        except MessageError as error:
            self._unsent = f"chunk not published: {error}"

    def status(
        self, enabled: bool, digest: str, failure: str, streams: Sequence[Status], delays: Mapping[str, str]
    ) -> Status:
        """The policy's own line of diagnostics, given those of its streams, what made it fail, if anything did, and how
        late its chunks come."""
        level, message = worst(streams) if enabled else (OK, "disabled")
        if failure:
            level, message = ERROR, failure
        elif enabled and level == OK:
            notes = [*self._reasons, *[self._unsent] * bool(self._unsent), *(self._unfamiliar or ())]
            level, message = (WARN, "; ".join(notes)) if notes else (OK, message)
        values = {
            "enabled": str(enabled).lower(),
            "checkpoint_digest": digest,
            "ticks": str(self._ticks),
            "held": str(self._held),
            "last_reasons": "; ".join(self._reasons),
            **self._seconds.values("inference"),
            **{f"event: {kind}": str(count) for kind, count in sorted(self._events.counts.items())},
            **delays,
        }
        return Status("policy", level, message, values)
