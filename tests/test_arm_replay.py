"""A recording into a live arm: what is sent when, by hand, and the stand-in arm as a process that it is sent to."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from client_node import Client
from graph_helpers import make_graph

from rollout_manager.arm_replay import ArmRecording, ArmReplay, ArmReplayConfig, read_arm_recording
from rollout_manager.bag import EpisodeReader
from rollout_manager.drivers import ExpertDriver, NoDriver
from rollout_manager.envs.metaworld import MetaWorldEnv
from rollout_manager.envs.panda import PandaEnv
from rollout_manager.exceptions import BagError
from rollout_manager.experts.demonstrator import Demonstrator
from rollout_manager.experts.expert import ActionNoise, make_expert
from rollout_manager.graph import ros_environment
from rollout_manager.recorder import BagObserver
from rollout_manager.rollout import new_header, run_episode
from vla_policy_node.observation import Float64Array, Joints
from vla_policy_node.ros_node import rclpy_maker
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION, ESTOP, JOINT_STATES, MESSAGE_TYPES

SPEC = load_spec("panda")
NAMES = tuple(d.joint for d in SPEC.action)
HOME = np.array([0, -0.4, 0, -2.2, 0, 1.8, 0.785, 0.04])
PERIOD = SPEC.period_ns


def recording(turn: float = 0.2, steps: int = 30) -> ArmRecording:
    """The first joint turns evenly; the arm did just what it was told."""
    actions = np.tile(HOME, (steps, 1)).astype(np.float32)
    actions[:, 0] = np.linspace(0, turn, steps)
    times = [k * PERIOD for k in range(steps)]
    positions = {name: actions[:, i].astype(np.float64) for i, name in enumerate(NAMES)}
    return ArmRecording("turn", times, actions, times, positions)


def joints(position: Float64Array) -> Joints:
    return Joints(NAMES, position, np.zeros(8))


def test_at_each_moment_the_newest_action_counts_and_joints_are_between_those_told() -> None:
    made = recording(turn=2.9)
    assert made.action_at(-5)[0] == 0
    assert made.action_at(3 * PERIOD)[0] == made.action_at(4 * PERIOD - 1)[0] == pytest.approx(0.3)
    assert made.position_at("panda_joint1", 3 * PERIOD + PERIOD // 2) == pytest.approx(0.35, abs=1e-6)
    assert np.isnan(made.position_at("panda_joint1", 40 * PERIOD))
    assert np.isnan(made.position_at("elbow", 0))
    assert made.ends_ns == 30 * PERIOD


def test_a_perfect_arm_is_brought_there_slowly_then_follows() -> None:
    replay = ArmReplay(recording(), SPEC, ArmReplayConfig())
    at, phases, sent = HOME + np.eye(8)[0] * 0.3, list[str](), list[Float64Array]()
    for tick in range(400):
        phases.append(replay.phase)
        command = replay.tick(tick * PERIOD + 1, joints(at), tick * PERIOD + 1)
        if command is not None:
            at = command.action.astype(np.float64)
        sent.append(at)
        if replay.phase == "over":
            break
    assert replay.phase == "over"
    assert [p for i, p in enumerate(phases) if i == 0 or p != phases[i - 1]][:2] == ["approach", "play"]
    speeds = np.abs(np.diff(np.array(sent)[:, 0])) / (PERIOD / 1e9)
    begun = phases.index("play")
    assert speeds[: begun - 1].max() <= 0.7 * 0.25 + 1e-3
    assert begun * PERIOD / 1e9 > (0.3 - 0.02) / (0.7 * 0.25)
    assert replay.report.ended == ""
    assert 28 <= replay.report.sent <= 31
    assert max(map(abs, replay.report.errors["panda_joint1"])) < 0.03
    assert speeds[-1] == pytest.approx(0, abs=1e-3)


def test_whatever_stops_it_ends_it_at_rest() -> None:
    for why, ended in (("e-stop: pressed", "e-stop: pressed"), ("", "joint states: the last are")):
        replay = ArmReplay(recording(turn=0.6), SPEC, ArmReplayConfig())
        at, last, ticks = HOME, 0.0, 0
        while replay.phase != "over" and ticks < 200:
            ticks += 1
            now_ns = ticks * PERIOD
            stopped = (why,) if why and ticks > 15 else ()
            heard_ns = now_ns if why or ticks <= 15 else 15 * PERIOD
            command = replay.tick(now_ns, joints(at), heard_ns, stopped)
            assert command is not None
            last = abs(float(command.action[0] - at[0]))
            at = command.action.astype(np.float64)
        assert replay.report.ended.startswith(ended)
        assert last < 1e-3
        assert ticks < 60
        assert 0.05 < at[0] < 0.6


def test_an_arm_that_is_too_far_away_or_another_is_refused() -> None:
    replay = ArmReplay(recording(), SPEC, ArmReplayConfig(within=0.5))
    with pytest.raises(BagError, match=r"panda_joint2 is at 0\.200 rad, the recording begins at -0\.400: further than"):
        replay.check_start(joints(HOME + np.eye(8)[1] * 0.6))
    with pytest.raises(BagError, match="says nothing of panda_joint1"):
        replay.check_start(Joints(("elbow",), np.zeros(1), np.zeros(1)))
    with pytest.raises(BagError, match=r"rate 0\.0 and within 1\.0 must be above 0"):
        ArmReplayConfig(rate=0.0)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The expert holds its hand above the cube."""
    env, observer = PandaEnv(), BagObserver(tmp_path_factory.mktemp("bags"), SPEC)
    driver = ExpertDriver(Demonstrator(make_expert("panda"), SPEC, ActionNoise(SPEC, 0.0)))
    run_episode(env, driver, new_header(env, "reach_cube", 3, driver="expert"), 150, [observer])
    env.close()
    assert observer.path is not None
    return observer.path


def test_a_bag_gives_its_actions_and_joints(bag: Path, tmp_path: Path) -> None:
    made = read_arm_recording(EpisodeReader(bag), SPEC)
    assert len(made.actions) == len(made.times_ns) == len(made.joint_times_ns) - 1
    assert set(made.positions) == set(NAMES)
    env, observer = MetaWorldEnv(), BagObserver(tmp_path, load_spec("metaworld"))
    run_episode(env, NoDriver(SafetyFilter(env.spec)), new_header(env, "reach-v3", 0, driver="none"), 2, [observer])
    env.close()
    assert observer.path is not None
    with pytest.raises(BagError, match="hand_dx, hand_dy, hand_dz, gripper command no joint's position"):
        read_arm_recording(EpisodeReader(observer.path), load_spec("metaworld"))
    with pytest.raises(BagError, match="recorded on robot 'metaworld'"):
        read_arm_recording(EpisodeReader(observer.path), SPEC)


def replayed(bag: Path, domain: int, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "trainer.cli", "replay", "arm", str(bag), "--domain", str(domain), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ros_environment(domain)
    )


def said_while(process: "subprocess.Popen[str]", client: Client, until: str, then: Callable[[], None]) -> str:
    """What a process says; `then` is called when it has said `until`. The client spins meanwhile."""
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(iter(process.stdout.readline, "")))  # type: ignore[union-attr]
    reader.start()
    client.until(lambda: any(until in line for line in lines) or process.poll() is not None, 90.0)
    then()
    client.until(lambda: process.poll() is not None, 90.0)
    reader.join()
    return "".join(lines)


@pytest.mark.ros
@pytest.mark.slow
def test_the_arm_follows_what_was_recorded(ros_domain: int, bag: Path, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"arm": {}}), Client(ros_domain) as client:
        client.listen(JOINT_STATES, MESSAGE_TYPES[JOINT_STATES])
        process = replayed(bag, ros_domain)
        said = said_while(process, client, "play", lambda: None)
        assert process.returncode == 0, said
        last = client.received[JOINT_STATES][-1]
    assert "played to the end" in said
    found = re.findall(r"^(panda_joint\d) +(\S+) +(\S+)$", said, flags=re.MULTILINE)
    assert [name for name, _, _ in found] == list(NAMES[:7])
    # 0.7 rad/s at most, and two busy cores may be late by some ticks.
    assert max(float(mean) for _, mean, _ in found) < 0.05
    made = read_arm_recording(EpisodeReader(bag), SPEC)
    np.testing.assert_allclose(last.position[:7], made.actions[-1][:7], atol=0.03)


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("way", ["e-stop", "Ctrl-C"])
def test_a_stop_in_the_middle_holds_the_arm(ros_domain: int, bag: Path, tmp_path: Path, way: str) -> None:
    with make_graph(tmp_path, ros_domain, {"arm": {}}), Client(ros_domain) as client:
        client.listen(JOINT_STATES, MESSAGE_TYPES[JOINT_STATES])
        estop = client.publisher(ESTOP, MESSAGE_TYPES[ESTOP])
        process = replayed(bag, ros_domain, "--rate", "0.5")

        def stop() -> None:
            client.spin(0.5)
            if way == "e-stop":
                estop.publish(rclpy_maker()("std_msgs/msg/Bool", data=True))
            else:
                os.kill(process.pid, signal.SIGINT)

        said = said_while(process, client, ": play", stop)
        assert process.returncode == 1, said
        assert f"STOPPED: {'e-stop: pressed' if way == 'e-stop' else 'interrupted'}" in said
        client.spin(0.3)
        client.received[JOINT_STATES].clear()
        client.spin(0.5)
        assert max(np.abs(m.velocity[:7]).max() for m in client.received[JOINT_STATES]) < 0.02


@pytest.mark.ros
@pytest.mark.slow
def test_it_sends_nothing_to_an_arm_in_other_hands_or_far_away(ros_domain: int, bag: Path, tmp_path: Path) -> None:
    with make_graph(tmp_path, ros_domain, {"arm": {}}), Client(ros_domain) as client:
        client.listen(ACTION, MESSAGE_TYPES[ACTION])
        process = replayed(bag, ros_domain, "--within", "0.001")
        said = said_while(process, client, "further than", lambda: None)
        assert (process.returncode, "allow more with --within" in said) == (2, True), said
        client.publisher(SPEC.commands[0].topic, "trajectory_msgs/msg/JointTrajectory")
        started = time.monotonic()
        process = replayed(bag, ros_domain)
        said = said_while(process, client, "published by", lambda: None)
        assert "is published by test_client; stop that first" in said
        assert time.monotonic() - started < 60
        assert client.received[ACTION] == []
