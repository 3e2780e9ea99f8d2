"""An operator's station: what stands where a simulator does when the arm is a physical one. Pure; times are integer ns.

A simulator resets the scene and says how a try ended; here a person does both. Per try: the arm is brought home, the
operator sets the scene up and starts, and says how it went. Nothing moves without somebody there: where a try did not
end by the operator's word (time was up, something died), the next way home waits for theirs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rollout_manager.episode import Ending, Outcome
from rollout_manager.exceptions import RolloutError
from vla_policy_node.spec import NANOSECONDS

Phase = Literal["idle", "away", "homing", "scene", "ready", "running", "ended"]
"""`idle`: nobody asks for a try. `away`: one is asked for, and waits for the operator. `homing`: the arm is on its way.
`scene`: the operator sets the scene up. `ready`: they have started it. `running`; `ended`: its outcome is said."""
Verdict = Literal["success", "failure", "discard", "stop"]
Effect = Literal["home", "disable", "outcome"]
"""What the node is to do: have the arm brought home, take it out of the driver's hands, publish the outcome."""

DISCARDED, STOPPED = "discarded by operator", "stopped by operator"
"""Begin the reasons of tries that the operator wants made again."""
LOST_NS = 3 * NANOSECONDS
"""Silence after which the rollout manager is taken for gone."""
READY_NS = 60 * NANOSECONDS
"""How long the operator's start holds, while a checkpoint is loaded."""
PRESENT_NS = 30 * NANOSECONDS
"""After the operator's word they count as being there."""


class StationError(RolloutError):
    """The station cannot do now what it is asked to; the message says what it waits for."""


@dataclass(frozen=True)
class TryRequest:
    """The try that the rollout manager asks for."""

    episode_id: str
    task: str
    seed: int
    attempt: int
    limit_ns: int
    """Time after which it is truncated."""


@dataclass(frozen=True)
class StationState:
    """What the station tells of itself; travels as JSON."""

    phase: Phase
    prompt: str
    """What it waits for, in words for the operator."""
    task: str = ""
    instruction: str = ""
    episode_id: str = ""
    seed: int = 0
    attempt: int = 0
    elapsed_s: float = 0.0
    """Of a running try."""
    limit_s: float = 0.0
    steps: int = 0
    """Commands of the running try, or of the last one."""
    human_steps: int = 0
    """How many of them a human drove."""
    last: str = ""
    """How the last try ended, in words."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> "StationState":
        """Raises: StationError: a key is unknown or missing."""
        try:
            return StationState(**content)
        except TypeError as error:
            raise StationError(f"station's state: {error}") from error


def by_operator(outcome: Outcome) -> bool:
    """Whether a try was aborted because the operator wants it made again."""
    return outcome.ending == "aborted" and outcome.reason.startswith((DISCARDED, STOPPED))


@dataclass
class Station:
    """The phases of tries, one after the other. The node carries out what `take_effects` gives."""

    homes: bool
    """Whether the arm is brought home before every try."""
    phase: Phase = "idle"
    request: TryRequest | None = None
    outcome: Outcome | None = None
    """Of the try that ended last."""
    steps: int = 0
    human_steps: int = 0
    problem: str = ""
    """Why it waits for the operator, where something went wrong."""
    last: str = ""
    _effects: list[Effect] = field(default_factory=list)
    _asked_ns: int = 0
    _since_ns: int = 0
    _heard_ns: int = 0
    _present_ns: int | None = None
    _revoked: str = ""

    def take_effects(self) -> list[Effect]:
        """What is to be done now; each only once."""
        effects, self._effects = self._effects, []
        return effects

    # The rollout manager's side

    def ask(self, request: TryRequest, now_ns: int) -> str:
        """The manager asks for a try, again and again until it may go on.

        Returns:
            What it has to wait for; empty when the operator has started the try.
        """
        self._asked_ns = now_ns
        if self.phase in ("idle", "running", "ended"):
            self._begin(request, now_ns)
        self.request = request
        return "" if self.phase == "ready" else self.prompt

    def run(self, now_ns: int) -> None:
        """The manager has put the robot into the driver's hands. What was revoked meanwhile ends at once."""
        if self.phase == "ready":
            self._enter("running", now_ns)
            self._heard_ns, self.steps, self.human_steps = now_ns, 0, 0
        else:
            self._end(Outcome("aborted", 0, reason=self._revoked or STOPPED), now_ns)

    def rest(self, now_ns: int) -> None:
        """The manager has taken the robot out of the driver's hands; a start that was given before holds no more."""
        if self.phase in ("ready", "running"):
            self._away("the try was cut short", now_ns)

    def heard(self, now_ns: int) -> None:
        """The manager says that it records the try."""
        self._heard_ns = now_ns

    def count(self, human: bool = False) -> None:
        """A command was sent, or a human's wish that it came from."""
        if self.phase == "running":
            self.human_steps += human
            self.steps += not human

    # The operator's side. Each raises StationError where it makes no sense now.

    def home(self, now_ns: int) -> None:
        """Bring the arm home now, or again."""
        if self.phase not in ("away", "scene", "homing") or not self.homes:
            raise StationError(f"not now: {self.prompt}")
        self._go_home(now_ns)

    def homed(self, problem: str, now_ns: int) -> None:
        """The arm is home, or why it is not."""
        if self.phase != "homing":
            return
        if problem:
            self._away(problem, now_ns)
        else:
            self._wait_for_scene(now_ns)

    def start(self, now_ns: int) -> None:
        """The scene is set up."""
        if self.phase == "away" and not self.homes:
            self._wait_for_scene(now_ns)
        if self.phase != "scene":
            raise StationError(f"not now: {self.prompt}")
        self._enter("ready", now_ns)

    def say(self, verdict: Verdict, now_ns: int, note: str = "") -> None:
        """How the running try went; stop and discard also call a try off that has not begun."""
        if verdict == "stop":
            self._effects.append("disable")  # First of all, and whatever the phase.
        if self.phase in ("homing", "scene", "ready") and verdict in ("stop", "discard"):
            self._effects.append("disable")
            self._away(STOPPED if verdict == "stop" else DISCARDED, now_ns)
            return
        if self.phase != "running":
            if verdict == "stop":
                return
            raise StationError(f"no try is running: {self.prompt}")
        self._present_ns = None if verdict == "stop" else now_ns
        if self.human_steps:
            note = f"{note}; " * bool(note) + f"a human drove {self.human_steps} of {self.steps} steps"
        more = f": {note}" if note else ""
        if verdict in ("success", "failure"):
            self._end(self._ended(verdict, note), now_ns)
        else:
            why = STOPPED if verdict == "stop" else DISCARDED
            self._end(self._ended("aborted", why + more), now_ns)

    # The clock's side

    def tick(self, now_ns: int) -> None:
        """Look at the clock: time is up, or the manager is gone."""
        if self.phase == "running" and self.request is not None:
            if now_ns - self._heard_ns > LOST_NS:
                self._effects.append("disable")
                self._away("the rollout manager is gone; start it again, it makes this try again", now_ns, "idle")
            elif now_ns - self._since_ns >= self.request.limit_ns:
                self._end(self._ended("truncated", "time was up"), now_ns)
        elif self.phase == "ready" and now_ns - self._since_ns > READY_NS:
            self._away("the try did not begin within a minute", now_ns)
        elif self.phase in ("away", "homing", "scene") and now_ns - self._asked_ns > LOST_NS:
            if self.phase == "homing":
                self._effects.append("disable")
            self._away("the rollout manager is gone; start it again, it goes on from its schedule", now_ns, "idle")
        elif self.phase == "ended" and now_ns - self._since_ns > LOST_NS:
            self._away("", now_ns, "idle")

    def state(self, now_ns: int, instruction: str) -> StationState:
        """What is told of it now."""
        content: dict[str, Any] = {}
        if self.request is not None:
            names = ("task", "episode_id", "seed", "attempt")
            content = {name: getattr(self.request, name) for name in names}
            content["limit_s"] = self.request.limit_ns / NANOSECONDS
        elapsed = (now_ns - self._since_ns) / NANOSECONDS if self.phase == "running" else 0.0
        return StationState(
            self.phase,
            self.prompt,
            instruction=instruction,
            elapsed_s=round(elapsed, 1),
            steps=self.steps,
            human_steps=self.human_steps,
            last=self.last,
            **content,
        )

    @property
    def prompt(self) -> str:
        """What it waits for."""
        why = f"{self.problem}; " if self.problem else ""
        return {
            "idle": f"{why}no try is asked for: is the rollout manager running?",
            "away": f"{why}{'home: bring the arm home' if self.homes else 'start: set the scene up, then start'}",
            "homing": "the arm is on its way home; stop: hold it",
            "scene": "set the scene up, step back, then start",
            "ready": "starting",
            "running": "running: success, failure, discard or stop",
            "ended": "the try is over",
        }[self.phase]

    # Between the phases

    def _begin(self, request: TryRequest, now_ns: int) -> None:
        present = self._present_ns is not None and now_ns - self._present_ns <= PRESENT_NS
        problem = self.problem if self.phase == "ended" else ""
        self.request, self._present_ns = request, None
        if present and self.homes:
            self._go_home(now_ns)
        elif present:
            self._wait_for_scene(now_ns)
        else:
            self._away(problem, now_ns)

    def _go_home(self, now_ns: int) -> None:
        self.problem = ""
        self._effects.append("home")
        self._enter("homing", now_ns)

    def _wait_for_scene(self, now_ns: int) -> None:
        self.problem = ""
        self._enter("scene", now_ns)

    def _away(self, problem: str, now_ns: int, phase: Phase = "away") -> None:
        self.problem, self._revoked = problem, problem
        self._enter(phase, now_ns)

    def _ended(self, ending: Ending, reason: str) -> Outcome:
        # What a human asks for is told before the command that is made of it.
        human = min(self.human_steps, self.steps)
        return Outcome(ending, self.steps, float(ending == "success"), reason, human)

    def _end(self, outcome: Outcome, now_ns: int) -> None:
        """The arm is held at once; the manager, told of the outcome, does so too."""
        self.outcome = outcome
        self._effects += ["disable", "outcome"]
        self.last = outcome.ending + (f": {outcome.reason}" if outcome.reason else "")
        self.problem = self.last if outcome.ending in ("truncated", "aborted") and self._present_ns is None else ""
        self._enter("ended", now_ns)

    def _enter(self, phase: Phase, now_ns: int) -> None:
        self.phase, self._since_ns = phase, now_ns
