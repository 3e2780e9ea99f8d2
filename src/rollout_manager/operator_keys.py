"""A terminal's keys as an operator's words, notes, and a gamepad. Pure; times are integer ns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rollout_manager.station import StationState
from rollout_manager.teleop import TeleopError, TeleopMapping
from vla_policy_node.spec import NANOSECONDS

KEYS: Mapping[str, str] = {
    " ": "start",
    "s": "success",
    "f": "failure",
    "d": "discard",
    "x": "stop",
    "h": "home",
}
"""Key -> word of the operator's station."""
TEXTS: Mapping[str, Literal["note", "instruction"]] = {"n": "note", ":": "instruction"}
"""Key -> what is typed after it, up to Enter."""
HELP = "space start   s success   f failure   d discard   x stop   h home   n note   : instruction   Ctrl-C leave"
ENTER, ESCAPE, BACK = ("\r", "\n"), "\x1b", ("\x7f", "\b")
HELD_NS = NANOSECONDS // 4
"""A terminal tells of no key that is let go: one counts as held for so long after each time that it comes."""


@dataclass(frozen=True)
class Said:
    """What the operator said with a key, or typed."""

    what: str
    """A word of the station, `note` or `instruction`."""
    text: str = ""


class Keyboard:
    """Keys one after the other to what they say; remembers a text that is being typed."""

    def __init__(self) -> None:
        self._typing: str | None = None
        self.typed = ""

    @property
    def typing(self) -> str:
        """What is being typed: `note`, `instruction` or nothing."""
        return self._typing or ""

    def press(self, key: str) -> Said | None:
        """Take one key; None where it says nothing yet."""
        if self._typing is None:
            if key in TEXTS:
                self._typing, self.typed = TEXTS[key], ""
                return None
            return Said(KEYS[key]) if key in KEYS else None
        if key == ESCAPE:
            self._typing = None
        elif key in ENTER:
            said, self._typing = Said(self._typing, self.typed.strip()), None
            return said
        elif key in BACK:
            self.typed = self.typed[:-1]
        elif key.isprintable():
            self.typed += key
        return None


class VirtualJoy:
    """Keys that stand for a gamepad's axes and buttons."""

    def __init__(self, mapping: TeleopMapping) -> None:
        """Raises: TeleopError: a key is taken by the operator's words, or stands for nothing that there is."""
        self._keys = {key: _meaning(key, text) for key, text in mapping.keys.items()}
        self._axes = 1 + max((n for what, n, _ in self._keys.values() if what == "axis"), default=-1)
        self._buttons = 1 + max((n for what, n, _ in self._keys.values() if what != "axis"), default=-1)
        self._pressed: dict[str, int] = {}
        self._toggled: set[int] = set()

    def press(self, key: str, now_ns: int) -> bool:
        """Take a key; False where it stands for nothing here."""
        if key not in self._keys:
            return False
        what, number, _ = self._keys[key]
        if what == "toggle":
            self._toggled ^= {number}
        else:
            self._pressed[key] = now_ns
        return True

    def state(self, now_ns: int) -> tuple[list[float], list[int]]:
        """Axes and buttons as sensor_msgs/Joy has them."""
        axes, buttons = [0.0] * self._axes, [0] * self._buttons
        for number in self._toggled:
            buttons[number] = 1
        for key, then_ns in self._pressed.items():
            if now_ns - then_ns <= HELD_NS:
                what, number, sign = self._keys[key]
                if what == "axis":
                    axes[number] += sign
                else:
                    buttons[number] = 1
        return axes, buttons


def _meaning(key: str, text: str) -> tuple[str, int, float]:
    """`+axis 0`, `-axis 0`, `button 5` or `toggle 4` as kind, number and sign. Raises: TeleopError: it is neither."""
    if len(key) != 1 or key in KEYS or key in TEXTS:
        raise TeleopError(f"teleop: key {key!r} is not one character that says nothing else; taken are {HELP}")
    what, _, number = text.partition(" ")
    if what.lstrip("+-") not in ("axis", "button", "toggle") or not number.isdigit():
        raise TeleopError(f"teleop: key '{key}': '{text}' is not '+axis N', '-axis N', 'button N' or 'toggle N'")
    return what.lstrip("+-"), int(number), -1.0 if what.startswith("-") else 1.0


def status_line(state: StationState) -> str:
    """One line for the terminal."""
    about = f"{state.task} seed {state.seed} try {state.attempt}: " if state.task else ""
    told = f" ('{state.instruction}')" if state.instruction not in ("", state.task) else ""
    return f"[{state.phase}] {about}{state.prompt}{told if state.phase in ('scene', 'away') else ''}"


def running_line(state: StationState) -> str:
    """What changes while a try runs."""
    human = f", {state.human_steps} by a human" if state.human_steps else ""
    return f"  {state.elapsed_s:5.1f} of {state.limit_s:.0f} s, {state.steps} steps{human} "
