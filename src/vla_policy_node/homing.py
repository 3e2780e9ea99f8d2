"""The way home: to where a robot begins every try, through the same filter as everything that moves it. Pure.

What is asked for is home itself; Ruckig, in the filter, plans the fastest way there that the limits of velocity,
acceleration and jerk allow. Home is reached when the joints are measured there, not when that was commanded.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from vla_policy_node.action_spec import home_places
from vla_policy_node.exceptions import PolicyNodeError
from vla_policy_node.observation import Float32Array, Float64Array, Joints
from vla_policy_node.safety import SafeCommand, SafetyFilter
from vla_policy_node.spec import NANOSECONDS, RobotSpec

HomingState = Literal["going", "home", "failed"]

NEAR = 0.02
"""How far from home a joint may come to rest, rad or m, and no more than `NEAR_SHARE` of what it can do."""
NEAR_SHARE = 0.1
SETTLED_NS = 300_000_000
"""How long it must have been there."""
SENT_NEARER = 10.0
"""How many times nearer than that must be what is sent."""
STALE_NS = 500_000_000
"""Age from which on joint states say nothing of where the joints are."""
LEAD_SHARE = 0.9
"""Share of its `lead` that a joint is asked to go ahead of where it is: so that the filter need not step in."""


def home_of(spec: RobotSpec) -> dict[int, float]:
    """Index of each dimension that has a home -> that value. Raises: PolicyNodeError: the robot's file names none."""
    if not spec.home:
        raise PolicyNodeError(f"robot '{spec.name}' has no home; give its file one: `home: {{joint: position}}`")
    return home_places(f"robot '{spec.name}'", spec.home, spec.action)


class Homing:
    """One way home. Times are integer ns."""

    def __init__(self, spec: RobotSpec, safety: SafetyFilter, now_ns: int, timeout_ns: int) -> None:
        """Args: safety: just reset, for a robot that stands still; timeout_ns: after which it has failed.

        Raises:
            PolicyNodeError: the robot's file names no home.
        """
        self._spec, self._safety = spec, safety
        self._home = home_of(spec)
        lead = np.array([d.lead for d in spec.action], np.float64)
        self._lead: Float64Array = LEAD_SHARE * lead
        self._ends_ns, self._seconds = now_ns + timeout_ns, timeout_ns / NANOSECONDS
        self._joints: tuple[int, Joints] | None = None
        self._stay: Float64Array | None = None
        self._there_ns: int | None = None
        self.state: HomingState = "going"
        self.reason = ""
        """Why it failed."""

    def joints(self, now_ns: int, joints: Joints) -> None:
        """Joint states were heard."""
        if all(name in joints.names for name in self._spec.joint_names) and np.isfinite(joints.position).all():
            self._joints = now_ns, joints

    def fail(self, reason: str) -> None:
        """Go no further."""
        if self.state == "going":
            self.state, self.reason = "failed", reason

    def step(self, now_ns: int, stopped: Sequence[str] = ()) -> SafeCommand | None:
        """The command of one tick; None where nothing may be sent, since it is not known where the robot is.

        Args: stopped: why the robot must hold; empty where nothing stops it.
        """
        if stopped:
            self.fail("; ".join(stopped))
        elif self.state == "going" and now_ns > self._ends_ns:
            self.fail(f"not home within {self._seconds:g} s: {self._where()}")
        if self._joints is None or now_ns - self._joints[0] > STALE_NS or self.state == "failed":
            held = self.reason or "joint_states: silent"
            return self._safety.hold((held,), now_ns) if self._safety.located else None
        seen = self._seen(self._joints[1])
        measured = self._spec.measured(seen).astype(np.float64)
        if self._there_ns is not None:
            command = self._safety.hold((), now_ns)  # To rest: on a way that is planned anew each tick there is none.
        else:
            command = self._safety.check(self._wanted(measured), (), seen, now_ns)
        self._settle(now_ns, measured, command)
        return command

    def _seen(self, joints: Joints) -> Float32Array:
        """Proprioception (P,) of the joints' positions; what else it holds is not a number."""
        seen = np.full(len(self._spec.proprioception), np.nan, np.float32)
        for i, item in enumerate(self._spec.proprioception):
            if item.source == "joint_position":
                seen[i] = joints.position[joints.names.index(item.key)]
        return seen

    def _wanted(self, measured: Float64Array) -> Float64Array:
        """What to ask for, (A,): home where there is one, else to stay; no further ahead than `lead` allows."""
        if self._stay is None:
            low, high = self._spec.action_low, self._spec.action_high
            targets = np.array([d.hold == "last" for d in self._spec.action])
            self._stay = np.where(targets, np.clip(np.nan_to_num(measured), low, high), 0.0)
        wanted = self._stay.copy()
        for place, value in self._home.items():
            wanted[place] = value
        at = np.where(np.isfinite(measured), measured, wanted)
        near = np.clip(wanted, at - self._lead, at + self._lead)
        # The filter's limits are float32: a home on one of them, 0.04 say, may lie beyond it.
        return np.asarray(np.clip(near, self._spec.action_low, self._spec.action_high), np.float64)

    def _settle(self, now_ns: int, measured: Float64Array, command: SafeCommand) -> None:
        """Whether home is reached: what is sent is there, and the joints have been for a while."""
        sent = command.action.astype(np.float64)
        at = np.where(np.isfinite(measured), measured, sent)
        away = [max(abs(at[i] - v), SENT_NEARER * abs(sent[i] - v)) / self._near(i) for i, v in self._home.items()]
        if max(away) > 1:
            self._there_ns = None
            return
        self._there_ns = now_ns if self._there_ns is None else self._there_ns
        if self._safety.at_rest and now_ns - self._there_ns >= SETTLED_NS:
            self.state = "home"

    def _near(self, place: int) -> float:
        dimension = self._spec.action[place]
        return min(NEAR, NEAR_SHARE * (dimension.high - dimension.low))

    def _where(self) -> str:
        if self._joints is None:
            return "joint_states: nothing received"
        measured = self._spec.measured(self._seen(self._joints[1]))
        away = [
            f"{self._spec.action[i].joint} is at {measured[i]:.3f}, home {value:.3f} {self._spec.action[i].unit}"
            for i, value in self._home.items()
            if np.isfinite(measured[i]) and abs(measured[i] - value) > self._near(i)
        ]
        return "; ".join(away) or "it does not come to rest"
