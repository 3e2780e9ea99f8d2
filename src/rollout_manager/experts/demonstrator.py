"""An expert that shows how to come back: from noise, from pushes, and from grasps that missed."""

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
PUSH, PUSHED = 0.5, (4, 8)
"""Standard deviation of a push, as a share of `RobotSpec.noise_range`, and the steps that it takes. A hand of LIBERO
goes some 2 cm aside and turns by 0.05 rad: as far as a policy is off that misses."""
MOVES = 0.01
"""A hand that moves by less than this share of its range is closing or opening; it is left in peace."""


@dataclass(frozen=True)
class Shown:
    """One step of a demonstration."""

    action: Float32Array
    """What is sent, shape (A,)."""
    lesson: Float32Array | None
    """What is to be learned from it, shape (A,); None: nothing, it is a mistake."""


class Demonstrator:
    """Sends the expert's action with noise, now and then pushes the hand aside, and has a grasp miss.

    Noise fades where the expert is slow, since grasping wants millimetres. There, a policy that arrives a centimetre
    beside the thing has never seen anything like it, stays where it is, or grasps air. So the hand is pushed aside for
    a few steps, from which nothing is learned; how the expert comes back is.

    A demonstration that never fails does not show the way back, and a policy that learned from such carries on with an
    empty hand. So, in a share of the episodes, when the hand begins to close it is led back the way it came, closes on
    nothing, and goes on for a while as if it held something. No lesson is drawn from that. Then the expert begins anew
    from where it finds itself, and what it does is learned.
    """

    def __init__(
        self, expert: Expert, spec: RobotSpec, noise: ActionNoise, slips: float = 0.0, pushes: float = 0.0
    ) -> None:
        """
        Args:
            slips: share of the episodes with a missed grasp, in [0, 1]; tasks without a grasp have none.
            pushes: chance at each step that a push begins, in [0, 1].

        Raises:
            SimulatorError: one of them is out of range.
        """
        for name, share in (("slips", slips), ("pushes", pushes)):
            if not 0 <= share <= 1:
                raise SimulatorError(f"demonstrations: {name} {share} is not a share in [0, 1]")
        if slips and all(d.hold == "last" for d in spec.action):
            raise SimulatorError(
                f"demonstrations: slips {slips}: robot '{spec.name}' is commanded by position, so its hand cannot be "
                "led back by what was sent; valid is 0"
            )
        self._expert, self._noise, self._slips, self._pushes = expert, noise, slips, pushes
        self._push_range = PUSH * spec.noise_range
        self._low, self._high = spec.action_low, spec.action_high
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
        # Streams of their own: the noise of a seed is the same with slips and pushes or without.
        self._random = np.random.default_rng([noise_seed, 1])
        self._push_random = np.random.default_rng([noise_seed, 2])
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
            elif self._moves(clean) and self._push_random.random() < self._pushes:
                yield from self._push(clean)
            else:
                yield Shown(self._noise.apply(clean), clean)

    def _moves(self, clean: Float32Array) -> bool:
        return bool(np.any((np.abs(clean) > MOVES * (self._high - self._low)) & ~self._target))

    def _push(self, clean: Float32Array) -> Iterator[Shown]:
        aside = self._push_range * self._push_random.standard_normal(len(clean))
        sent = np.clip(np.where(self._target, clean, aside), self._low, self._high).astype(np.float32)
        for _ in range(self._push_random.integers(*PUSHED, endpoint=True)):
            yield Shown(sent, None)

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
