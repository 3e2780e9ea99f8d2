"""Reaching past an obstacle, left or right: what bench_chunking_node.py has the arm do, and a policy that can do it.

The policy is scripted, slow by as much as it is told, and of two minds. Its answer is a distribution over chunks: a
mixture of two normal ones, past the obstacle on the left and on the right, of which the side that the arm is on is the
likelier. The velocity field that leads from noise to such chunks is known in closed form, so that it is sampled, and
guided, as a trained flow head is.
"""

import json
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import mujoco
import numpy as np
import torch
from torch import Tensor

from rollout_manager.arms.arm import Arm
from vla_policy_node.chunking import Replan
from vla_policy_node.committed import Committed
from vla_policy_node.network.guidance import Guidance, follow
from vla_policy_node.observation import Float32Array, Float64Array, Observation
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import NANOSECONDS, RobotSpec

JOINTS = 7
HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.785])
"""Of the arm's model, rad."""
HORIZON = 32
"""Actions in a chunk: more than twice what a network of 400 ms lets pass."""
SIDEWAYS = 0.25
"""rad of joint 1 that both ways depart from the straight one in their middle."""
PACE = 0.6
"""Share of the way that is made in a second, away from its ends."""
RETURN = 0.9
"""Share of a departure from the way that is left after a tick."""
SURE = 1.5
"""Log-odds of the side that the arm is on, where it is as far aside as it should be in the middle."""
SMOOTH, ROUGH, CORRELATION = 0.008, 0.0003, 10.0
"""Standard deviation of chunks in rad: of what is correlated over so many ticks, and of what is not at all."""
SCALE = 0.15
"""rad that are 1 where chunks are normalised."""
STEPS = 10
"""From noise to a chunk."""
OBSTACLE = 0.05
"""Radius in m of the ball in the middle of the straight way."""

Head = Literal["flow", "regression"]


@dataclass(frozen=True)
class Task:
    """One reach, and how the policy that is asked for it behaves; an instruction as JSON."""

    goal: tuple[float, ...]
    """Joint positions, rad; it begins at `HOME`."""
    delay_s: float
    """What the network takes at least for a chunk."""
    head: Head
    """`flow`: guided to go on from what is committed; `regression`: blended, as what has no denoising must be."""

    def way(self, side: float, share: Float64Array) -> Float64Array:
        """Joint positions (N, 7) at shares (N,) of the way past the obstacle on a side: 1, -1, or 0, straight at it."""
        straight = HOME + share[:, None] * (np.array(self.goal) - HOME)
        straight[:, 0] += side * SIDEWAYS * np.sin(np.pi * share)
        return np.asarray(straight)

    def share_of(self, joints: Float64Array) -> float:
        """How far along its way an arm is, from 0 to 1; joint 1, which is moved aside, does not say."""
        along = (np.array(self.goal) - HOME)[1:]
        return float(np.clip((joints[1:] - HOME[1:]) @ along / (along @ along), 0.0, 1.0))

    def text(self) -> str:
        """As an instruction."""
        return json.dumps({"goal": list(self.goal), "delay_s": self.delay_s, "head": self.head})

    @staticmethod
    def of(text: str) -> "Task":
        """What an instruction says."""
        content = json.loads(text)
        return Task(tuple(content["goal"]), content["delay_s"], content["head"])


def make_task(seed: int, delay_s: float, head: Head) -> Task:
    """Down by some 0.35 m, where to is fixed by the seed."""
    random = np.random.default_rng(seed)
    goal = HOME.copy()
    goal[[0, 1, 5]] += random.uniform([-0.1, 0.75, -0.1], [0.1, 0.9, 0.1])
    return Task(tuple(goal.tolist()), delay_s, head)


def shares_from(share: float, period_s: float) -> Float64Array:
    """Where along the way the next actions are, (HORIZON,): slow at both ends."""
    found = []
    for _ in range(HORIZON):
        share = min(1.0, share + PACE * period_s * min(1.0, (share + 0.04) / 0.15, (1.0 - share + 0.01) / 0.2))
        found.append(share)
    return np.array(found)


def hands(joints: Float64Array) -> Float64Array:
    """Where the stand-in's hand is at joint positions (N, 7): (N, 3), m in the frame of its base."""
    arm = Arm("panda")
    places = [arm.model.joint(name).qposadr[0] for name in arm.joints[:JOINTS]]
    found = []
    for position in joints:
        arm.data.qpos[places] = position
        mujoco.mj_kinematics(arm.model, arm.data)
        found.append(np.array(arm.data.site("grip").xpos))
    return np.stack(found)


class Chunks:
    """The distribution over normalised chunks, (HORIZON, 7), with the velocity field of a flow that has learned it."""

    def __init__(self, means: Tensor, chances: Tensor) -> None:
        """Args: means: (2, HORIZON, 7), of both ways; chances: (2,), of either."""
        ticks = torch.arange(HORIZON)
        smooth = torch.exp(-(((ticks[:, None] - ticks) / CORRELATION) ** 2) / 2)
        covariance = (SMOOTH / SCALE) ** 2 * smooth + (ROUGH / SCALE) ** 2 * torch.eye(HORIZON)
        self._variances, self._basis = torch.linalg.eigh(covariance)
        self._means, self._chances = self._basis.T @ means, chances

    def velocity(self, chunk: Tensor, time: float) -> Tensor:
        """(E[a | x] - x) / (1 - t) of x = (1 - t) e + t a, for chunks (B, HORIZON, 7)."""
        here = (self._basis.T @ chunk)[:, None]
        spread = (time**2 * self._variances + (1 - time) ** 2)[:, None]
        off = here - time * self._means
        odds = self._chances.log() - (off**2 / spread).sum((2, 3)) / 2
        mean = self._means + time * self._variances[:, None] / spread * off
        expected = (odds.softmax(1)[:, :, None, None] * mean).sum(1)
        return torch.as_tensor((self._basis @ expected - chunk) / (1 - time))


class SteeringPolicy:
    """Steers the arm to its goal past the obstacle, one chunk after the other, from where its joints are measured."""

    checkpoint_digest = "scripted"
    network = SimpleNamespace(statistics=None)
    """It was trained on nothing that pictures could be compared with."""

    def __init__(self, spec: RobotSpec) -> None:
        self.spec = spec
        self._random = torch.Generator()

    @staticmethod
    def load(path: str, spec: RobotSpec, device: str) -> "SteeringPolicy":
        """As `NetworkPolicy.load`."""
        return SteeringPolicy(spec)

    def warm_up(self) -> None:
        """Run it once, freely and guided: the first time takes longer."""
        home = Observation(0, {}, np.append(HOME, 0.04).astype(np.float32), make_task(0, 0.0, "flow").text())
        self.act(home, Committed(self.act(home).actions[4:], 2))

    def reset(self, seed: int) -> None:
        """Start a new episode; `seed` fixes its chunks."""
        self._random.manual_seed(seed)

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        """A chunk; no sooner than the network that it stands for would give it."""
        began, task = time.perf_counter(), Task.of(observation.instruction)
        joints = observation.proprioception[:JOINTS].astype(np.float64)
        noise = torch.randn(1, HORIZON, JOINTS, generator=self._random)
        guidance = self._guidance(committed, joints) if task.head == "flow" else None
        with torch.no_grad():
            chunk = follow(self.chunks(task, joints).velocity, noise, STEPS, guidance)[0]
        actions = np.full((HORIZON, JOINTS + 1), observation.proprioception[JOINTS], np.float32)
        actions[:, :JOINTS] = joints + SCALE * chunk.numpy()
        if committed is not None and task.head == "regression":
            actions = committed.blended(actions)
        time.sleep(max(0.0, task.delay_s - (time.perf_counter() - began)))
        return ActionChunk(observation.stamp_ns, actions)

    def chunks(self, task: Task, joints: Float64Array) -> Chunks:
        """What it may answer where the joints are at (7,): both ways on from there, and how likely each is."""
        share = task.share_of(joints)
        ahead, here = shares_from(share, self.spec.period_ns / NANOSECONDS), np.array([share])
        left = RETURN ** np.arange(1, HORIZON + 1)[:, None]
        means = [task.way(side, ahead) + left * (joints - task.way(side, here)) - joints for side in (1.0, -1.0)]
        aside = (joints - task.way(0.0, here)[0])[0] / SIDEWAYS
        chances = torch.softmax(torch.tensor([SURE * aside, -SURE * aside], dtype=torch.float32), 0)
        return Chunks(torch.tensor(np.array(means) / SCALE, dtype=torch.float32), chances)

    def _guidance(self, committed: Committed | None, joints: Float64Array) -> Guidance | None:
        if committed is None:
            return None
        actions: Any = (committed.padded(HORIZON)[:, :JOINTS] - joints) / SCALE
        return Guidance(torch.tensor(actions, dtype=torch.float32), torch.from_numpy(committed.weights(HORIZON)))


class Synchronous(Replan):
    """Executes `every` actions of a chunk from the moment that it is there, then has the arm hold for the next one."""

    _fresh: ActionChunk | None = None
    _idle = True

    def wants_chunk(self, tick_ns: int, delay: int = 0) -> bool:
        return self._idle and self._fresh is None

    def offer(self, chunk: ActionChunk) -> None:
        self._fresh = chunk

    def next(self, tick_ns: int) -> Float32Array | None:
        if self._fresh is not None:
            # The arm has stood still since it was seen: what was to be done then is to be done now.
            self._chunk = ActionChunk(tick_ns, self._fresh.actions[: self._of(len(self._fresh.actions))])
            self._fresh = None
        action = super().next(tick_ns)
        self._idle = action is None
        return action
