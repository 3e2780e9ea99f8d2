"""An expert that shows how to come back: from noise, and from grasps that missed."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.expert import ActionNoise, Expert
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.spec import RobotSpec

RETREAT = (10, 20)
"""Steps that a missed grasp is gone back on the way that the hand came."""
CLOSING = 6
"""Steps that the fingers take to close on nothing."""
UNNOTICED = (25, 60)
"""Steps that the expert goes on with an empty hand, as a policy does that has never seen one. Not fewer: right beside
the thing an expert that begins anew first rises, where every other demonstration goes down, and a policy that learns
both does neither."""
CHANGE = 0.25
"""Share of its range by which a gripper's target changes when it closes or opens."""


@dataclass(frozen=True)
class Shown:
    """One step of a demonstration."""

    action: Float32Array
    """What is sent, shape (A,)."""
    lesson: Float32Array | None
    """What is to be learned from it, shape (A,); None: nothing, it is a mistake."""


class Demonstrator:
    """Sends the expert's action with noise, and now and then has a grasp miss.

    A demonstration that never fails does not show the way back, and a policy that learned from such carries on with an
    empty hand. So, in a share of the episodes, when the hand begins to close it is led back the way it came, closes on
    nothing, and goes on for a while as if it held something. No lesson is drawn from that. Then the expert begins anew
    from where it finds itself, and what it does is learned.
    """

    def __init__(self, expert: Expert, spec: RobotSpec, noise: ActionNoise, slips: float = 0.0) -> None:
        """Args: slips: share of the episodes with a missed grasp, in [0, 1]; tasks without a grasp have none.

        Raises:
            SimulatorError: the share is out of range.
        """
        if not 0 <= slips <= 1:
            raise SimulatorError(f"demonstrations: slips {slips} is not a share in [0, 1]")
        self._expert, self._noise, self._slips = expert, noise, slips
        self._target = np.array([d.hold == "last" for d in spec.action])
        self._change = CHANGE * (spec.action_high - spec.action_low)
        self._sent: deque[Float32Array] = deque(maxlen=RETREAT[1])
        self._steps: Iterator[Shown] = iter(())

    @property
    def trouble(self) -> str:
        """See `Expert`."""
        return self._expert.trouble

    def reset(self, task: str, seed: int, noise_seed: int) -> None:
        """Start an episode; `noise_seed` fixes all that is random in it.

        Raises:
            SimulatorError: the expert has no script for the task.
        """
        self._expert.reset(task, seed)
        self._noise.reset(noise_seed)
        self._sent.clear()
        # A stream of its own: with or without slips the noise of a seed is the same.
        self._random = np.random.default_rng([noise_seed, 1])
        self._steps = self._episode(task, seed)

    def step(self, privileged_state: Float64Array) -> Shown:
        """What to do in a state, shape (S,). Raises: SimulatorError: the expert does not know such states."""
        self._state = privileged_state
        shown = next(self._steps)
        self._sent.append(shown.action)
        return shown

    def _episode(self, task: str, seed: int) -> Iterator[Shown]:
        slips = self._random.random() < self._slips
        open_hand: Float32Array | None = None
        while True:
            clean = self._expert.act(self._state)
            open_hand = clean if open_hand is None else open_hand
            if slips and self._changed(open_hand, clean):
                slips = False
                yield from self._slip(open_hand, clean)
                self._expert.reset(task, seed)
            else:
                yield Shown(self._noise.apply(clean), clean)

    def _slip(self, open_hand: Float32Array, closing: Float32Array) -> Iterator[Shown]:
        for sent in list(reversed(self._sent))[: self._random.integers(*RETREAT, endpoint=True)]:
            yield Shown(np.where(self._target, open_hand, -sent).astype(np.float32), None)
        for _ in range(CLOSING):
            yield Shown(np.where(self._target, closing, 0).astype(np.float32), None)
        for _ in range(self._random.integers(*UNNOTICED, endpoint=True)):
            clean = self._expert.act(self._state)
            if self._changed(closing, clean):
                return  # It has noticed by itself.
            yield Shown(self._noise.apply(clean), None)

    def _changed(self, one: Float32Array, other: Float32Array) -> bool:
        """Whether a target, such as a gripper's, is another one."""
        return bool(np.any((np.abs(one - other) > self._change) & self._target))
