"""The loop: drivers decide, observers are told, the same actions give the same episode."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from rollout_manager.decisions import DecisionLog, replay_actions
from rollout_manager.drivers import ExpertDriver, NoDriver, PolicyDriver
from rollout_manager.env import Landmarks, StepResult
from rollout_manager.envs.metaworld import MetaWorldEnv
from rollout_manager.episode import Ending, EpisodeHeader, Outcome
from rollout_manager.exceptions import RolloutError, SimulatorError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.rollout import START_NS, StepRecord, describe, driver_seed, new_header, run_episode
from rollout_manager.success import simulator_label
from vla_policy_node.chunking import make_executor
from vla_policy_node.committed import Committed
from vla_policy_node.exceptions import SpecError
from vla_policy_node.exploration import Explore
from vla_policy_node.observation import Float32Array, Float64Array, Joints, Observation, Pose, Readings
from vla_policy_node.policy import ActionChunk
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import ProprioceptionField, RobotSpec, load_spec

SPEC = load_spec("metaworld")
PERIOD = SPEC.period_ns


@dataclass
class Steering:
    """A real policy, if a simple one: it steers by what it sees, the mean colour, and by where its hand is."""

    spec: RobotSpec = SPEC
    seen: list[Observation] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def act(self, observation: Observation, committed: Committed | None = None) -> ActionChunk:
        self.seen.append(observation)
        colour = observation.images["front"].mean(axis=(0, 1)) / 255 - 0.5
        first = np.append(colour + observation.proprioception[:3], 1.0)
        return ActionChunk(observation.stamp_ns, (first * np.linspace(1, 0.3, 8)[:, None]).astype(np.float32))


@dataclass
class Witness:
    """An observer that keeps everything."""

    needs_images: bool = False
    events: list[str] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    ends: list[tuple[Outcome, int, Readings | None]] = field(default_factory=list)

    def start(self, header: EpisodeHeader) -> None:
        self.events.append(f"start {header.episode_id}")

    def step(self, record: StepRecord) -> None:
        self.events.append("step")
        self.records.append(record)

    def finish(self, outcome: Outcome, stamp_ns: int, readings: Readings | None) -> None:
        self.events.append(outcome.ending)
        self.ends.append((outcome, stamp_ns, readings))


class Counter:
    """A small world of its own: success after five steps of more than 0 in x, failure at one below -0.5."""

    name = "counter"
    tasks = ("count",)

    def __init__(self, spec: RobotSpec = SPEC, breaks_at: int | None = None) -> None:
        self.spec = spec
        self._breaks_at = breaks_at
        self.rendered = 0

    def instruction(self, task: str) -> str:
        return "count to five"

    def default_time_limit(self, task: str) -> int:
        return 30

    def reset(self, task: str, seed: int) -> None:
        self.steps = self.count = 0

    def step(self, action: Float32Array) -> StepResult:
        if self.steps == self._breaks_at:
            raise ZeroDivisionError("the world ended")
        self.steps += 1
        self.count += action[0] > 0
        return StepResult(self.count >= 5, min(self.count / 5, 1), bool(action[0] < -0.5))

    def read(self, cameras: bool = True) -> Readings:
        self.rendered += cameras
        images = {"front": np.full((64, 64, 3), self.steps, np.uint8)} if cameras else {}
        joints = Joints(("gripper",), np.array([1.0]))
        return Readings(images, joints, Pose(np.array([self.steps, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])))

    def privileged_state(self) -> Float64Array:
        return np.array([float(self.count)])

    def landmarks(self) -> Landmarks:
        return Landmarks({}, {})

    def versions(self) -> dict[str, str]:
        return {"counter": "1"}

    def close(self) -> None:
        pass


class Constant:
    """Steers by the privileged state alone: the same x every step."""

    def __init__(self, x: float, trouble: str = "") -> None:
        self._action = np.array([x, 0, 0, 0], np.float32)
        self.trouble = trouble

    def reset(self, task: str, seed: int) -> None:
        pass

    def act(self, privileged_state: Float64Array) -> Float32Array:
        return self._action


@pytest.fixture(scope="module")
def env() -> Iterator[MetaWorldEnv]:
    made = MetaWorldEnv()
    yield made
    made.close()


def policy_driver(policy: Steering, scale: float = 0.0, execute: str = "replan", every: int = 8) -> PolicyDriver:
    executor = make_executor(execute, PERIOD, every)
    return PolicyDriver(Explore(policy, scale), executor, SafetyFilter(SPEC))


def expert_driver(scale: float = 0.0) -> ExpertDriver:
    return ExpertDriver(Demonstrator(make_expert("metaworld"), SPEC, ActionNoise(SPEC, scale, 0.5)))


def sent(witness: Witness) -> Float32Array:
    return np.array([record.action for record in witness.records])


def run_counter(x: float, limit: int = 30) -> tuple[Outcome, Witness]:
    env, witness = Counter(), Witness()
    header = new_header(env, "count", 0, driver="expert")
    driver = ExpertDriver(Demonstrator(Constant(x), SPEC, ActionNoise(SPEC, 0.0)))
    return run_episode(env, driver, header, limit, [witness]).outcome, witness


@pytest.mark.parametrize(
    ("x", "limit", "ending", "steps", "progress"),
    [
        (0.5, 30, "success", 5, 1.0),
        (0.5, 5, "success", 5, 1.0),  # At the very last step it is still the task that ends it.
        (0.5, 4, "truncated", 4, 0.8),
        (-0.9, 30, "failure", 1, 0.0),
        (0.0, 7, "truncated", 7, 0.0),
    ],
)
def test_how_an_episode_ends(x: float, limit: int, ending: Ending, steps: int, progress: float) -> None:
    outcome, witness = run_counter(x, limit)
    # The counter's credit rises with each step, so the best of it is reached with the last one.
    assert outcome == Outcome(ending, steps, progress, progress_steps=steps if progress else 0)
    assert witness.events == ["start counter_count_s0_a0", *["step"] * steps, ending]


def test_stamps_are_one_period_apart_and_the_last_readings_come_after_the_last_action() -> None:
    env, witness = Counter(), Witness(needs_images=True)
    header = new_header(env, "count", 0, driver="expert")
    run_episode(env, ExpertDriver(Demonstrator(Constant(1), SPEC, ActionNoise(SPEC, 0.0))), header, 30, [witness])
    assert [r.stamp_ns for r in witness.records] == [START_NS + k * PERIOD for k in range(5)]
    assert [r.readings.images["front"][0, 0, 0] for r in witness.records if r.readings] == [0, 1, 2, 3, 4]
    ((_, stamp, last),) = witness.ends
    assert stamp == START_NS + 5 * PERIOD
    assert last is not None
    assert last.images["front"][0, 0, 0] == 5


def test_nothing_is_rendered_that_nobody_looks_at() -> None:
    env = Counter()
    header = new_header(env, "count", 0, driver="none")
    run_episode(env, NoDriver(SafetyFilter(SPEC)), header, 20, [Witness()])
    assert env.rendered == 0
    run_episode(env, policy_driver(Steering()), header, 16, [DecisionLog()])
    assert env.rendered == 2  # A chunk of eight is executed whole.


def test_what_an_expert_says_of_its_trouble_is_the_reason_of_a_try_that_runs_out_of_time() -> None:
    env = Counter()
    header = new_header(env, "count", 0, driver="expert")
    for trouble in ("", "no grasp"):
        driver = ExpertDriver(Demonstrator(Constant(0, trouble), SPEC, ActionNoise(SPEC, 0.0)))
        assert run_episode(env, driver, header, 3).outcome.reason == trouble


def test_an_error_reaches_the_observers_as_an_abort_and_then_the_caller() -> None:
    env, witnesses = Counter(breaks_at=3), [Witness(), Witness(needs_images=True)]
    header = new_header(env, "count", 0, driver="expert")
    with pytest.raises(ZeroDivisionError):
        run_episode(env, ExpertDriver(Demonstrator(Constant(1), SPEC, ActionNoise(SPEC, 0.0))), header, 30, witnesses)
    for witness in witnesses:
        ((outcome, _, readings),) = witness.ends
        assert (outcome.ending, outcome.steps, outcome.progress) == ("aborted", 3, 0.6)
        assert outcome.reason.startswith("ZeroDivisionError: the world ended (test_rollout.py, line")
        assert readings is None


def test_an_observer_that_cannot_start_aborts_those_that_did() -> None:
    class Full(Witness):
        def start(self, header: EpisodeHeader) -> None:
            raise SimulatorError("disk full")

    first, full = Witness(), Full()
    header = new_header(Counter(), "count", 0, driver="none")
    with pytest.raises(SimulatorError, match="disk full"):
        run_episode(Counter(), NoDriver(SafetyFilter(SPEC)), header, 5, [first, full])
    assert first.events == ["start counter_count_s0_a0", "aborted"]
    assert full.events == []


def test_reasons_are_one_line() -> None:
    assert describe(KeyboardInterrupt()) == "interrupted"
    assert describe(SystemExit(143)) == "interrupted"
    assert describe(SpecError("two\n  lines")) == "two lines"
    assert describe(ValueError("never raised")) == "ValueError: never raised"


def test_a_time_limit_must_be_positive() -> None:
    with pytest.raises(RolloutError, match="time limit 0 is not positive"):
        run_counter(0, 0)


def test_a_sensor_that_the_spec_names_and_the_world_lacks_is_named() -> None:
    camera = replace(SPEC.cameras[0], name="rear", topic="")
    spec = replace(SPEC, cameras=(camera,), proprioception=(ProprioceptionField("x", "ee_pose", "x", "m"),))
    env = Counter(spec)
    header = new_header(env, "count", 0, driver="none")
    driver = PolicyDriver(Steering(spec), make_executor("replan", PERIOD, 8), SafetyFilter(spec))
    with pytest.raises(RolloutError, match="'counter': no observation: rear: nothing received"):
        run_episode(env, driver, header, 3)


def test_headers_say_what_is_to_be_imitated(env: MetaWorldEnv) -> None:
    header = new_header(env, "push-v3", 4, driver="policy", attempt=2, checkpoint_digest="ab")
    assert (header.episode_id, header.instruction) == ("metaworld_push-v3_s4_a2", "push the puck to the green goal")
    assert (header.spec_digest, header.time_limit_steps, header.label_source) == (SPEC.digest, 200, "sent")
    assert header.versions["metaworld"].startswith("3.")
    assert new_header(env, "push-v3", 4, driver="policy", exploration=0.1).label_source == "proposed"
    assert new_header(env, "push-v3", 4, driver="expert").label_source == "proposed"


def test_every_try_has_a_seed_of_its_own(env: MetaWorldEnv) -> None:
    policy = Steering()
    for seed, attempt in ((3, 0), (3, 1), (4, 0)):
        header = new_header(env, "reach-v3", seed, driver="policy", attempt=attempt)
        run_episode(env, policy_driver(policy), header, 2)
    assert {driver_seed(3, 0), driver_seed(3, 1), driver_seed(4, 0)} <= set(policy.seeds)
    assert len({driver_seed(s, a) for s in range(50) for a in range(100)}) == 5000


@pytest.mark.parametrize("execute", ["replan", "ensemble"])
def test_observers_do_not_change_what_happens(env: MetaWorldEnv, execute: str) -> None:
    header = new_header(env, "push-v3", 1, driver="policy", exploration=0.2)
    blind, seeing = Witness(), Witness(needs_images=True)
    for witness in (blind, seeing):
        run_episode(env, policy_driver(Steering(), 0.2, execute), header, 40, [witness])
    assert np.array_equal(sent(blind), sent(seeing))
    assert np.abs(sent(blind)).max() > 0
    assert all(record.readings is None for record in blind.records)
    assert all(record.readings is not None for record in seeing.records)


def test_the_policy_sees_what_the_recorder_records(env: MetaWorldEnv) -> None:
    header = new_header(env, "push-v3", 1, driver="policy")
    policy, witness = Steering(), Witness(needs_images=True)
    run_episode(env, policy_driver(policy, every=4), header, 20, [witness])
    proposed = [record for record in witness.records if record.chunk is not None]
    stamps = [START_NS + k * PERIOD for k in range(0, 20, 4)]
    assert [o.stamp_ns for o in policy.seen] == [r.stamp_ns for r in proposed] == stamps
    for observation, record in zip(policy.seen, proposed, strict=True):
        assert record.readings is not None
        assert np.array_equal(observation.images["front"], record.readings.images["front"])
        assert observation.instruction == "push the puck to the green goal"
        assert observation.proprioception[3] == np.float32(record.readings.joints.position[-1])


@pytest.mark.parametrize("task", ["push-v3", "drawer-open-v3", "assembly-v3"])
def test_a_success_is_replayed_to_the_bit(env: MetaWorldEnv, task: str) -> None:
    header = new_header(env, task, 3, driver="expert", exploration=0.1)
    log, first = DecisionLog(), Witness(needs_images=True)
    original = run_episode(env, expert_driver(0.1), header, 300, [log, first])
    assert original.outcome.success
    fresh, again = MetaWorldEnv(), Witness(needs_images=True)
    repeated = replay_actions(fresh, header, log.decisions, [again])
    fresh.close()
    assert repeated.outcome == original.outcome
    assert np.array_equal(sent(first), sent(again))
    for a, b in zip(first.records, again.records, strict=True):
        assert a.readings is not None
        assert b.readings is not None
        assert np.array_equal(a.readings.images["front"], b.readings.images["front"])
        assert np.array_equal(a.readings.joints.position, b.readings.joints.position)
        assert a.chunk is b.chunk is not None


def test_nothing_holds_still(env: MetaWorldEnv) -> None:
    header = new_header(env, "drawer-open-v3", 0, driver="none")
    witness = Witness()
    outcome = run_episode(env, NoDriver(SafetyFilter(SPEC)), header, 25, [witness]).outcome
    assert (outcome.ending, outcome.steps) == ("truncated", 25)
    assert not sent(witness).any()


@pytest.mark.parametrize(
    ("ending", "verdict"),
    [("success", "success"), ("failure", "failure"), ("truncated", "failure"), ("aborted", "aborted")],
)
def test_the_simulator_s_word_as_a_label(ending: Ending, verdict: str) -> None:
    header = new_header(Counter(), "count", 0, driver="none")
    label = simulator_label(header, Outcome(ending, 3, 0.5, "killed" if ending == "aborted" else ""))
    assert (label.episode_id, label.outcome, label.rule) == (header.episode_id, verdict, "simulator")
    assert label.note == ("killed" if ending == "aborted" else f"{ending} after 3 steps, progress 0.50")
