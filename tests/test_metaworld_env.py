"""The simulator: every task resets to the bit, cameras give what the spec asks for, mistakes are named."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_manager.env import StepResult
from rollout_manager.envs import metaworld
from rollout_manager.envs.metaworld import CAMERAS, MetaWorldEnv, partial_credit
from rollout_manager.envs.metaworld_tasks import INSTRUCTIONS, TIME_LIMITS
from rollout_manager.envs.registry import ENVIRONMENTS, make_env
from rollout_manager.exceptions import SimulatorError
from rollout_manager.experts.expert import make_expert
from vla_policy_node.observation import Float64Array
from vla_policy_node.spec import CameraSpec, ProprioceptionField, RobotSpec, load_spec

SPEC = load_spec("metaworld")
STILL = np.zeros(4, np.float32)


@pytest.fixture(scope="module")
def env() -> Iterator[MetaWorldEnv]:
    made = MetaWorldEnv()
    yield made
    made.close()


def with_cameras(*cameras: CameraSpec) -> RobotSpec:
    return replace(SPEC, cameras=cameras)


def expert_states(env: MetaWorldEnv, task: str, seed: int, steps: int) -> Float64Array:
    """States along the expert's way, shape (steps + 1, 39)."""
    expert = make_expert("metaworld")
    env.reset(task, seed)
    expert.reset(task, seed)
    states = [env.privileged_state()]
    for _ in range(steps):
        env.step(expert.act(states[-1]))
        states.append(env.privileged_state())
    return np.array(states)


def test_all_fifty_tasks_are_there_with_an_instruction_of_their_own() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert set(INSTRUCTIONS) == set(ALL_V3_ENVIRONMENTS)
    assert len(INSTRUCTIONS) == 50 == len(set(INSTRUCTIONS.values()))
    assert set(TIME_LIMITS) <= set(INSTRUCTIONS)


@pytest.mark.parametrize("task", list(INSTRUCTIONS))
def test_a_seed_fixes_the_rollout_to_the_bit_whatever_went_before(env: MetaWorldEnv, task: str) -> None:
    fresh = MetaWorldEnv()
    expected = expert_states(fresh, task, 5, 10)
    fresh.close()
    other = expert_states(env, task, 3, 10)
    again = expert_states(env, task, 5, 10)
    assert np.array_equal(again, expected)
    assert not np.array_equal(other, expected)


def test_rendering_changes_no_state(env: MetaWorldEnv) -> None:
    blind = expert_states(env, "push-v3", 1, 30)
    expert = make_expert("metaworld")
    env.reset("push-v3", 1)
    expert.reset("push-v3", 1)
    for state in blind[:-1]:
        env.read(cameras=True)
        assert np.array_equal(env.privileged_state(), state)
        env.step(expert.act(state))
    assert np.array_equal(env.privileged_state(), blind[-1])


def test_cameras_have_the_spec_s_sizes_and_show_different_sides() -> None:
    cameras = [CameraSpec(name, 40 + 8 * i, 64) for i, name in enumerate(CAMERAS)]
    env = MetaWorldEnv(with_cameras(*cameras))
    env.reset("drawer-open-v3", 0)
    images = env.read().images
    assert {name: image.shape for name, image in images.items()} == {c.name: (c.height, 64, 3) for c in cameras}
    for image in images.values():
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.std() > 15  # A scene, not an empty buffer.
    means = [image[:40].mean(axis=(0, 1)) for image in images.values()]
    assert all(np.abs(a - b).max() > 1 for i, a in enumerate(means) for b in means[:i])
    env.close()


def test_the_front_camera_stands_upright_and_the_drawer_is_green_in_it(env: MetaWorldEnv) -> None:
    env.reset("drawer-open-v3", 0)
    image = env.read().images["front"].astype(int)
    green = (image[..., 1] > image[..., 0] + 30) & (image[..., 1] > image[..., 2] + 20)
    rows, columns = np.nonzero(green)
    assert green.sum() > 64 * 64 * 0.03
    assert columns.mean() > 40  # At the right, away from the arm,
    assert rows.mean() < 40  # and above the table's near edge.


def test_images_do_not_depend_on_the_other_cameras_or_on_other_tasks() -> None:
    alone = MetaWorldEnv()
    alone.reset("push-v3", 2)
    expected = alone.read().images["front"]
    many = MetaWorldEnv(with_cameras(CameraSpec("top", 128, 96), CameraSpec("front", 64, 64)))
    many.reset("reach-v3", 0)
    many.read()
    many.reset("push-v3", 2)
    assert np.array_equal(many.read().images["front"], expected)
    many.close()
    alone.reset("push-v3", 2)  # The other's context is gone, this one's is not.
    assert np.array_equal(alone.read().images["front"], expected)
    alone.close()


@pytest.mark.parametrize("task", ["push-v3", "reach-v3", "coffee-push-v3", "dial-turn-v3"])
def test_the_first_image_shows_this_episode_not_what_was_there_before(env: MetaWorldEnv, task: str) -> None:
    fresh = MetaWorldEnv()
    fresh.reset(task, 5)
    expected = fresh.read().images["front"]
    fresh.close()
    expert_states(env, task, 3, 30)
    env.reset(task, 5)
    first = env.read().images["front"]
    assert np.array_equal(first, expected)
    env.step(STILL)
    moved = np.abs(env.read().images["front"].astype(int) - first).max(axis=-1) > 40
    assert moved.mean() < 0.01  # Nothing jumps with the first step.


def test_readings_agree_with_the_privileged_state(env: MetaWorldEnv) -> None:
    env.reset("reach-v3", 0)
    for k in range(20):
        env.step(np.array([0.3, 0.2, -0.1, 1.0 if k < 10 else -1.0], np.float32))
    readings, state = env.read(cameras=False), env.privileged_state()
    assert readings.images == {}
    assert np.array_equal(readings.ee_pose.position, state[:3])
    assert np.linalg.norm(readings.ee_pose.orientation) == pytest.approx(1.0)
    assert readings.joints.names[-1] == "gripper"
    assert readings.joints.position[-1] == state[3]


def test_joint_velocities_are_the_rates_of_the_positions(env: MetaWorldEnv) -> None:
    env.reset("reach-v3", 0)
    action = np.array([0.5, 0.0, 0.0, 1.0], np.float32)
    for _ in range(8):
        env.step(action)
    before = env.read(cameras=False).joints
    env.step(action)
    after = env.read(cameras=False).joints
    rate = (after.position - before.position) * SPEC.rate_hz
    mean = (after.velocity + before.velocity) / 2
    assert rate == pytest.approx(mean, rel=0.1, abs=0.05)
    assert mean[-1] < -1  # The gripper closes.


def test_actions_beyond_the_limits_are_clipped_to_them(env: MetaWorldEnv) -> None:
    states = []
    for scale in (1.0, 7.0):
        env.reset("reach-v3", 0)
        env.step(np.array([scale, -scale, scale, scale], np.float32))
        states.append(env.privileged_state())
    assert np.array_equal(states[0], states[1])


def test_there_is_no_horizon(env: MetaWorldEnv) -> None:
    env.reset("reach-v3", 0)
    for _ in range(510):  # MetaWorld itself raises after 500.
        result = env.step(STILL)
    assert not result.success


def test_only_a_few_tasks_stay_set_up(env: MetaWorldEnv) -> None:
    for task in list(INSTRUCTIONS)[: metaworld.SCENES_KEPT + 2]:
        env.reset(task, 0)
    assert len(env._scenes) == metaworld.SCENES_KEPT
    assert env.read().images["front"].std() > 15


def test_the_faster_touch_is_metaworld_s(env: MetaWorldEnv) -> None:
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

    expert = make_expert("metaworld")
    seen = set()
    env.reset("pick-place-v3", 0)
    expert.reset("pick-place-v3", 0)
    scene: Any = env._ready().env
    for _ in range(45):
        env.step(expert.act(env.privileged_state()))
        geom = scene._get_id_main_object()
        slow = partial(SawyerXYZEnv.touching_object, scene)
        assert bool(slow(geom)) == scene.touching_object(geom)
        seen.add(bool(slow(geom)))
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("first", "now", "credit"),
    [
        ((0.4, 0.0), (0.4, 0.0), 0.0),
        ((0.4, 0.0), (0.1, 0.9), 0.75),
        ((0.4, 0.0), (0.5, 0.0), 0.0),  # Farther away than at first.
        ((0.0, 0.2), (0.0, 0.6), 0.5),  # No distance: half of the 0.8 that were to be gained.
        ((0.0, 1.0), (0.0, 1.0), 0.0),
    ],
)
def test_partial_credit(first: tuple[float, float], now: tuple[float, float], credit: float) -> None:
    infos = [dict(zip(("obj_to_target", "in_place_reward"), values, strict=True)) for values in (first, now)]
    assert partial_credit(*infos) == pytest.approx(credit)


@given(*[st.floats(0, 10)] * 4)
def test_partial_credit_is_a_share(d0: float, r0: float, d: float, r: float) -> None:
    info = {"obj_to_target": d, "in_place_reward": r}
    assert 0 <= partial_credit({"obj_to_target": d0, "in_place_reward": r0}, info) <= 1


def test_progress_rises_to_one_with_success(env: MetaWorldEnv) -> None:
    expert = make_expert("metaworld")
    for task in ("drawer-open-v3", "door-open-v3"):
        env.reset(task, 0)
        expert.reset(task, 0)
        results: list[StepResult] = []
        while not (results and results[-1].success):
            results.append(env.step(expert.act(env.privileged_state())))
        assert results[0].progress == 0
        assert results[-1].progress == 1
        assert 0.5 < results[-2].progress < 1


def test_mistakes_are_named(env: MetaWorldEnv) -> None:
    with pytest.raises(SimulatorError, match=r"'drawer-opn-v3' is not one of MetaWorld's 50; near .*drawer-open-v3"):
        env.reset("drawer-opn-v3", 0)
    with pytest.raises(SimulatorError, match="'' is not one of MetaWorld's 50"):
        env.instruction("")
    with pytest.raises(SimulatorError, match="seed -1 is negative"):
        env.reset("reach-v3", -1)
    with pytest.raises(SimulatorError, match="camera 'rear' is not one of MetaWorld's: front, left"):
        MetaWorldEnv(with_cameras(CameraSpec("rear", 64, 64)))
    with pytest.raises(SimulatorError, match=r"joint 'elbow' is not one of .*gripper"):
        MetaWorldEnv(replace(SPEC, proprioception=(ProprioceptionField("e", "joint_position", "elbow", "rad"),)))
    with pytest.raises(SimulatorError, match="2 action dimensions"):
        MetaWorldEnv(replace(SPEC, action=SPEC.action[:2]))
    with pytest.raises(SimulatorError, match="call reset"):
        MetaWorldEnv().step(STILL)
    with pytest.raises(SimulatorError, match=f"'pybullet' is not one of {', '.join(ENVIRONMENTS)}"):
        make_env("pybullet")


@pytest.mark.parametrize("action", [np.zeros(3, np.float32), np.array([0, np.nan, 0, 0], np.float32)])
def test_an_action_that_is_none_does_not_reach_the_simulator(env: MetaWorldEnv, action: Any) -> None:
    env.reset("reach-v3", 0)
    before = env.privileged_state()
    with pytest.raises(SimulatorError, match="not 4 finite numbers"):
        env.step(action)
    assert np.array_equal(env.privileged_state(), before)


@pytest.mark.parametrize("settings", [{"MUJOCO_GL": "crayons"}, {"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "glx"}])
def test_where_opengl_cannot_be_had_the_message_says_what_to_install(settings: dict[str, str]) -> None:
    script = "from rollout_manager.envs.registry import make_env; make_env('metaworld').reset('reach-v3', 0)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src"), **settings}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True).stderr
    last = said.strip().splitlines()[-1]
    assert last.startswith("rollout_manager.exceptions.SimulatorError: MuJoCo cannot be loaded with MUJOCO_GL=")
    assert "apt-get install libosmesa6" in last
    assert "apt-get install libegl1" in last
