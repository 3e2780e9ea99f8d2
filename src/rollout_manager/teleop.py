"""Teleoperation: a gamepad's axes and buttons to the action's dimensions, as a mapping in YAML says. Pure.

A dimension that is a target moves at a speed while the stick is held, from where the arm is; one that is a speed or a
displacement is the stick's own value. `config/teleop/` has mappings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from rollout_manager.exceptions import RolloutError
from vla_policy_node.locations import find_preset, read_yaml
from vla_policy_node.observation import Float32Array, Float64Array
from vla_policy_node.spec import RobotSpec

LEASH_S = 0.25
"""How far, in time at full deflection, a target may be ahead of what was sent: a limit that holds the arm back must
not leave it a way to catch up with when the stick is let go."""


class TeleopError(RolloutError):
    """A teleoperation's mapping is malformed, or of another robot."""


@dataclass(frozen=True)
class AxisMapping:
    """One axis of the gamepad, or a pair of buttons that make one."""

    dimension: str
    """Of the action."""
    scale: float
    """At full deflection: a target's unit a second; a speed or a displacement itself. Negative: the other way."""
    axis: int = -1
    """Of /joy; -1: none."""
    plus: int = -1
    """Button of /joy that is a full deflection; -1: none."""
    minus: int = -1
    """Button that is one the other way."""
    deadzone: float = 0.1
    """Deflection, in [0, 1), up to which the axis counts as let go; beyond it begins anew at 0."""

    def __post_init__(self) -> None:
        if not self.scale or not np.isfinite(self.scale):
            raise TeleopError(f"teleop: '{self.dimension}': scale {self.scale} moves nothing")
        if not 0 <= self.deadzone < 1:
            raise TeleopError(f"teleop: '{self.dimension}': deadzone {self.deadzone} is not in [0, 1)")
        if max(self.axis, self.plus, self.minus) < 0:
            raise TeleopError(f"teleop: '{self.dimension}': no axis and no button, plus or minus, is named")

    def deflection(self, axes: Sequence[float], buttons: Sequence[int]) -> float:
        """In [-1, 1]; an axis or a button that the gamepad does not have counts as let go."""
        value = float(axes[self.axis]) if 0 <= self.axis < len(axes) else 0.0
        value = value if np.isfinite(value) else 0.0
        size = max(0.0, abs(value) - self.deadzone) / (1 - self.deadzone)
        held = _held(buttons, self.plus) - _held(buttons, self.minus)
        return float(np.clip(np.copysign(size, value) + held, -1.0, 1.0))


@dataclass(frozen=True)
class TeleopMapping:
    """How a robot is driven by hand."""

    axes: tuple[AxisMapping, ...]
    takeover_button: int
    """Held while the human drives."""
    hand_back_button: int = -1
    """Pressed for the policy to go on; -1: none."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Keys of a terminal that stand for buttons and axes: `q: +axis 0`, `a: -axis 0`, `g: button 4`."""

    def __post_init__(self) -> None:
        if self.takeover_button < 0:
            raise TeleopError(f"teleop: takeover_button {self.takeover_button} is no button")
        if not self.axes:
            raise TeleopError("teleop: no axes; name at least one dimension")

    def check(self, spec: RobotSpec) -> None:
        """Raises: TeleopError: a dimension is not the robot's."""
        for mapped in self.axes:
            if mapped.dimension not in spec.action_names:
                names = ", ".join(spec.action_names)
                raise TeleopError(f"teleop: dimension '{mapped.dimension}' is not one of {names}")

    def held(self, buttons: Sequence[int]) -> bool:
        """Whether the human drives."""
        return bool(_held(buttons, self.takeover_button))

    def deflections(self, spec: RobotSpec, axes: Sequence[float], buttons: Sequence[int]) -> Float64Array:
        """What is asked for of each dimension, (A,): scale times deflection; several axes of one add up."""
        asked = np.zeros(len(spec.action))
        for mapped in self.axes:
            asked[spec.action_names.index(mapped.dimension)] += mapped.scale * mapped.deflection(axes, buttons)
        return asked


class TeleopDrive:
    """Deflections to actions, one a tick."""

    def __init__(self, spec: RobotSpec, mapping: TeleopMapping) -> None:
        """Raises: TeleopError: the mapping is of another robot."""
        mapping.check(spec)
        self._spec, self._mapping = spec, mapping
        self._targets = np.array([d.hold == "last" for d in spec.action])
        scales = np.zeros(len(spec.action))
        for mapped in mapping.axes:
            scales[spec.action_names.index(mapped.dimension)] += abs(mapped.scale)
        self._leash = LEASH_S * scales
        self._target: Float64Array | None = None

    def let_go(self) -> None:
        """Nobody drives; the next time begins where the arm is then."""
        self._target = None

    def step(self, axes: Sequence[float], buttons: Sequence[int], at: Float64Array, seconds: float) -> Float32Array:
        """The action of one tick, (A,), within the spec's limits.

        Args:
            at: what was sent last, or where the arm is measured, (A,).
            seconds: since the last tick.
        """
        asked = self._mapping.deflections(self._spec, axes, buttons)
        before = at if self._target is None else self._target
        moved = np.clip(before + asked * seconds, at - self._leash, at + self._leash)
        self._target = np.clip(moved, self._spec.action_low, self._spec.action_high).astype(np.float64)
        action = np.where(self._targets, self._target, asked)
        return np.clip(action, self._spec.action_low, self._spec.action_high).astype(np.float32)


class Presses:
    """Which of some buttons have just gone down."""

    def __init__(self, buttons: Mapping[str, int]) -> None:
        """Args: buttons: name -> its number on /joy; a negative one is never pressed."""
        self._buttons = {name: number for name, number in buttons.items() if number >= 0}
        self._down: set[str] | None = None

    def of(self, buttons: Sequence[int]) -> list[str]:
        """The names of those that are down now and were not before; a button held from the start is not pressed."""
        down = {name for name, number in self._buttons.items() if _held(buttons, number)}
        before, self._down = self._down, down
        return [] if before is None else sorted(down - before)


def load_mapping(name_or_path: str | Path) -> TeleopMapping:
    """The mapping called so in `config/teleop/`, or of the YAML file at a path.

    Raises:
        TeleopError: there is none, a key is unknown or missing, or a value is out of range.
    """
    path = find_preset("teleop mapping", name_or_path, "teleop", TeleopError)
    content = read_yaml(path, TeleopError)
    if not isinstance(content, Mapping) or not isinstance(content.get("axes"), list):
        raise TeleopError(f"{path}: expected keys with values, among them the list 'axes'")
    axes = tuple(_build(AxisMapping, item, f"{path}: axes[{i}]") for i, item in enumerate(content["axes"]))
    mapping: TeleopMapping = _build(TeleopMapping, {**content, "axes": axes}, str(path))
    return mapping


def _build(kind: Any, content: Any, origin: str) -> Any:
    known = [f.name for f in fields(kind)]
    if not isinstance(content, Mapping):
        raise TeleopError(f"{origin}: expected keys with values, not {content!r}")
    if unknown := [str(key) for key in content if key not in known]:
        raise TeleopError(f"{origin}: unknown {', '.join(unknown)}; valid are {', '.join(known)}")
    try:
        return kind(**content)
    except TypeError as error:
        raise TeleopError(f"{origin}: {error}") from error


def _held(buttons: Sequence[int], number: int) -> int:
    return int(0 <= number < len(buttons) and buttons[number] == 1)
