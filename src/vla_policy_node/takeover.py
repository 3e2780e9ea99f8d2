"""Who drives: the policy, a human who has taken over, or nobody. Pure; times are integer ns.

A human takes over by asking for actions, and drives while they ask. When they cease, nobody drives: the arm comes to
rest and holds. The policy goes on only when the human hands back, so that letting a button go sets nothing in motion.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from vla_policy_node.control import Step, hold_unseen
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.observation import Float32Array, Missing, ObservationBuffer
from vla_policy_node.safety import SafetyFilter

Turn = Literal["policy", "human", "nobody"]


class Takeover:
    """Remembers what the human asked for last, and whether they have handed back."""

    def __init__(self, within_ns: int) -> None:
        """Args: within_ns: how often a human who drives must be heard."""
        self._within_ns = within_ns
        self._heard: tuple[int, Float32Array] | None = None
        self._policy = self._taken = False

    def start(self, policy: bool) -> None:
        """A new episode. Args: policy: whether one drives until a human takes over; else the human does."""
        self._heard, self._policy, self._taken = None, policy, False

    def ask(self, now_ns: int, action: Float32Array) -> None:
        """The human asks for an action, shape (A,), in the spec's units."""
        self._heard, self._taken = (now_ns, action), True

    def hand_back(self, now_ns: int) -> None:
        """Let the policy go on. Raises: PolicyNodeError: there is none, or the human still asks for actions."""
        if not self._policy:
            raise PolicyNodeError("no policy drives this episode; there is nobody to hand back to")
        if self.turn(now_ns) == "human":
            raise PolicyNodeError("the human still drives; let the take-over button go first")
        self._taken = False

    def turn(self, now_ns: int) -> Turn:
        """Who drives now."""
        if self._heard is not None and now_ns - self._heard[0] <= self._within_ns and self._taken:
            return "human"
        return "policy" if self._policy and not self._taken else "nobody"

    @property
    def action(self) -> Float32Array | None:
        """What the human asked for last, (A,)."""
        return None if self._heard is None else self._heard[1]

    @property
    def reason(self) -> str:
        """Why the robot holds while nobody drives."""
        if self._heard is None:
            return "human: nobody drives yet; take over with the button of the teleoperation"
        return "human: let go" + ("; hand back for the policy to go on" if self._policy else "")


class HumanControl:
    """Sends what the human asks for, one command a tick, through the filter that the policy's pass as well."""

    def __init__(self, buffer: ObservationBuffer, safety: SafetyFilter, takeover: Takeover) -> None:
        self._buffer, self._safety, self._takeover = buffer, safety, takeover

    def tick(self, now_ns: int, send: Callable[[Step], None], stopped: Sequence[str] = ()) -> None:
        """Send the command for now; nothing before it is known where the robot stands.

        Args: stopped: why the robot must hold, whatever the human asks for; empty where nothing stops it.
        """
        observed = self._buffer.assemble(now_ns)
        if isinstance(observed, Missing) or stopped:
            hold_unseen(observed, stopped, self._safety, now_ns, send)
            return
        asked = self._takeover.action if self._takeover.turn(now_ns) == "human" else None
        why = () if asked is not None else (self._takeover.reason,)
        command = self._safety.check(asked, why, observed.proprioception, now_ns)
        send(Step(observed.stamp_ns, command, human=asked))
